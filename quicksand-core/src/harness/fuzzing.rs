//! What is fuzzed of this crate, and what must hold for any bytes. For fuzz targets and the tests that replay their corpus.

use std::path::{Component, Path};

use crate::{
    image::{metadata::Metadata, state::Manifest},
    qemu::qmp,
    saves::archive::Index,
};

/// The limit of a line from QEMU, in bytes, lowered to what a fuzzer comes to reach.
const MAX_LINE: usize = 1024;

/// Reads what QEMU might send on its control channel.
///
/// # Panics
///
/// Where a command is left to wait for its answer, or one after too long a line is told.
pub fn qmp(bytes: &[u8]) {
    let (answers, events) = qmp::read_all(bytes, MAX_LINE);
    let lines = bytes.split(|&byte| byte == b'\n').take_while(|line| line.len() < MAX_LINE).count();
    assert!(answers.iter().flatten().count() + events <= lines, "no more is told than was sent");
}

/// Reads the manifest of a save, the index of an export, or the description of an image, whichever `bytes` are.
///
/// # Panics
///
/// Where one that was read is not read again as it is written, or has a path that leads out of its directory.
pub fn manifest(bytes: &[u8]) {
    let path = Path::new("manifest.json");
    if let Ok(manifest) = Manifest::parse(path, bytes) {
        let written = serde_json::to_vec_pretty(&manifest).expect("a manifest can be written");
        assert_eq!(Manifest::parse(path, &written).expect("what was written can be read"), manifest);
    }
    if let Ok(index) = Index::parse(path, bytes) {
        assert!(i64::try_from(index.total()).is_ok(), "its total is one that a disk may have");
        assert!(index.files.iter().all(|entry| stays_inside(Path::new(&entry.path))), "{index:?}");
    }
    if let Ok(metadata) = Metadata::parse(bytes) {
        assert!(metadata.files().all(|file| stays_inside(&file.path)), "{metadata:?}");
        let written = metadata.to_json().expect("a description can be written");
        assert_eq!(Metadata::parse(&written).expect("what was written can be read"), metadata);
    }
}

fn stays_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Passes each file of a corpus that is committed.
    fn replay(target: &str, fuzz: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let files = fs::read_dir(&corpus).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        assert_ne!(files.map(|bytes| fuzz(&bytes)).count(), 0, "{}", corpus.display());
    }

    #[test]
    fn corpus_of_qmp() {
        replay("qmp", qmp);
    }

    #[test]
    fn corpus_of_manifests() {
        replay("manifest", manifest);
    }
}
