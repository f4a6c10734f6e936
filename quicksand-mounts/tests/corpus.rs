//! Replays the committed corpus of the fuzz target `fuse`.

use std::{fs, path::Path};

use quicksand_mounts::server::fuzzing::fuse;

#[test]
fn corpus_of_fuse() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/fuse");
    let mut count = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "shared").unwrap();
        fuse(directory.path(), &fs::read(entry.unwrap().path()).unwrap()).unwrap();
        count += 1;
    }
    assert_ne!(count, 0, "{}", corpus.display());
}
