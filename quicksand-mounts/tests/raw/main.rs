//! What a guest might send with the socket in its hands, and what comes of it. Landlock is not at work here: what is refused, the
//! filter refuses.

mod guest;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use guest::*;
use nix::{errno::Errno, libc, unistd::geteuid};
use proptest::{collection::vec, prelude::*, sample::select};
use quicksand_mounts::server::{Limits, MAX_MESSAGE, MIN_MESSAGE, Options, Owner, serve};

/// A shared directory with something beside it that no guest may learn of.
struct Host {
    _directory: tempfile::TempDir,
    share: PathBuf,
    secret: PathBuf,
}

const SECRET: &str = "the host's own";

fn host() -> Host {
    let directory = tempfile::tempdir().unwrap();
    let (share, secret) = (directory.path().join("share"), directory.path().join("secret"));
    fs::create_dir(&share).unwrap();
    fs::write(&secret, SECRET).unwrap();
    fs::write(share.join("file"), "shared").unwrap();
    fs::set_permissions(share.join("file"), fs::Permissions::from_mode(0o644)).unwrap();
    Host { _directory: directory, share, secret }
}

impl Host {
    fn secret_is_untouched(&self) {
        assert_eq!(fs::read_to_string(&self.secret).unwrap(), SECRET);
    }
}

#[test]
fn files_are_made_read_and_written() {
    let host = host();
    let mut guest = Guest::of(&host.share);
    let file = guest.lookup(ROOT, "file").unwrap();
    let handle = guest.open(file, libc::O_RDWR).unwrap();
    assert_eq!(guest.read(file, handle, 4096).unwrap(), b"shared");
    guest.write(file, handle, b"SH").unwrap();
    assert_eq!(fs::read(host.share.join("file")).unwrap(), b"SHared");
    guest.release(file, handle).unwrap();
    assert_eq!(guest.release(file, handle), Err(Errno::EBADF));

    let created = guest.create(ROOT, "new", libc::O_WRONLY, 0o640).unwrap();
    guest.write(node(&created), self::handle(&created), b"x").unwrap();
    let made = fs::metadata(host.share.join("new")).unwrap();
    assert_eq!((made.mode() & 0o7777, made.uid(), made.len()), (0o640, geteuid().as_raw(), 1));

    guest.call(SYMLINK, ROOT, &[b"link\0/anywhere\0"]).unwrap();
    let link = guest.lookup(ROOT, "link").unwrap();
    assert_eq!(guest.call(READLINK, link, &[]).unwrap(), b"/anywhere");
    guest.call(RENAME, ROOT, &[&ROOT.to_ne_bytes(), b"link\0moved\0"]).unwrap();
    guest.call(UNLINK, ROOT, &[b"moved\0"]).unwrap();
    guest.mkdir("d", 0o755).unwrap();
    guest.call(RMDIR, ROOT, &[b"d\0"]).unwrap();
    assert_eq!(fs::read_dir(&host.share).unwrap().count(), 2);
}

#[test]
fn the_first_word_settles_what_makes_it_fast() {
    let host = host();
    let mut guest = Guest::silent(&host.share, Options::default(), ROOMY);
    // Nothing comes before it.
    assert_eq!(guest.lookup(ROOT, "file"), Err(Errno::EIO));
    let settled = guest.init().unwrap();
    let (flags, max_write, max_pages) = (u32_at(&settled, 12), u32_at(&settled, 20), settled[28]);
    // Asynchronous reads, atomic truncation, big writes, automatic invalidation, both kinds of readdirplus, parallel lookups,
    // page counts, cached links; and nothing else of all that was offered.
    assert_eq!(flags, 1 | 1 << 3 | 1 << 5 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 18 | 1 << 22 | 1 << 23, "{flags:#x}");
    assert_eq!((max_write, max_pages), (1 << 20, 0), "256 pages, whose low byte is 0");
    assert_eq!(settled[29], 1);
    // Once only: it would have the directory opened anew.
    assert_eq!(guest.init(), Err(Errno::EIO));
    assert!(guest.lookup(ROOT, "file").is_ok());
}

