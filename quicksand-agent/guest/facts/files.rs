//! Files of any kind.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use nix::libc;
use quicksand_protocol::facts::{Answer, CONTENT_LIMIT, Entry, File, Kind};

use super::{NAMES, users};

/// What is at a path.
pub(super) fn look(path: &Path, root: &Path) -> Answer {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Answer::File(File { entry: Some(entry(path, &metadata, root)), nearest: None }),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            Answer::File(File { entry: None, nearest: nearest(path) })
        }
        Err(error) => Answer::Failed(format!("look at {}: {error}", path.display())),
    }
}

fn entry(path: &Path, metadata: &fs::Metadata, root: &Path) -> Entry {
    let kind = metadata.file_type();
    let (owner, group) = users::names(metadata.uid(), metadata.gid(), root);
    Entry {
        kind: match kind {
            _ if kind.is_dir() => Kind::Directory,
            _ if kind.is_symlink() => Kind::Link,
            _ if kind.is_fifo() => Kind::Pipe,
            _ if kind.is_socket() => Kind::Socket,
            _ if kind.is_block_device() => Kind::BlockDevice,
            _ if kind.is_char_device() => Kind::CharacterDevice,
            _ => Kind::File,
        },
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        owner,
        group,
        size: metadata.size(),
        modified: metadata.mtime(),
        target: fs::read_link(path).ok().map(|target| target.as_os_str().as_bytes().to_vec()),
        dangling: kind.is_symlink() && !path.exists(),
        content: content(path),
    }
}

/// What is in a regular file that is not too long. Other kinds are not opened: that can have effects, and wait for ever.
fn content(path: &Path) -> Option<Vec<u8>> {
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.size() <= CONTENT_LIMIT as u64) {
        return None;
    }
    // Should it be another by now, it is not waited for either.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
    let mut content = Vec::new();
    file.take(CONTENT_LIMIT as u64 + 1).read_to_end(&mut content).ok()?;
    // Files of the kernel's are longer than they claim.
    (content.len() <= CONTENT_LIMIT).then_some(content)
}

/// The longest part of a path that is a directory, and what is in it.
fn nearest(path: &Path) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let directory = path.ancestors().skip(1).find(|path| path.is_dir())?;
    let entries = fs::read_dir(directory).ok()?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().as_bytes().to_vec()).collect();
    names.sort();
    // Where there are many, those like the one that is missing tell most.
    let wanted = path.strip_prefix(directory).ok()?.iter().next()?.as_bytes();
    let common = |name: &Vec<u8>| name.iter().zip(wanted).take_while(|(one, other)| one == other).count();
    names.sort_by_key(|name| std::cmp::Reverse(common(name)));
    names.truncate(NAMES);
    names.sort();
    Some((directory.as_os_str().as_bytes().to_vec(), names))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::facts::tests::root;

    fn file(path: &Path, root: &Path) -> File {
        match look(path, root) {
            Answer::File(file) => file,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_told_and_a_link_is_not_followed_but_for_its_content() {
        let root = root(&[("etc/passwd", ""), ("d/x", "content")]);
        fs::set_permissions(root.join("d/x"), fs::Permissions::from_mode(0o4750)).unwrap();
        symlink("x", root.join("d/link")).unwrap();
        symlink("nowhere", root.join("d/dangling")).unwrap();
        let x = file(&root.join("d/x"), &root).entry.unwrap();
        assert_eq!((x.kind, x.mode, x.size, x.content.as_deref()), (Kind::File, 0o4750, 7, Some(&b"content"[..])));
        let link = file(&root.join("d/link"), &root).entry.unwrap();
        assert_eq!((link.kind, link.target.as_deref(), link.dangling), (Kind::Link, Some(&b"x"[..]), false));
        assert_eq!(link.content.as_deref(), Some(&b"content"[..]));
        let dangling = file(&root.join("d/dangling"), &root).entry.unwrap();
        assert!(dangling.dangling && dangling.content.is_none());
        fs::write(root.join("d/x"), vec![b'x'; CONTENT_LIMIT + 1]).unwrap();
        assert_eq!(file(&root.join("d/x"), &root).entry.unwrap().content, None);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn neither_a_pipe_nor_a_device_is_opened() {
        let root = root(&[]);
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let pipe = file(&root.join("pipe"), &root).entry.unwrap();
        assert_eq!((pipe.kind, pipe.content), (Kind::Pipe, None));
        let zero = file(Path::new("/dev/zero"), &root).entry.unwrap();
        assert_eq!((zero.kind, zero.content), (Kind::CharacterDevice, None));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn where_nothing_is_its_neighbours_are_told() {
        let root = root(&[("d/apple", ""), ("d/config.toml", "")]);
        let missing = file(&root.join("d/conf/x"), &root);
        let (directory, names) = missing.nearest.unwrap();
        assert_eq!(directory, root.join("d").as_os_str().as_bytes());
        assert_eq!(names, [b"apple".to_vec(), b"config.toml".to_vec()]);
        // Below a file there is nothing either.
        assert!(file(&root.join("d/apple/x"), &root).nearest.is_some());
        fs::remove_dir_all(root).unwrap();
    }
}
