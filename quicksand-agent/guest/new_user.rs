//! Making a user by writing the guest's own files: what programs there are for it differs from one distribution to the next.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
    unistd::{Gid, Uid},
};
use quicksand_protocol::message::{Done, Failure};

/// The numbers that distributions give to people.
const NUMBERS: std::ops::Range<u32> = 1000..60_000;
/// The first of the numbers that users hand out in containers of their own, and how many each has.
const SUBORDINATE: (u64, u64) = (100_000, 65_536);
/// How long a program of the guest may hold the lock on these files.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);

/// Makes a user with a group and a home directory. It has no password, so that nobody logs in with one.
pub(crate) fn create(name: &str) -> Result<Done, Failure> {
    let root = Path::new("/");
    lock(root).and_then(|_lock| create_in(root, name)).map(|()| Done::Nothing).map_err(|error| Failure {
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("create the user {name}: {error}"),
    })
}

fn create_in(root: &Path, name: &str) -> io::Result<()> {
    let etc = root.join("etc");
    let read = |file: &str| fs::read_to_string(etc.join(file)).unwrap_or_default();
    let (passwd, group) = (read("passwd"), read("group"));
    if entries(&passwd).any(|entry| entry[0] == name) {
        return Err(Errno::EEXIST.into());
    }
    let (uids, gids) = (numbers(&passwd), numbers(&group));
    let own_group = entries(&group).find(|entry| entry[0] == name).and_then(|entry| entry.get(2)?.parse().ok());
    // One number for both where that can be had, as people expect it.
    let taken = |number: &u32| uids.contains(number) || (own_group.is_none() && gids.contains(number));
    let uid = NUMBERS.clone().find(|number| !taken(number)).ok_or_else(|| io::Error::other("no number is free"))?;
    let gid = own_group.unwrap_or(uid);
    let shell = if root.join("bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    let home = format!("/home/{name}");
    let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;

    if own_group.is_none() {
        append(&etc.join("group"), &format!("{name}:x:{gid}:"))?;
        append(&etc.join("gshadow"), &format!("{name}:!::"))?;
    }
    append(&etc.join("shadow"), &format!("{name}:!:{today}:0:99999:7:::"))?;
    for file in ["subuid", "subgid"] {
        append(&etc.join(file), &subordinate(name, &read(file)))?;
    }
    let line = format!("{name}:x:{uid}:{gid}::{home}:{shell}");
    if !append(&etc.join("passwd"), &line)? {
        fs::write(etc.join("passwd"), line + "\n")?;
    }

    let home = root.join(home.trim_start_matches('/'));
    fs::create_dir_all(root.join("home"))?;
    let owner = Owner { uid, gid };
    match DirBuilder::new().mode(0o700).create(&home) {
        // Somebody's files, which stay as they are.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => {
            made?;
            owner.take(&home)?;
            owner.copy_all(&etc.join("skel"), &home)
        }
    }
}

/// The entries of one of these files, each split into its fields.
fn entries(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines().filter(|line| !line.is_empty()).map(|line| line.split(':').collect())
}

fn numbers(file: &str) -> Vec<u32> {
    entries(file).filter_map(|entry| entry.get(2)?.parse().ok()).collect()
}

/// The entry of a user in `subuid` or `subgid`: the numbers above all that are there.
fn subordinate(name: &str, file: &str) -> String {
    let (first, count) = SUBORDINATE;
    let end = |entry: Vec<&str>| Some(entry.get(1)?.parse::<u64>().ok()?.saturating_add(entry.get(2)?.parse().ok()?));
    let free = entries(file).filter_map(end).max().map_or(first, |end| end.max(first));
    format!("{name}:{free}:{count}")
}