/// Hole (a): `O_PATH` over a symbolic link, then attributes by the handle, told of any file of the host.
#[test]
fn create_over_a_link_tells_nothing_of_its_target() {
    let host = host();
    symlink(&host.secret, host.share.join("link")).unwrap();
    let mut guest = Guest::of(&host.share);
    for flags in [libc::O_PATH, libc::O_PATH | libc::O_RDWR, libc::O_RDONLY, libc::O_RDWR | libc::O_TRUNC, -1] {
        let answer = guest.create(ROOT, "link", flags, 0o644);
        assert!(answer.is_err(), "flags {flags:#x}");
    }
    // By its number the link can be looked at, but not opened, and a handle of another file does not fit it.
    let link = guest.lookup(ROOT, "link").unwrap();
    for flags in [libc::O_PATH, libc::O_RDONLY, libc::O_NOFOLLOW | libc::O_PATH] {
        assert_eq!(guest.open(link, flags), Err(Errno::EBADF), "flags {flags:#x}");
    }
    let (size, mode, ..) = attributes(&guest.getattr(link, None).unwrap());
    assert_eq!((size, mode & libc::S_IFMT), (host.secret.as_os_str().len() as u64, libc::S_IFLNK));
    host.secret_is_untouched();
}

/// Hole (b): `..` of a directory that the host has moved away.
#[test]
fn there_is_no_way_up() {
    let host = host();
    fs::create_dir_all(host.share.join("a/b")).unwrap();
    let mut guest = Guest::of(&host.share);
    let a = guest.lookup(ROOT, "a").unwrap();
    let b = guest.lookup(a, "b").unwrap();
    fs::rename(host.share.join("a/b"), host.share.with_file_name("away")).unwrap();
    for parent in [ROOT, a, b] {
        for name in ["..", ".", "", "../secret", "/etc/passwd", "b/..", "..\0x"] {
            assert_eq!(guest.lookup(parent, name), Err(Errno::EINVAL), "{name:?}");
            let c_name = [name.as_bytes(), b"\0"].concat();
            let to_root = [&ROOT.to_ne_bytes()[..], &c_name, b"x\0"].concat();
            let from_root = [&ROOT.to_ne_bytes()[..], b"file\0", &c_name].concat();
            for (opcode, body) in [
                (UNLINK, c_name.clone()),
                (RMDIR, c_name.clone()),
                (MKDIR, [&[0; 8][..], &c_name].concat()),
                (MKNOD, [&[0; 16][..], &c_name].concat()),
                (CREATE, [&[0; 16][..], &c_name].concat()),
                (LINK, [&a.to_ne_bytes()[..], &c_name].concat()),
                (SYMLINK, [&c_name[..], b"target\0"].concat()),
                (RENAME, to_root.clone()),
                (RENAME, from_root.clone()),
                (RENAME2, [&to_root[..8], &[0; 8], &to_root[8..]].concat()),
            ] {
                let answer = guest.call(opcode, parent, &[&body]);
                assert!(answer.is_err(), "{opcode} {name:?}");
            }
        }
    }
    assert!(host.share.join("file").exists());
    host.secret_is_untouched();
}

/// Hole (c): a file without a name, opened as a directory.
#[test]
fn no_flag_opens_anything_but_the_file() {
    let host = host();
    let mut guest = Guest::of(&host.share);
    // With O_TMPFILE the root would be open as a new file, which could be written and linked.
    let handle = guest.opendir(ROOT, libc::O_TMPFILE | libc::O_RDWR).unwrap();
    assert!(guest.write(ROOT, handle, b"x").is_err());
    assert_eq!(guest.list_plus(handle).unwrap().len(), 1);
    for flags in [libc::O_TMPFILE | libc::O_RDWR, libc::O_TMPFILE | libc::O_WRONLY] {
        assert_eq!(guest.open(ROOT, flags), Err(Errno::EISDIR));
        assert!(guest.create(ROOT, "file", flags | libc::O_EXCL, 0o644).is_err());
    }
    // A handle of an O_PATH would answer EBADF.
    let file = guest.lookup(ROOT, "file").unwrap();
    let handle = guest.open(file, libc::O_PATH | libc::O_DIRECT | libc::O_ASYNC).unwrap();
    assert_eq!(guest.read(file, handle, 100).unwrap(), b"shared");
}

