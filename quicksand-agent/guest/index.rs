//! An index of the files on the guest's disks.
//!
//! File systems that hold no files of a disk are left out, and so is what is mounted at a second place. The walk is in portions of
//! some directories each, whose entries are looked at in the order of their inodes: on a disk of which nothing has been read yet that
//! is half as long again otherwise.

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    fs::{self, FileType, Metadata},
    io::{self, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirEntryExt, FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use quicksand_protocol::{
    index::{Encoder, Entry, Kind},
    message::{Done, Failure, stream},
};

use crate::operation::Operation;

/// How many directories and how many of their entries make a portion.
const PORTION: (usize, usize) = (256, 50_000);
/// How many bytes are sent at once.
const SENT_AT_ONCE: usize = 32 * 1024;
/// File systems with files of a disk.
const ON_DISK: [&str; 13] =
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs", "jfs", "reiserfs", "vfat", "exfat", "ntfs3"];

/// Sends the index.
pub(crate) fn send(operation: &Arc<Operation>) -> Result<Done, Failure> {
    let mounts = Mounts::new(&fs::read("/proc/self/mountinfo").unwrap_or_default());
    let mut output = operation.output(stream::STDOUT);
    match walk(Path::new("/"), &mounts, &mut output) {
        Ok(()) => Ok(Done::Nothing),
        Err(error) => {
            output.abandon();
            let message = format!("send an index of the files: {error}");
            Err(Failure { errno: error.raw_os_error().unwrap_or(0), message })
        }
    }
}

fn walk(root: &Path, mounts: &Mounts, output: &mut impl Write) -> io::Result<()> {
    let (mut encoder, mut bytes) = (Encoder::default(), Vec::with_capacity(2 * SENT_AT_ONCE));
    let mut directories = VecDeque::new();
    let mut look = |path: PathBuf, directories: &mut VecDeque<PathBuf>| {
        // What can't be looked at has gone since its directory was read: a live system's files do that.
        let Ok(metadata) = fs::symlink_metadata(&path) else { return Ok(()) };
        let target;
        let kind = if mounts.is_apart(&path) {
            Kind::Mount
        } else if metadata.is_symlink() {
            target = fs::read_link(&path).unwrap_or_default();
            Kind::Symlink(target.as_os_str().as_bytes())
        } else {
            kind(metadata.file_type(), &metadata)
        };
        bytes = encoder.encode(&entry(&path, kind, &metadata), std::mem::take(&mut bytes));
        if kind == Kind::Directory {
            directories.push_back(path);
        }
        if bytes.len() >= SENT_AT_ONCE {
            output.write_all(&bytes)?;
            bytes.clear();
        }
        Ok::<(), io::Error>(())
    };
    look(root.to_owned(), &mut directories)?;
    let mut portion: Vec<(u64, PathBuf)> = Vec::new();
    while !directories.is_empty() {
        for _ in 0..PORTION.0 {
            let Some(directory) = directories.pop_front() else { break };
            // One that can't be read is as good as empty.
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            portion.extend(entries.map(|entry| (entry.ino(), entry.path())));
            if portion.len() >= PORTION.1 {
                break;
            }
        }
        portion.sort_unstable();
        portion.drain(..).try_for_each(|(_, path)| look(path, &mut directories))?;
    }
    output.write_all(&bytes)
}

fn entry<'a>(path: &'a Path, kind: Kind<'a>, metadata: &Metadata) -> Entry<'a> {
    let (uid, gid) = (metadata.uid(), metadata.gid());
    let changed_ns = metadata.ctime().wrapping_mul(1_000_000_000).wrapping_add(metadata.ctime_nsec());
    Entry { path: path.as_os_str().as_bytes(), kind, mode: (metadata.mode() & 0o7777) as u16, uid, gid, changed_ns }
}

/// That of anything but a symbolic link.
fn kind(kind: FileType, metadata: &Metadata) -> Kind<'static> {
    if kind.is_dir() {
        Kind::Directory
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else if kind.is_block_device() {
        Kind::BlockDevice(metadata.rdev())
    } else if kind.is_char_device() {
        Kind::CharacterDevice(metadata.rdev())
    } else {
        Kind::File(metadata.len())
    }
}

/// What is mounted where, and whether it is to be looked into.
#[derive(Debug, Default)]
struct Mounts(HashMap<PathBuf, bool>);

impl Mounts {
    /// What `/proc/self/mountinfo` says, whose lines are in the order of mounting.
    fn new(mountinfo: &[u8]) -> Mounts {
        let mut looked_into: Vec<(&[u8], PathBuf)> = Vec::new();
        let mut all = HashMap::new();
        for line in mountinfo.split(|&byte| byte == b'\n') {
            let mut words = line.split(|&byte| byte == b' ');
            let (Some(device), Some(inner), Some(point)) = (words.nth(2), words.next(), words.next()) else { continue };
            // Optional fields end with a dash.
            let kind = words.skip_while(|word| *word != b"-").nth(1).unwrap_or_default();
            let (inner, point) = (unescaped(inner), unescaped(point));
            let on_disk = ON_DISK.iter().any(|known| known.as_bytes() == kind);
            // A part of what is walked already: a bind mount. Subvolumes of btrfs lie beside one another.
            let again = looked_into.iter().any(|(other, root)| *other == device && inner.starts_with(root));
            let look_into = point == Path::new("/") || on_disk && !again;
            if look_into {
                looked_into.push((device, inner));
            }
            all.insert(point, look_into);
        }
        Mounts(all)
    }

    /// Whether something is mounted there that is not to be looked into.
    fn is_apart(&self, path: &Path) -> bool {
        self.0.get(path).is_some_and(|look_into| !look_into)
    }
}

/// A path without the escapes that the kernel puts into its lists: three octal digits behind a backslash.
fn unescaped(path: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) if byte == b'\\' => {
                plain.push(escaped);
                rest = &after[3..];
            }
            _ => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quicksand_protocol::index;
    use std::os::unix::fs::symlink;

    #[test]
    fn disks_are_looked_into_once_and_the_rest_is_not() {
        let mounts = Mounts::new(
            b"22 1 0:29 / / rw - btrfs /dev/vda rw\n\
              23 22 0:29 /@home /home rw shared:1 - btrfs /dev/vda rw\n\
              24 22 0:29 /@home/a /mnt/a rw - btrfs /dev/vda rw\n\
              25 22 253:1 / /boot rw shared:2 master:3 - ext4 /dev/vdb rw\n\
              26 22 253:1 / /again rw - ext4 /dev/vdb rw\n\
              27 22 0:5 / /proc rw - proc proc rw\n\
              28 22 0:44 / /mnt/with\\040space rw - fuse.quicksand quicksand rw\n\
              nonsense\n",
        );
        // A subvolume of what is at the root is below it, and found there.
        for (path, apart) in [("/", false), ("/boot", false), ("/usr", false), ("/again", true), ("/proc", true)] {
            assert_eq!(mounts.is_apart(Path::new(path)), apart, "{path}");
        }
        assert!(mounts.is_apart(Path::new("/mnt/with space")) && mounts.is_apart(Path::new("/mnt/a")));
        let mounts = Mounts::new(b"1 1 0:2 / / rw - rootfs rootfs rw\n2 1 0:29 /@ / rw - btrfs d rw\n3 2 0:29 /@home /home rw - btrfs d rw\n");
        assert!(!mounts.is_apart(Path::new("/")) && !mounts.is_apart(Path::new("/home")));
        assert!(!Mounts::new(b"").is_apart(Path::new("/proc")));
    }

    #[test]
    fn every_kind_of_file_is_told() {
        let root = std::env::temp_dir().join(format!("quicksand-index-{}", std::process::id()));
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/e/f"), "12345").unwrap();
        symlink("/nowhere/at all", root.join("loop")).unwrap();
        symlink("..", root.join("d/up")).unwrap();
        nix::unistd::mkfifo(&root.join("p"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        fs::create_dir(root.join("mounted")).unwrap();
        fs::write(root.join("mounted/hidden"), "").unwrap();
        let mounts = Mounts(HashMap::from([(root.join("mounted"), false)]));
        let mut bytes = Vec::new();
        walk(&root, &mounts, &mut bytes).unwrap();
        let mut lines = Vec::new();
        index::decode(&bytes, |entry| {
            let path = String::from_utf8(entry.path.to_vec()).unwrap();
            lines.push(format!("{} {:?}", path.trim_start_matches(root.to_str().unwrap()), entry.kind));
        })
        .unwrap();
        lines.sort();
        let target = |text: &str| format!("{:?}", Kind::Symlink(text.as_bytes()));
        let wanted = [
            " Directory".to_owned(),
            "/d Directory".into(),
            "/d/e Directory".into(),
            "/d/e/f File(5)".into(),
            format!("/d/up {}", target("..")),
            format!("/loop {}", target("/nowhere/at all")),
            "/mounted Mount".into(),
            "/p Fifo".into(),
        ];
        assert_eq!(lines, wanted);
        fs::remove_dir_all(root).unwrap();
    }
}
