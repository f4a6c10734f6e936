//! Replays the committed corpus of the fuzz target `frames`.

use std::{fs, path::Path};

use quicksand_protocol::fuzzing::frames;

#[test]
fn corpus_of_frames() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/frames");
    let files = fs::read_dir(&corpus).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    assert_ne!(files.map(|bytes| frames(&bytes)).count(), 0, "{}", corpus.display());
}