/// Hole (d): files that give their runner rights of the host's user, or that are the host's devices.
#[test]
fn no_set_id_bits_and_no_devices() {
    let host = host();
    let mut guest = Guest::of(&host.share);
    guest.create(ROOT, "created", libc::O_RDWR, 0o6755).unwrap();
    guest.mkdir("directory", 0o6755).unwrap();
    guest.mknod("node", libc::S_IFREG | 0o6755, 0).unwrap();
    guest.mknod("pipe", libc::S_IFIFO | 0o6644, 0).unwrap();
    guest.mknod("socket", libc::S_IFSOCK | 0o600, 0).unwrap();
    let changed = guest.lookup(ROOT, "file").unwrap();
    guest.setattr(changed, 1, 0o6755, 0, 0).unwrap();
    let second = guest.create(ROOT, "second", libc::O_RDWR, 0o755).unwrap();
    guest.setattr(node(&second), 1, 0o7755, 0, 0).unwrap();
    for (name, mode) in [
        ("created", 0o755),
        ("second", 0o1755),
        ("directory", 0o755),
        ("node", 0o755),
        ("pipe", 0o644),
        ("socket", 0o600),
        ("file", 0o755),
    ] {
        assert_eq!(fs::metadata(host.share.join(name)).unwrap().mode() & 0o7777, mode, "{name}");
    }
    assert!(fs::metadata(host.share.join("pipe")).unwrap().file_type().is_fifo());
    for kind in [libc::S_IFCHR, libc::S_IFBLK, libc::S_IFLNK, libc::S_IFDIR, 0o150_000] {
        assert_eq!(guest.mknod("device", kind | 0o666, 0x103), Err(Errno::EPERM), "{kind:#o}");
    }
    // A whiteout is a device too.
    let body = [&ROOT.to_ne_bytes()[..], &4u64.to_ne_bytes(), b"node\0moved\0"].concat();
    assert_eq!(guest.call(RENAME2, ROOT, &[&body]), Err(Errno::EINVAL));
    assert!(host.share.join("node").exists());
}

