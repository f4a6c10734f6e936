//! What files take on the disk. A file with several names takes it once, and gives it back with the last of them.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The size of the blocks that file systems count in, in bytes.
const BLOCK: u64 = 512;

/// A file, whatever its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Inode {
    device: u64,
    number: u64,
}

/// A file by one of its names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    inode: Inode,
    /// How many names it has.
    pub(crate) names: u64,
    /// What it takes, in bytes.
    pub(crate) bytes: u64,
}

/// All files below a path, once for each name. What can't be read, as it has just gone, is left out.
pub(crate) fn usage(path: &Path) -> Vec<Usage> {
    let mut found = Vec::new();
    let mut queue: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = queue.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            queue.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else {
            let inode = Inode { device: metadata.dev(), number: metadata.ino() };
            found.push(Usage { inode, names: metadata.nlink(), bytes: metadata.blocks() * BLOCK });
        }
    }
    found
}

/// What things take together, and what their removal frees.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    files: HashMap<Inode, Left>,
    total: u64,
}

/// What is left of a file's names.
#[derive(Debug)]
struct Left {
    names: u64,
    counted: u64,
    bytes: u64,
}

impl Ledger {
    /// Counts what a thing has.
    pub(crate) fn add(&mut self, files: &[Usage]) {
        for file in files {
            let left =
                self.files.entry(file.inode).or_insert(Left { names: file.names, counted: 0, bytes: file.bytes });
            if left.counted == 0 {
                self.total += left.bytes;
            }
            left.counted += 1;
        }
    }

    /// What all that is counted takes, in bytes.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Takes a thing out, and returns how many bytes that frees: those of files that have no other name, here or elsewhere.
    pub(crate) fn remove(&mut self, files: &[Usage]) -> u64 {
        let mut freed = 0;
        for file in files {
            let Some(left) = self.files.get_mut(&file.inode).filter(|left| left.counted > 0) else { continue };
            left.counted -= 1;
            left.names = left.names.saturating_sub(1);
            if left.counted == 0 {
                self.total -= left.bytes;
            }
            if left.names == 0 {
                freed += left.bytes;
            }
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_file_counts_once_and_is_freed_with_its_last_name() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        for name in ["one", "two", "outside"] {
            fs::create_dir_all(path(name).join("deep")).unwrap();
        }
        fs::write(path("one/deep/shared"), vec![1; 100_000]).unwrap();
        fs::hard_link(path("one/deep/shared"), path("two/shared")).unwrap();
        fs::write(path("two/saved"), vec![1; 50_000]).unwrap();
        fs::hard_link(path("two/saved"), path("outside/saved")).unwrap();
        let (one, two) = (usage(&path("one")), usage(&path("two")));
        let bytes = |name: &str| fs::metadata(path(name)).unwrap().blocks() * BLOCK;
        let mut ledger = Ledger::default();
        ledger.add(&one);
        ledger.add(&two);
        assert_eq!(ledger.total(), bytes("two/shared") + bytes("two/saved"));
        assert_eq!((ledger.remove(&one), ledger.total()), (0, bytes("two/shared") + bytes("two/saved")));
        assert_eq!((ledger.remove(&two), ledger.total()), (bytes("two/shared"), 0));
        assert_eq!(ledger.remove(&two), 0);
    }
}
