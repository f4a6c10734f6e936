//! The files below a path of the host, as a copy into a guest has them: files, directories and links. To read a pipe, a socket or a
//! device might never end, and a copy of one is of no use: a copy leaves them out, and a digest, which says that something is as it
//! was, refuses them by name.

use std::{
    fs::{self, File, FileType},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use sha2::{Digest, Sha256};

use super::plain_file;

/// What a block of a file's content has at the most. One of zeros counts as a hole.
const BLOCK: usize = 64 * 1024;

/// What went wrong, with the file that it is about.
pub type Fault = (PathBuf, io::Error);

/// One of a tree's files.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// Its path below the root; empty for the root itself.
    pub(crate) name: PathBuf,
    pub(crate) kind: FileType,
}

/// What becomes of pipes, sockets and devices below the root. One that is the root itself is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpecialFiles {
    LeaveOut,
    Refuse,
}

/// Shows `take` what is at `root` and below it, a directory before what it holds, and its entries in the order of their names. A root
/// that is a link is followed, all others are not.
pub(crate) fn walk(
    root: &Path,
    special_files: SpecialFiles,
    mut take: impl FnMut(&Found) -> io::Result<()>,
) -> Result<(), Fault> {
    let mut queue = vec![(fs::canonicalize(root).map_err(at(root))?, PathBuf::new())];
    while let Some((path, name)) = queue.pop() {
        let is_root = name.as_os_str().is_empty();
        let kind = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.file_type(),
            // Gone since its directory was read, as a build's temporary files are.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_root => continue,
            Err(error) => return Err((path, error)),
        };
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            if is_root || special_files == SpecialFiles::Refuse {
                let what = plain_file::kind_name(kind);
                return Err((path, io::Error::other(format!("it is {what}, neither a file nor a directory"))));
            }
            tracing::debug!(path = %path.display(), "a device, pipe or socket is left out");
            continue;
        }
        let found = Found { path, name, kind };
        take(&found).map_err(at(&found.path))?;
        if kind.is_dir() {
            let entries = fs::read_dir(&found.path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
            let mut entries = entries.map_err(at(&found.path))?;
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
            queue.extend(entries.into_iter().map(|entry| (entry.path(), found.name.join(entry.file_name()))));
        }
    }
    Ok(())
}

/// The SHA-256 of a tree: of names, kinds, contents, targets, and which files are programs. Holes cost nothing, and are the same as
/// zeros.
///
/// # Errors
///
/// Where a file can't be read, or there is a pipe, a socket or a device.
pub fn digest(root: &Path) -> Result<String, Fault> {
    let mut hash = Sha256::new();
    walk(root, SpecialFiles::Refuse, |found| {
        add(&mut hash, found.name.as_os_str().as_bytes());
        if found.kind.is_dir() {
            hash.update(b"d");
        } else if found.kind.is_symlink() {
            hash.update(b"l");
            add(&mut hash, fs::read_link(&found.path)?.as_os_str().as_bytes());
        } else {
            hash.update(b"f");
            add_content(&mut hash, &found.path)?;
        }
        Ok(())
    })?;
    Ok(crate::base::random::hex(&hash.finalize()))
}

/// A text and its length, so that no two sequences come to the same.
fn add(hash: &mut Sha256, text: &[u8]) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

fn add_content(hash: &mut Sha256, path: &Path) -> io::Result<()> {
    let file = plain_file::open(path)?;
    let metadata = file.metadata()?;
    hash.update([u8::from(metadata.permissions().mode() & 0o111 != 0)]);
    hash.update(metadata.size().to_le_bytes());
    let (mut block, mut at) = (vec![0; BLOCK], 0);
    while let Some(start) = data_from(&file, at)? {
        // Blocks begin at the same places whatever the file system keeps as holes.
        let start = start - start % BLOCK as u64;
        let len = read_block(&file, &mut block, start)?;
        if len == 0 {
            break;
        }
        if block[..len].iter().any(|byte| *byte != 0) {
            hash.update(start.to_le_bytes());
            add(hash, &block[..len]);
        }
        at = start + len as u64;
    }
    // No block begins there.
    hash.update(u64::MAX.to_le_bytes());
    Ok(())
}

