//! Replays the committed corpus of the fuzz targets `frames` and `index`.

use std::{fs, path::Path};

use quicksand_protocol::fuzzing::{frames, index};

fn replay(target: &str, feed: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = fs::read_dir(&corpus).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    assert_ne!(files.map(|bytes| feed(&bytes)).count(), 0, "{}", corpus.display());
}

#[test]
fn corpus_of_frames() {
    replay("frames", frames);
}

#[test]
fn corpus_of_index() {
    replay("index", index);
}