#[test]
fn nothing_of_a_read_only_directory_changes() {
    let host = host();
    fs::create_dir(host.share.join("d")).unwrap();
    let before = snapshot(&host.share);
    let mut guest = Guest::reader(&host.share);
    let file = guest.lookup(ROOT, "file").unwrap();
    let read_only = |answer: Answer, what: &str| assert_eq!(answer, Err(Errno::EROFS), "{what}");
    let open = |guest: &mut Guest, flags| guest.open(file, flags).map(|_| Vec::new());
    for flags in [
        libc::O_WRONLY,
        libc::O_RDWR,
        libc::O_ACCMODE,
        libc::O_RDONLY | libc::O_TRUNC,
        libc::O_RDONLY | libc::O_CREAT,
        libc::O_TMPFILE | libc::O_RDWR,
    ] {
        read_only(open(&mut guest, flags), "open");
    }
    let handle = guest.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(guest.read(file, handle, 100).unwrap(), b"shared");
    read_only(guest.write(file, handle, b"x"), "write");
    read_only(guest.create(ROOT, "new", libc::O_RDONLY, 0o644), "create");
    read_only(guest.create(ROOT, "file", libc::O_RDONLY, 0o644), "create over");
    read_only(guest.mknod("new", libc::S_IFREG, 0), "mknod");
    read_only(guest.mkdir("new", 0o755), "mkdir");
    for valid in [1, 2, 4, 8, 16, 32, 1 << 6 | 8, 1 << 7, 1 << 8] {
        read_only(guest.setattr(file, valid, 0o777, 0, 0), "setattr");
    }
    let nodes = [ROOT.to_ne_bytes(), file.to_ne_bytes()];
    read_only(guest.call(SYMLINK, ROOT, &[b"new\0target\0"]), "symlink");
    read_only(guest.call(UNLINK, ROOT, &[b"file\0"]), "unlink");
    read_only(guest.call(RMDIR, ROOT, &[b"d\0"]), "rmdir");
    read_only(guest.call(RENAME, ROOT, &[&nodes[0], b"file\0new\0"]), "rename");
    read_only(guest.call(RENAME2, ROOT, &[&nodes[0], &[0; 8], b"file\0new\0"]), "rename2");
    read_only(guest.call(LINK, ROOT, &[&nodes[1], b"new\0"]), "link");
    read_only(guest.call(FALLOCATE, file, &[&handle.to_ne_bytes(), &[0; 24]]), "fallocate");
    assert_eq!(guest.call(SETXATTR, file, &[&[0; 8], b"user.x\0"]), Err(Errno::ENOSYS));

    // With O_TMPFILE a directory's handle would have written.
    let directory = guest.opendir(ROOT, libc::O_TMPFILE | libc::O_RDWR).unwrap();
    read_only(guest.write(ROOT, directory, b"x"), "write to a directory");
    assert_eq!(guest.list_plus(directory).unwrap().len(), 2);
    assert_eq!(snapshot(&host.share), before);
}

/// All that could change of a directory's files, but their times of access.
fn snapshot(directory: &Path) -> Vec<(PathBuf, u32, u64, i64, i64, u64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let m = fs::symlink_metadata(&path).unwrap();
        all.push((path, m.mode(), m.len(), m.mtime_nsec(), m.ctime_nsec(), m.ino()));
    }
    all.sort();
    all
}

#[test]
fn all_belongs_to_who_serves() {
    let host = host();
    let mut guest = Guest::of(&host.share);
    let file = guest.lookup(ROOT, "file").unwrap();
    // By a process of user 1000: to the guest the host's files are whoever's asks, and it may keep its own but give none away.
    let owners = |guest: &mut Guest, file| {
        let (.., owner, group) = attributes(&guest.getattr(file, None).unwrap());
        (owner, group)
    };
    assert_eq!(owners(&mut guest, file), (1000, 1000));
    guest.setattr(file, 2 | 4, 0, 1000, 0).unwrap();
    assert_eq!(guest.setattr(file, 2 | 4, 0, 1001, 0).unwrap_err(), Errno::EPERM);
    let created = guest.create(ROOT, "new", libc::O_RDWR, 0o600).unwrap();
    guest.mkdir("d", 0o700).unwrap();
    for name in ["file", "new", "d"] {
        assert_eq!(fs::metadata(host.share.join(name)).unwrap().uid(), geteuid().as_raw());
    }
    assert_eq!(owners(&mut guest, node(&created)), (1000, 1000));
    if geteuid().is_root() {
        fs::write(host.share.join("others"), "").unwrap();
        std::os::unix::fs::chown(host.share.join("others"), Some(12), Some(34)).unwrap();
        let others = guest.lookup(ROOT, "others").unwrap();
        assert_eq!(owners(&mut guest, others), (12, 34));
    }
    // With an owner it is his, but for what was made here.
    let owner = Some(Owner { user: 7, group: 8 });
    let mut guest = Guest::new(&host.share, Options { owner, ..Options::default() }, ROOMY);
    let file = guest.lookup(ROOT, "file").unwrap();
    assert_eq!(owners(&mut guest, file), (7, 8));
    assert_eq!(guest.setattr(file, 2 | 4, 0, 1000, 0).unwrap_err(), Errno::EPERM);
    let made = guest.mkdir("e", 0o700).unwrap();
    assert_eq!(owners(&mut guest, node(&made)), (1000, 1000));
}