/// Where the next data is, from `at` on.
fn data_from(file: &File, at: u64) -> io::Result<Option<u64>> {
    let offset = i64::try_from(at).map_err(|_| io::Error::from(Errno::EFBIG))?;
    match lseek(file, offset, Whence::SeekData) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(Errno::ENXIO) => Ok(None),
        // A file system that knows nothing of holes.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Some(at)),
        Err(errno) => Err(errno.into()),
    }
}

/// Fills a block, but for what is beyond the file's end.
fn read_block(file: &File, block: &mut [u8], start: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < block.len() {
        match file.read_at(&mut block[len..], start + len as u64) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Fault {
    move |error| (path.to_owned(), error)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        os::unix::{fs::symlink, net::UnixListener},
    };

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn a_digest_tells_every_change() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("in");
        let (file, deep) = (root.join("a"), root.join("sub/b"));
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(&file, "one").unwrap();
        fs::write(&deep, "two").unwrap();
        let mut seen = HashSet::from([digest(&root).unwrap()]);
        assert_eq!(digest(&root).unwrap(), digest(&root).unwrap());
        let mut changes = |what: &str| assert!(seen.insert(digest(&root).unwrap()), "{what}");
        fs::write(&deep, "three").unwrap();
        changes("content below");
        fs::write(&deep, [0; 5]).unwrap();
        changes("zeros");
        fs::write(&deep, [0; 6]).unwrap();
        changes("more zeros");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        changes("a program");
        fs::rename(&file, root.join("c")).unwrap();
        changes("a name");
        symlink("c", &file).unwrap();
        changes("a link");
        fs::remove_file(&deep).unwrap();
        changes("a file less");
        assert_eq!(digest(&file).unwrap(), digest(&root.join("c")).unwrap(), "a link that is named is followed");
        assert_eq!(digest(&deep).unwrap_err().1.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn pipes_and_sockets_are_refused_by_name_and_hold_nothing_up() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("f"), "1").unwrap();
        let copied = || {
            let mut names = Vec::new();
            walk(&root, SpecialFiles::LeaveOut, |found| {
                names.push(found.name.clone());
                Ok(())
            })
            .unwrap();
            names
        };
        let (before, files) = (digest(&root).unwrap(), copied());
        let told = |path: &Path, what: &str| {
            let (named, error) = digest(path).unwrap_err();
            let text = error.to_string();
            assert!(text == format!("it is {what}, neither a file nor a directory"), "{named:?}: {text}");
            named
        };
        let (pipe, socket) = (root.join("sub/pipe"), root.join("sub/socket"));
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert_eq!(told(&root, "a pipe"), pipe);
        assert_eq!(told(&pipe, "a pipe"), pipe);
        fs::remove_file(&pipe).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(told(&root, "a socket"), socket);
        assert_eq!(told(Path::new("/dev/null"), "a device"), Path::new("/dev/null"));
        assert_eq!(copied(), files, "a copy leaves them out");
        fs::remove_file(&socket).unwrap();
        assert_eq!(digest(&root).unwrap(), before);
    }

    #[test]
    fn holes_cost_nothing_and_are_zeros() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let holes = File::create(path("holes")).unwrap();
        holes.write_all_at(b"end", 300_000).unwrap();
        let zeros = [vec![0; 300_000], b"end".to_vec()].concat();
        fs::write(path("zeros"), zeros).unwrap();
        assert_eq!(digest(&path("holes")).unwrap(), digest(&path("zeros")).unwrap());
        // As long as a file system takes it: more than could be read in a test's time.
        let large = File::create(path("large")).unwrap();
        large.set_len(600 << 30).unwrap();
        let empty = digest(&path("large")).unwrap();
        large.write_all_at(b"x", 500 << 30).unwrap();
        assert_ne!(digest(&path("large")).unwrap(), empty);
    }
}
