//! An index of a guest's files: what [`Request::Index`](crate::message::Request::Index) sends.
//!
//! Entries follow one another in no order that means anything. Each says how many bytes its path has in common with the one before
//! it, as neighbours in a tree mostly differ in their names alone.

use serde::{Deserialize, Serialize};

/// Longest path and longest target of a link, in bytes: those of Linux.
pub const LONGEST_PATH: usize = 4096;
/// Most entries of an index. The system on a full workstation has half as many.
pub const MOST_ENTRIES: usize = 1_000_000;
/// Most bytes of all paths and targets together.
pub const MOST_PATH_BYTES: usize = 256 << 20;

/// A file of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Absolute path.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u16,
    /// Number of its owner.
    pub uid: u32,
    /// Number of its group.
    pub gid: u32,
    /// When it was changed in any way, in nanoseconds: of use only to be compared.
    pub changed_ns: i64,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind<'a> {
    /// A regular file of that many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link with that target.
    Symlink(&'a [u8]),
    /// A pipe with a name.
    Fifo,
    /// A socket.
    Socket,
    /// A block device of that number.
    BlockDevice(u64),
    /// A character device of that number.
    CharacterDevice(u64),
    /// A directory or file over which another file system is mounted that is not looked into.
    Mount,
}

/// What a file has beside its content, owner and mode, as far as it is told: what
/// [`Request::Attributes`](crate::message::Request::Attributes) is answered with, for each file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Flags of the file system, as `statx` has them; no others than [`FLAGS`](Attributes::FLAGS).
    pub flags: u64,
    /// Extended attributes by name, among them capabilities and access control lists.
    pub extended: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    /// The contents can't be changed, nor the file renamed or removed.
    pub const IMMUTABLE: u64 = 0x10;
    /// The file may only grow.
    pub const APPEND_ONLY: u64 = 0x20;
    /// It is left out of backups.
    pub const NO_DUMP: u64 = 0x40;
    /// The flags that are told.
    pub const FLAGS: u64 = Attributes::IMMUTABLE | Attributes::APPEND_ONLY | Attributes::NO_DUMP;

    /// Whether an extended attribute of that name is told: not what the system's own policy and its layers of file systems keep there.
    pub fn is_told(name: &[u8]) -> bool {
        let whole: [&[u8]; 3] = [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
        let trusted = name.starts_with(b"trusted.") && !name.starts_with(b"trusted.overlay.");
        whole.contains(&name) || name.starts_with(b"user.") || trusted
    }

    /// The bytes that travel.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain data has a form")
    }

    /// Reads one, and returns the bytes that follow it.
    ///
    /// # Errors
    ///
    /// [`IndexError::Malformed`], for arbitrary bytes.
    pub fn decode(bytes: &[u8]) -> Result<(Attributes, &[u8]), IndexError> {
        let (attributes, rest): (Attributes, _) =
            postcard::take_from_bytes(bytes).map_err(|_| IndexError::Malformed)?;
        let told = attributes.extended.iter().all(|(name, _)| Attributes::is_told(name));
        if told && attributes.flags & !Attributes::FLAGS == 0 {
            Ok((attributes, rest))
        } else {
            Err(IndexError::Malformed)
        }
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Attributes::default()
    }
}

/// What travels of an entry.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    shared: u16,
    rest: &'a [u8],
    kind: Kind<'a>,
    mode: u16,
    uid: u32,
    gid: u32,
    changed_ns: i64,
}

/// Why bytes are no index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// It has more entries than [`MOST_ENTRIES`], or longer paths than [`MOST_PATH_BYTES`].
    #[error("read an index of files: it has more than {MOST_ENTRIES} of them, or paths of more than {} MiB", MOST_PATH_BYTES >> 20)]
    TooLarge,
    /// An entry breaks a rule.
    #[error("read an index of files: it has an entry that is none")]
    Malformed,
}

/// Turns entries into bytes.
#[derive(Debug, Default)]
pub struct Encoder {
    last: Vec<u8>,
}

impl Encoder {
    /// Adds an entry to `bytes`. One whose path or target is longer than [`LONGEST_PATH`] is left out.
    pub fn encode(&mut self, entry: &Entry<'_>, bytes: Vec<u8>) -> Vec<u8> {
        let Entry { path, kind, mode, uid, gid, changed_ns } = *entry;
        if path.len() > LONGEST_PATH || matches!(kind, Kind::Symlink(target) if target.len() > LONGEST_PATH) {
            return bytes;
        }
        let shared = self.last.iter().zip(path).take_while(|(one, other)| one == other).count();
        let line = Line { shared: shared as u16, rest: &path[shared..], kind, mode, uid, gid, changed_ns };
        self.last.truncate(shared);
        self.last.extend_from_slice(&path[shared..]);
        postcard::to_extend(&line, bytes).expect("plain data has a form")
    }
}