#[test]
fn hard_links_are_made_without_privileges() {
    let host = host();
    fs::create_dir(host.share.join("d")).unwrap();
    symlink("file", host.share.join("link")).unwrap();
    let mut guest = Guest::of(&host.share);
    let file = guest.lookup(ROOT, "file").unwrap();
    let link = guest.lookup(ROOT, "link").unwrap();
    let directory = guest.lookup(ROOT, "d").unwrap();
    for (node, parent, name) in [(file, ROOT, "second"), (file, directory, "third"), (link, directory, "link")] {
        guest.call(LINK, parent, &[&node.to_ne_bytes(), name.as_bytes(), b"\0"]).unwrap();
    }
    let number = |path: &str| fs::symlink_metadata(host.share.join(path)).unwrap().ino();
    assert_eq!((number("second"), number("d/third")), (number("file"), number("file")));
    assert_eq!(number("d/link"), number("link"));
    // Of what has left the directory no link is made.
    fs::rename(host.share.join("file"), host.share.with_file_name("away")).unwrap();
    let answer = guest.call(LINK, ROOT, &[&file.to_ne_bytes(), b"back\0"]);
    assert_eq!(answer, Err(Errno::ENOENT));
    assert!(!host.share.join("back").exists());
}

#[test]
fn what_is_not_served_says_so() {
    let host = host();
    let mut guest = Guest::of(&host.share);
    let file = guest.lookup(ROOT, "file").unwrap();
    let big = [0; 200];
    for opcode in
        [0, 7, 19, GETXATTR, SETXATTR, FLUSH, INTERRUPT, 31, 32, 33, 37, 40, 47, 48, 49, 50, 51, 52, 1 << 20, u32::MAX]
    {
        assert_eq!(guest.call(opcode, file, &[&big]), Err(Errno::ENOSYS), "{opcode}");
    }
    assert_eq!(guest.call(IOCTL, file, &[&big]), Err(Errno::ENOTTY));
    assert!(guest.send(NOTIFY_REPLY, file, &[&big]).is_none());
    assert!(guest.call(STATFS, ROOT, &[]).is_ok());
    assert!(guest.call(ACCESS, file, &[&[4, 0, 0, 0, 0, 0, 0, 0]]).is_ok());
    assert_eq!(guest.call(DESTROY, ROOT, &[]), Ok(vec![]));
    assert!(guest.session.is_over());
    assert_eq!(guest.lookup(ROOT, "file"), Err(Errno::EIO));
}

#[test]
fn wrong_numbers_lead_nowhere() {
    let host = host();
    let mut guest = Guest::of(&host.share);
    let file = guest.lookup(ROOT, "file").unwrap();
    let handle = guest.open(file, libc::O_RDONLY).unwrap();
    for wrong in [0, 2, 3, file + 1, u64::MAX] {
        assert_eq!(guest.getattr(wrong, None), Err(Errno::EBADF));
        assert_eq!(guest.lookup(wrong, "file"), Err(Errno::EBADF));
        assert_eq!(guest.read(wrong, handle, 10), Err(Errno::EBADF));
    }
    for wrong in [0, handle + 1, u64::MAX] {
        assert_eq!(guest.read(file, wrong, 10), Err(Errno::EBADF));
        assert_eq!(guest.getattr(file, Some(wrong)), Err(Errno::EBADF));
        assert!(guest.release(file, wrong).is_err());
    }
    // More than there is to read, and more than a reply holds.
    assert_eq!(guest.read(file, handle, 1 << 20).unwrap(), b"shared");
    assert!(guest.read(file, handle, u32::MAX).is_err());
    assert!(guest.call(READDIR, ROOT, &[&[255; 40]]).is_err());
    // A file that is forgotten too often is forgotten.
    guest.forget(file, u64::MAX);
    assert_eq!(guest.getattr(file, None), Err(Errno::EBADF));
    // The root is never forgotten.
    guest.forget(ROOT, u64::MAX);
    assert!(guest.lookup(ROOT, "file").is_ok());
    for count in [1u32, 1000, u32::MAX] {
        assert!(guest.send(BATCH_FORGET, 0, &[&count.to_ne_bytes(), &[0; 4], &[7; 24]]).is_none());
    }
    assert!(guest.getattr(ROOT, None).is_ok());
}