/// Adds a line to a file, in place, so that it keeps its owner, mode and label. `false` where the image has no such file.
fn append(path: &Path, line: &str) -> io::Result<bool> {
    let content = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        content => content?,
    };
    let gap = if content.last().is_some_and(|last| *last != b'\n') { "\n" } else { "" };
    OpenOptions::new().append(true).open(path)?.write_all(format!("{gap}{line}\n").as_bytes())?;
    Ok(true)
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    fn take(self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::lchown(path, Some(Uid::from_raw(self.uid).into()), Some(Gid::from_raw(self.gid).into()))
    }

    /// Copies what is in a directory into another, as its own. There need not be anything.
    fn copy_all(self, from: &Path, to: &Path) -> io::Result<()> {
        let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
        for entry in entries {
            let entry = entry?;
            let (source, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
            if kind.is_dir() {
                let mode = entry.metadata()?.permissions().mode();
                DirBuilder::new().mode(mode).create(&target)?;
                self.copy_all(&source, &target)?;
            } else if kind.is_symlink() {
                symlink(fs::read_link(&source)?, &target)?;
            } else if kind.is_file() {
                fs::copy(&source, &target)?;
            } else {
                continue;
            }
            self.take(&target)?;
        }
        Ok(())
    }
}

/// The lock that the guest's own programs take before they write these files, released when the file is closed.
fn lock(root: &Path) -> io::Result<Lock> {
    /// The lock is one of the whole process, whose threads may all be at this.
    static OURS: Mutex<()> = Mutex::new(());
    let ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    let path: PathBuf = root.join("etc/.pwd.lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match fcntl(&file, FcntlArg::F_SETLK(&whole)) {
            Ok(_) => return Ok(Lock { _file: file, _ours: ours }),
            Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(io::Error::other(format!("lock the users' files: {error}"))),
        }
    }
}

#[derive(Debug)]
struct Lock {
    _file: File,
    _ours: std::sync::MutexGuard<'static, ()>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> PathBuf {
        let name = std::thread::current().name().unwrap_or("test").replace(':', "-");
        let root = std::env::temp_dir().join(format!("quicksand-{}-{name}", std::process::id()));
        fs::create_dir_all(root.join("etc")).unwrap();
        for (file, content) in files {
            fs::write(root.join("etc").join(file), content).unwrap();
        }
        root
    }

    /// Only root may give files away.
    fn create_as_far_as_we_may(root: &Path, name: &str) {
        match create_in(root, name) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            other => other.unwrap(),
        }
    }

    #[test]
    fn all_files_that_are_there_get_their_line() {
        let root = root(&[
            ("passwd", "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nnobody:x:65534:65534::/:/x"),
            ("group", "root:x:0:\nann:x:1000:\nfree:x:1001:\n"),
            ("shadow", "root:*:19000:0:99999:7:::\n"),
            ("subuid", "ann:100000:65536\n"),
        ]);
        create_as_far_as_we_may(&root, "bob");
        let read = |file: &str| fs::read_to_string(root.join("etc").join(file)).unwrap();
        assert!(read("passwd").ends_with("/x\nbob:x:1002:1002::/home/bob:/bin/sh\n"), "{}", read("passwd"));
        assert!(read("group").ends_with("free:x:1001:\nbob:x:1002:\n"), "{}", read("group"));
        assert!(read("shadow").contains("\nbob:!:"));
        assert_eq!(read("subuid"), "ann:100000:65536\nbob:165536:65536\n");
        assert!(!root.join("etc/gshadow").exists());
        assert!(root.join("home/bob").is_dir());
        let again = create_in(&root, "bob").unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EEXIST));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_group_of_that_name_is_the_users() {
        let root = root(&[("passwd", ""), ("group", "bob:x:27:\n")]);
        create_as_far_as_we_may(&root, "bob");
        assert_eq!(fs::read_to_string(root.join("etc/passwd")).unwrap(), "bob:x:1000:27::/home/bob:/bin/sh\n");
        assert_eq!(fs::read_to_string(root.join("etc/group")).unwrap(), "bob:x:27:\n");
        fs::remove_dir_all(root).unwrap();
    }
}