/// Calls `take` with each entry that the bytes hold.
///
/// # Errors
///
/// [`IndexError`], for arbitrary bytes.
pub fn decode(mut bytes: &[u8], mut take: impl FnMut(Entry<'_>)) -> Result<(), IndexError> {
    let mut path = Vec::new();
    let (mut entries, mut path_bytes) = (0, 0);
    while !bytes.is_empty() {
        let (line, rest) = postcard::take_from_bytes::<Line<'_>>(bytes).map_err(|_| IndexError::Malformed)?;
        bytes = rest;
        let Line { shared, rest, kind, mode, uid, gid, changed_ns } = line;
        let target = if let Kind::Symlink(target) = kind { target.len() } else { 0 };
        if usize::from(shared) > path.len() {
            return Err(IndexError::Malformed);
        }
        path.truncate(shared.into());
        if path.len() + rest.len() > LONGEST_PATH || target > LONGEST_PATH || mode > 0o7777 {
            return Err(IndexError::Malformed);
        }
        path.extend_from_slice(rest);
        if path.first() != Some(&b'/') || path.contains(&0) {
            return Err(IndexError::Malformed);
        }
        entries += 1;
        path_bytes += path.len() + target;
        if entries > MOST_ENTRIES || path_bytes > MOST_PATH_BYTES {
            return Err(IndexError::TooLarge);
        }
        take(Entry { path: &path, kind, mode, uid, gid, changed_ns });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(path: &[u8]) -> Entry<'_> {
        Entry { path, kind: Kind::File(5), mode: 0o644, uid: 0, gid: 0, changed_ns: -1 }
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<Vec<u8>>, IndexError> {
        let mut paths = Vec::new();
        decode(bytes, |entry| paths.push(entry.path.to_vec())).map(|()| paths)
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let entries = [
            entry(b"/usr/bin/a"),
            Entry { kind: Kind::Symlink(b"../\xff"), mode: 0o777, ..entry(b"/usr/bin/ab") },
            Entry { kind: Kind::CharacterDevice(u64::MAX), uid: u32::MAX, ..entry(b"/") },
            entry(b"/x\n\xc3"),
        ];
        let mut encoder = Encoder::default();
        let bytes = entries.iter().fold(Vec::new(), |bytes, entry| encoder.encode(entry, bytes));
        let mut number = 0;
        decode(&bytes, |entry| {
            assert_eq!(entry, entries[number]);
            number += 1;
        })
        .unwrap();
        assert_eq!(number, entries.len());
        assert!(matches!(decoded(&bytes[..bytes.len() - 1]), Err(IndexError::Malformed)));
    }

    fn line(shared: u16, rest: &[u8]) -> Vec<u8> {
        let line = Line { shared, rest, kind: Kind::Directory, mode: 0o755, uid: 0, gid: 0, changed_ns: 0 };
        postcard::to_stdvec(&line).unwrap()
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        assert_eq!(decoded(&line(0, b"/a")).unwrap(), [b"/a"]);
        let long = [b'/'; LONGEST_PATH + 1];
        for bytes in [line(1, b"/a"), line(0, b"a"), line(0, b""), line(0, b"/a\0"), line(0, &long)] {
            assert_eq!(decoded(&bytes), Err(IndexError::Malformed));
        }
    }

    #[test]
    fn few_bytes_do_not_become_many() {
        let again = line(LONGEST_PATH as u16, b"");
        let bytes = [line(0, &[b'/'; LONGEST_PATH]), again.repeat(MOST_PATH_BYTES / LONGEST_PATH)].concat();
        assert!(bytes.len() < 1 << 20);
        let mut entries = 0;
        assert_eq!(decode(&bytes, |_| entries += 1), Err(IndexError::TooLarge));
        assert_eq!(entries, MOST_PATH_BYTES / LONGEST_PATH);
    }

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let told = Attributes { flags: 0x10, extended: vec![(b"user.x".to_vec(), vec![0, 255])] };
        let bytes = [told.encode(), Attributes::default().encode()].concat();
        let (read, rest) = Attributes::decode(&bytes).unwrap();
        assert_eq!(read, told);
        assert!(Attributes::decode(rest).unwrap().0.is_empty());
        let untold = Attributes { extended: vec![(b"security.selinux".to_vec(), vec![])], ..told.clone() };
        for bytes in [&bytes[..5], &[][..], &untold.encode(), &Attributes { flags: 4, ..told }.encode()] {
            assert_eq!(Attributes::decode(bytes), Err(IndexError::Malformed));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decoded(&bytes);
            let _ = Attributes::decode(&bytes);
        }
    }
}