#[test]
fn every_request_is_answered_however_short_it_is() {
    let host = host();
    let mut guest = Guest::of(&host.share);
    for opcode in 0..60 {
        if [FORGET, DESTROY, NOTIFY_REPLY, BATCH_FORGET].contains(&opcode) {
            continue;
        }
        for len in [0, 1, 7, 8, 15, 16, 39, 40] {
            // Zeros are a number of no file, or flags that ask for nothing, or an empty name.
            let answer = guest.send(opcode, ROOT, &[&vec![0; len]]);
            assert!(answer.is_some(), "{opcode} with {len} bytes");
            // A name without an end.
            assert!(guest.send(opcode, ROOT, &[&vec![b'x'; len]]).is_some(), "{opcode} with {len} bytes");
        }
    }
    assert_eq!(fs::read(host.share.join("file")).unwrap(), b"shared");
}

#[test]
fn a_guest_holds_no_more_than_it_may() {
    let host = host();
    for n in 0..40 {
        fs::write(host.share.join(format!("f{n}")), "").unwrap();
    }
    let mut guest = Guest::new(&host.share, Options::default(), Limits { files: 16, handles: 3 });
    // A listing is complete, whether or not the guest may know of all that it names.
    let root = guest.opendir(ROOT, 0).unwrap();
    let listing = guest.list_plus(root).unwrap();
    assert_eq!(listing.len(), 41);
    let known: Vec<u64> = listing.iter().map(|(_, number)| *number).filter(|number| *number != 0).collect();
    assert_eq!(known.len(), 16);
    assert!(guest.asked > 0, "it was asked to forget");

    let unknown = listing.iter().find(|(_, number)| *number == 0).unwrap().0.clone();
    assert_eq!(guest.lookup(ROOT, &unknown), Err(Errno::ENFILE));
    assert_eq!(guest.create(ROOT, "new", libc::O_RDWR, 0o644), Err(Errno::ENFILE));
    assert_eq!(guest.mkdir("new", 0o755), Err(Errno::ENFILE));
    assert!(!host.share.join("new").exists());
    // What it knows it may look up again, and what it forgets makes room.
    let known_name = listing.iter().find(|(_, number)| *number == known[0]).unwrap().0.clone();
    assert_eq!(guest.lookup(ROOT, &known_name), Ok(known[0]));
    guest.forget(known[0], 2);
    let file = guest.lookup(ROOT, &unknown).unwrap();

    let (one, two) = (guest.open(file, 0).unwrap(), guest.open(file, 0).unwrap());
    assert_eq!(guest.open(file, 0), Err(Errno::ENFILE));
    assert_eq!(guest.opendir(ROOT, 0), Err(Errno::ENFILE));
    guest.release(file, one).unwrap();
    assert_ne!(guest.open(file, 0).unwrap(), two);
}

#[test]
fn what_nobody_else_changes_may_be_kept() {
    let host = host();
    let options = Options { cached: true, ..Options::default() };
    for (options, seconds, keep) in [(Options::default(), 1, 0), (options, 3600, 2)] {
        let mut guest = Guest::new(&host.share, options, ROOMY);
        let entry = guest.call(LOOKUP, ROOT, &[b"file\0"]).unwrap();
        assert_eq!((u64_at(&entry, 16), u64_at(&entry, 24)), (seconds, seconds));
        let opened = guest.call(OPEN, node(&entry), &[&[0; 8]]).unwrap();
        assert_eq!(u32_at(&opened, 8), keep);
    }
}

