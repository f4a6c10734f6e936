//! The files of a guest, from the index that it sent.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use quicksand_protocol::index::{self, IndexError, Kind};

/// A file of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) path: Box<[u8]>,
    pub(crate) kind: OwnKind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Differs after any change.
    pub(crate) changed_ns: i64,
}

/// [`Kind`] with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OwnKind {
    File(u64),
    Directory,
    Symlink(Box<[u8]>),
    Fifo,
    Socket,
    BlockDevice(u64),
    CharacterDevice(u64),
    Mount,
}

impl File {
    pub(crate) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// Whether its attributes are told.
    pub(crate) fn may_have_attributes(&self) -> bool {
        matches!(self.kind, OwnKind::File(_) | OwnKind::Directory)
    }

    /// The size of a regular file.
    pub(crate) fn size(&self) -> Option<u64> {
        if let OwnKind::File(size) = self.kind { Some(size) } else { None }
    }
}

impl OwnKind {
    fn of(kind: Kind<'_>) -> OwnKind {
        match kind {
            Kind::File(size) => OwnKind::File(size),
            Kind::Directory => OwnKind::Directory,
            Kind::Symlink(target) => OwnKind::Symlink(target.into()),
            Kind::Fifo => OwnKind::Fifo,
            Kind::Socket => OwnKind::Socket,
            Kind::BlockDevice(number) => OwnKind::BlockDevice(number),
            Kind::CharacterDevice(number) => OwnKind::CharacterDevice(number),
            Kind::Mount => OwnKind::Mount,
        }
    }
}

/// The files of a guest in the order of their paths, byte by byte, each path once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files(Vec<File>);

impl Files {
    /// Reads an index.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Files, IndexError> {
        let mut files = Vec::new();
        index::decode(bytes, |entry| {
            files.push(File {
                path: entry.path.into(),
                kind: OwnKind::of(entry.kind),
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                changed_ns: entry.changed_ns,
            });
        })?;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        files.dedup_by(|one, other| one.path == other.path);
        Ok(Files(files))
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, File> {
        self.0.iter()
    }

    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        let at = self.0.binary_search_by(|file| (*file.path).cmp(path.as_bytes())).ok()?;
        Some(&self.0[at])
    }

    /// What is below a directory, which is named without a slash at its end.
    pub(crate) fn below(&self, directory: &str) -> &[File] {
        let prefix = [directory.as_bytes(), b"/"].concat();
        let begin = self.0.partition_point(|file| *file.path < *prefix);
        let len = self.0[begin..].partition_point(|file| file.path.starts_with(&prefix));
        &self.0[begin..begin + len]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use quicksand_protocol::index::{Encoder, Entry};

    /// Files of root's with mode 0644: `path`, `path/`, `path -> target`, each with a time of its change.
    pub(in crate::verbs::changes) fn files(entries: &[(&str, i64)]) -> Files {
        let mut encoder = Encoder::default();
        let bytes = entries.iter().fold(Vec::new(), |bytes, &(text, changed_ns)| {
            let (path, kind) = match (text.split_once(" -> "), text.strip_suffix('/')) {
                (Some((path, target)), _) => (path, Kind::Symlink(target.as_bytes())),
                (None, Some(path)) => (path, Kind::Directory),
                (None, None) => (text, Kind::File(10)),
            };
            let entry = Entry { path: path.as_bytes(), kind, mode: 0o644, uid: 0, gid: 0, changed_ns };
            encoder.encode(&entry, bytes)
        });
        Files::decode(&bytes).unwrap()
    }

    #[test]
    fn files_are_found_by_path_and_directory() {
        let files = files(&[("/b/c", 0), ("/b-", 0), ("/b/", 0), ("/a", 0), ("/a", 1), ("/b/c/d", 0), ("/c", 0)]);
        assert_eq!(files.get("/b").unwrap().kind, OwnKind::Directory);
        assert_eq!((files.get("/a").is_some(), files.get("/d")), (true, None));
        let below: Vec<_> = files.below("/b").iter().map(|file| file.path().to_str().unwrap()).collect();
        assert_eq!(below, ["/b/c", "/b/c/d"]);
        assert_eq!(files.iter().count(), 6);
        assert!(files.below("/d").is_empty());
    }
}