/// Serves a guest's bytes, and returns what is answered and how it ended.
fn exchange(share: &Path, bytes: Vec<u8>) -> (Vec<u8>, std::io::Result<()>) {
    let mut guest = Guest::of(share);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut reader = ours.try_clone().unwrap();
    reader.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let server = thread::spawn(move || serve(theirs, &mut guest.session));
    let writer = thread::spawn(move || {
        // The server may have gone before it took all.
        let _ = ours.write_all(&bytes);
        let _ = ours.shutdown(std::net::Shutdown::Write);
    });
    let mut answers = Vec::new();
    let _ = reader.read_to_end(&mut answers);
    writer.join().unwrap();
    (answers, server.join().unwrap())
}

#[test]
fn lengths_are_checked_before_anything_is_read() {
    let host = host();
    for len in [0, 1, 4, MIN_MESSAGE - 1, MAX_MESSAGE + 1, u32::MAX as usize] {
        let mut bytes = message(LOOKUP, 2, ROOT, &[b"file\0"]);
        bytes[..4].copy_from_slice(&(len as u32).to_ne_bytes());
        let (answers, end) = exchange(&host.share, bytes);
        assert!(answers.is_empty());
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::InvalidData, "{len}");
    }
    // A message that is never finished, and none at all: the end.
    let whole = message(LOOKUP, 2, ROOT, &[b"file\0"]);
    for len in [0, 1, 3, 4, 20, whole.len() - 1] {
        let (answers, end) = exchange(&host.share, whole[..len].to_vec());
        assert!(answers.is_empty() && end.is_ok(), "{len}");
    }
    // The longest there is.
    let longest = message(LOOKUP, 2, ROOT, &[&vec![b'x'; MAX_MESSAGE - MIN_MESSAGE]]);
    let (answers, end) = exchange(&host.share, [longest, whole].concat());
    assert!(end.is_ok());
    assert_eq!(answers.len(), 16 + 16 + 128);
    // After the last word nothing is read.
    let bytes = [message(DESTROY, 2, ROOT, &[]), message(LOOKUP, 4, ROOT, &[b"file\0"])].concat();
    assert_eq!(exchange(&host.share, bytes).0.len(), 16);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is sent, it is answered in form, changes nothing outside, and tells nothing of it.
    #[test]
    fn no_bytes_do_harm(
        read_only: bool,
        requests in vec((
            prop_oneof![4 => 1u32..53, 1 => any::<u32>()],
            prop_oneof![3 => Just(0usize), 2 => 1usize..4, 1 => Just(usize::MAX)],
            vec(prop_oneof![
                3 => any::<u8>().prop_map(|byte| vec![byte]),
                3 => select(vec![0u8, 1, 2, 8]).prop_map(|byte| vec![byte, 0, 0, 0]),
                1 => select(vec!["file\0", "link\0", "..\0", "../secret\0", "d\0", "new\0", "/\0"]).prop_map(|s| s.into()),
                1 => any::<u64>().prop_map(|number| number.to_ne_bytes().to_vec()),
            ], 0..24),
        ), 1..40),
    ) {
        let host = host();
        symlink(&host.secret, host.share.join("link")).unwrap();
        fs::create_dir(host.share.join("d")).unwrap();
        let before = snapshot(&host.share);
        let mut guest = if read_only { Guest::reader(&host.share) } else { Guest::of(&host.share) };
        let mut nodes = vec![ROOT];
        nodes.extend(["file", "link", "d"].map(|name| guest.lookup(ROOT, name).unwrap()));
        for (opcode, which, pieces) in requests {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let node = nodes.get(which).copied().unwrap_or(u64::MAX);
            let answer = guest.send(opcode, node, &pieces);
            prop_assert!(answer.is_some() || [FORGET, NOTIFY_REPLY, BATCH_FORGET].contains(&opcode));
            if let Some(Ok(bytes)) = answer {
                prop_assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
            }
        }
        host.secret_is_untouched();
        prop_assert_eq!(fs::read_dir(host.share.parent().unwrap()).unwrap().count(), 2);
        if read_only {
            prop_assert_eq!(snapshot(&host.share), before);
        }
    }
}
