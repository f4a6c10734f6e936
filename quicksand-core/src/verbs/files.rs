//! Files and directories between host and guest.
//!
//! Directories travel as a tar. The guest's is not trusted: what it names is kept below the target, and no link that it sends
//! or that was there before is followed.

use std::{
    cell::Cell,
    fs::{self, Permissions},
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use quicksand_protocol::message::Request;
use tokio::{io::AsyncWriteExt, runtime::Handle};

use crate::{
    base::{blocking::blocking, size::Size},
    error::{Error, Result},
    guest::ChannelError,
    sandbox::Sandbox,
    vm::transfer::{BlockingReader, BlockingWriter, Counted, finish, step},
};

/// Largest file that [`Sandbox::read_file`] takes into memory.
const READ_LIMIT: Size = Size::from_mib(1024);
/// What a download may store at the most: a guest could otherwise fill the host's disk.
const DOWNLOAD_LIMIT: Size = Size::from_mib(64 * 1024);
const DOWNLOAD_ENTRIES: u64 = 4_000_000;
/// What an entry may have before its content: names, and the table of a file with holes.
const LONGEST_HEAD: Size = Size::from_mib(16);

impl Sandbox {
    /// The content of a file in the guest. `path` is absolute. Files of 1 GiB at the most; see [`download`](Sandbox::download).
    ///
    /// # Errors
    ///
    /// [`Error::Guest`] where the guest can't read it, or where it is a pipe, a socket or a device; [`Error::TooLong`].
    pub async fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        self.read_file_up_to(path.as_ref(), READ_LIMIT).await
    }

    /// The content of a file in the guest that is not longer than that.
    pub(crate) async fn read_file_up_to(&self, path: &Path, limit: Size) -> Result<Vec<u8>> {
        let vm = self.vm().await?;
        // In a box, as all transfers: the compiler follows futures within futures only so far.
        Box::pin(vm.read_file(path, limit)).await
    }

    /// Fills a file in the guest, over one that is there. `path` is absolute and its directory exists. A new file is root's, with
    /// mode 0644.
    ///
    /// # Errors
    ///
    /// [`Error::Guest`] where the guest can't write it, or where it is a pipe, a socket or a device.
    pub async fn write_file(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
        let vm = self.vm().await?;
        let path = path.as_ref().as_os_str().as_bytes().to_vec();
        let mut operation = vm.channel().start(&Request::WriteFile { path, mode: 0o644 })?;
        if let Some(mut stream) = operation.stdin.take() {
            let mut rest = content.as_ref();
            while !rest.is_empty() {
                match step(stream.write(rest)).await {
                    Ok(len) => rest = &rest[len..],
                    // The guest has failed and says why in its reply.
                    Err(Error::Guest(ChannelError::Closed)) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        finish(&vm, operation).await
    }

    /// Copies a file or directory of the host to `to`, an absolute path in the guest that names the copy itself. What is there
    /// already is overwritten or, with directories, added to. Modes, times, symbolic links and holes are kept, extended attributes
    /// are not; the copy is root's. Devices, pipes and sockets are left out.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], with the file, where the host can't read it; [`Error::Guest`] where the guest can't write, or where a file is to
    /// go in place of a pipe, a socket or a device.
    pub async fn upload(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let from = from.as_ref().to_owned();
        let vm = self.vm().await?;
        Box::pin(vm.upload(&from, to.as_ref(), self.reporter())).await
    }

    /// Makes a file in the guest, in place of what is there, of its content and what the header says of it.
    pub(crate) async fn upload_as(&self, mut header: tar::Header, content: Vec<u8>, to: &Path) -> Result<()> {
        let path = to.to_owned();
        let pack = move |writer: Counted<BlockingWriter>| {
            let mut builder = tar::Builder::new(writer);
            let written = builder.append_data(&mut header, ".", &content[..]);
            written.and_then(|()| builder.into_inner()?.flush()).map_err(|error| (path, error))
        };
        let vm = self.vm().await?;
        Box::pin(vm.upload_archive(to, pack, self.reporter())).await
    }

    /// Copies a file or directory of the guest, an absolute path there, to `to`, which names the copy itself. What is there already
    /// is overwritten or, with directories, added to. Modes but set-id bits, times, symbolic links and holes are kept, extended
    /// attributes are not; devices, pipes and sockets are left out. 64 GiB at the most, in which holes do not count.
    ///
    /// # Errors
    ///
    /// [`Error::Guest`] where the guest can't read it; [`Error::Io`] where the host can't write it; [`Error::TooLong`], with the file
    /// that was too much; [`Error::HostileDownload`] where
    /// the guest sends what would leave `to`.
    pub async fn download(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let vm = self.vm().await?;
        let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
        let path = from.as_os_str().as_bytes().to_vec();
        let mut operation = vm.channel().start(&Request::Download { path })?;
        let Some(stream) = operation.stdout.take() else { return Err(Error::NotRunning) };
        let reader = BlockingReader { stream, handle: Handle::current() };
        let reader = Counted::new(reader, "download", self.reporter());
        let taken = blocking(move || unpack(reader, &from, &to)).await;
        // What the guest itself has to say of a failure comes first: a stream that it broke off is no archive.
        finish(&vm, operation).await?;
        taken
    }
}

/// A guest's stream, of which only so much is read at a time: what the library reads of an entry before it shows it is of the guest's
/// length, and kept in memory.
struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left.get()).unwrap_or(usize::MAX));
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::other(format!("an entry with more than {LONGEST_HEAD} of names and tables")));
        }
        let count = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - count as u64);
        Ok(count)
    }
}

/// Unpacks the tar of the guest's `from`: its root becomes `to`.
fn unpack(stream: impl Read, from: &Path, to: &Path) -> Result<()> {
    let hostile = |what: String| Error::HostileDownload { path: to.to_owned(), what };
    let broken = |error: io::Error| hostile(format!("a broken archive ({error})"));
    let left = Rc::new(Cell::new(0));
    let mut archive = tar::Archive::new(Metered { inner: stream, left: Rc::clone(&left) });
    // Links are made last, so that nothing is written through one; directories get their modes last, for they may be read-only.
    let (mut links, mut directories) = (Vec::new(), Vec::new());
    let (mut bytes, mut entries) = (0u64, 0u64);
    let mut all = archive.entries().map_err(broken)?;
    loop {
        left.set(LONGEST_HEAD.bytes());
        let Some(entry) = all.next() else { break };
        let mut entry = entry.map_err(broken)?;
        // What is stored counts: a file may be long and consist of holes.
        let is_sparse = entry.header().entry_type().is_gnu_sparse();
        let stored = if is_sparse { entry.header().entry_size().map_err(broken)? } else { entry.size() };
        entries += 1;
        bytes = bytes.saturating_add(stored);
        if bytes > DOWNLOAD_LIMIT.bytes() {
            let path = entry.path().map_err(broken)?;
            let path: PathBuf = from.components().chain(path.components()).collect();
            let what = format!("{} with {}, of which {stored} bytes are stored,", from.display(), path.display());
            return Err(Error::TooLong { what, limit: DOWNLOAD_LIMIT });
        }
        if entries > DOWNLOAD_ENTRIES {
            return Err(hostile(format!("more than {DOWNLOAD_ENTRIES} entries")));
        }
        left.set(stored.saturating_add(LONGEST_HEAD.bytes()));
        let name = entry.path().map_err(broken)?.into_owned();
        let target = inside(to, &name).ok_or_else(|| hostile(format!("the path {}", name.display())))?;
        refuse_links(to, &target)
            .map_err(|link| hostile(format!("{} behind the link {}", name.display(), link.display())))?;
        let header = entry.header();
        let mode = header.mode().map_err(broken)? & 0o777;
        let kind = header.entry_type();
        if kind.is_dir() {
            make_directory(&target)?;
            directories.push((target, mode));
        } else if kind.is_file() || kind.is_gnu_sparse() {
            make_way(&target)?;
            // Makes a new file with that mode but for set-id bits, and that time; leaves holes where they are.
            entry.unpack(&target).map_err(Error::io("write", &target))?;
        } else if kind.is_symlink() {
            let link = entry.link_name().map_err(broken)?;
            links.push((target, link.ok_or_else(|| hostile("a link to nothing".into()))?.into_owned()));
        } else if kind.is_hard_link() {
            return Err(hostile(format!("the hard link {}", name.display())));
        } else {
            tracing::debug!(name = %name.display(), "a device or pipe is left out of a download");
        }
    }
    if entries == 0 {
        return Err(hostile("nothing".into()));
    }
    for (target, link) in links {
        // A link that was just made is one, too.
        refuse_links(to, &target).map_err(|link| hostile(format!("a path behind the link {}", link.display())))?;
        make_way(&target)?;
        std::os::unix::fs::symlink(link, &target).map_err(Error::io("create the link", &target))?;
    }
    for (directory, mode) in directories.into_iter().rev() {
        // It may have been replaced by a link of the same name.
        if fs::symlink_metadata(&directory).is_ok_and(|metadata| metadata.is_dir()) {
            fs::set_permissions(&directory, Permissions::from_mode(mode))
                .map_err(Error::io("set the mode of", &directory))?;
        }
    }
    Ok(())
}

/// Where an entry goes, unless its name leads out of the target.
fn inside(to: &Path, name: &Path) -> Option<PathBuf> {
    let mut target = to.to_owned();
    for component in name.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => target.push(part),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(target)
}

/// Fails with the first directory between `to` and `target` that is a link, `to` itself not counted: that is the user's word.
fn refuse_links(to: &Path, target: &Path) -> Result<(), PathBuf> {
    let parents = target.ancestors().skip(1).take_while(|parent| parent.starts_with(to) && *parent != to);
    for parent in parents {
        if fs::symlink_metadata(parent).is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(parent.to_owned());
        }
    }
    Ok(())
}

fn make_directory(target: &Path) -> Result<()> {
    if fs::symlink_metadata(target).is_ok_and(|metadata| !metadata.is_dir()) && !target.is_dir() {
        fs::remove_file(target).map_err(Error::io("replace", target))?;
    }
    match fs::create_dir(target) {
        // Others are not to look into it before it has its own mode.
        Ok(()) => {
            fs::set_permissions(target, Permissions::from_mode(0o700)).map_err(Error::io("set the mode of", target))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            open_directory(target);
            Ok(())
        }
        Err(e) => Err(Error::io("create", target)(e)),
    }
}

/// Lets us fill a directory of ours that is closed to us, as one that an earlier download left read-only: it gets its own mode at the
/// end. Where that can't be done, what goes into it fails and says why.
fn open_directory(directory: &Path) {
    const OURS: u32 = 0o700;
    let Ok(metadata) = fs::symlink_metadata(directory) else { return };
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_dir() && mode & OURS != OURS {
        let _ = fs::set_permissions(directory, Permissions::from_mode(mode | OURS));
    }
}

/// Removes a file or link that is in the way of a new one.
fn make_way(target: &Path) -> Result<()> {
    match fs::remove_file(target) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("replace", target)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::transfer::pack;
    use std::time::Duration;
    use tar::{Builder, EntryType, Header};

    /// Entries as a hostile guest would write them: the library's own writer refuses such names.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o6755);
            if *kind == EntryType::Symlink || *kind == EntryType::Link {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
                header.set_size(0);
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
            } else {
                header.set_size(content.len() as u64);
                header.set_cksum();
                builder.append(&header, content.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    fn take(to: &Path, entries: &[(&str, EntryType, &str)]) -> Result<()> {
        unpack(&archive(entries)[..], Path::new("/from"), to)
    }

    use EntryType::{Directory as D, Link as H, Regular as F, Symlink as L};

    #[test]
    fn nothing_is_written_outside() {
        let temp = tempfile::tempdir().unwrap();
        let (to, outside) = (temp.path().join("to"), temp.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        let out = outside.to_str().unwrap();
        for entries in [
            &[("../outside/x", F, "x")][..],
            &[("a/../../outside/x", F, "x")],
            &[(&format!("{out}/x"), F, "x")],
            &[(".", D, ""), ("l", H, out)],
            &[(".", D, ""), ("f", F, ""), ("l", H, "f")],
            &[],
        ] {
            let error = take(&to, entries).unwrap_err();
            assert!(matches!(error, Error::HostileDownload { .. }), "{error}");
        }
        // A link, and then something behind it: the link is not there yet, and the name is taken by a file or directory.
        let behind = take(&to, &[(".", D, ""), ("l", L, out), ("l/x", F, "x")]);
        assert!(behind.is_err(), "there is no directory l");
        take(&to, &[(".", D, ""), ("l", L, out)]).unwrap();
        // A link of an earlier download is not followed either.
        let behind = take(&to, &[(".", D, ""), ("l/x", F, "x")]).unwrap_err();
        assert!(matches!(behind, Error::HostileDownload { .. }), "{behind}");
        take(&to, &[(".", D, ""), ("l", F, "mine")]).unwrap();
        assert!(fs::symlink_metadata(to.join("l")).unwrap().is_file());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn links_behind_links_of_the_same_archive_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let (to, outside) = (temp.path().join("to"), temp.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        let out = outside.to_str().unwrap();
        let result =
            take(&to, &[(".", D, ""), ("a", D, ""), ("a/b", L, "/etc/passwd"), ("c", L, out), ("c/d", L, "x")]);
        assert!(result.is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn a_tree_comes_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        fs::create_dir_all(from.join("empty")).unwrap();
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::write(from.join("deep/er/run"), "#!").unwrap();
        fs::set_permissions(from.join("deep/er/run"), Permissions::from_mode(0o751)).unwrap();
        fs::set_permissions(from.join("deep/er"), Permissions::from_mode(0o555)).unwrap();
        std::os::unix::fs::symlink("deep/er/run", from.join("link")).unwrap();
        let long = "n".repeat(200);
        fs::write(from.join(&long), vec![1; 200_000]).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
        let mut bytes = Vec::new();
        pack(&from, &mut bytes).unwrap();
        unpack(&bytes[..], Path::new("/from"), &to).unwrap();

        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("deep/er/run"), mode("deep/er")), (0o751, 0o555));
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("deep/er/run"));
        assert_eq!(fs::read(to.join(&long)).unwrap(), vec![1; 200_000]);
        assert!(to.join("empty").is_dir() && !to.join("socket").exists());
        drop(socket);
        let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let apart = time(&from.join(&long)).duration_since(time(&to.join(&long))).unwrap();
        assert!(apart < Duration::from_secs(1));

        let file = temp.path().join("file");
        let mut bytes = Vec::new();
        pack(&from.join("link"), &mut bytes).unwrap();
        unpack(&bytes[..], Path::new("/from"), &file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"#!");
    }

    #[test]
    fn holes_stay_holes_and_do_not_count() {
        use std::os::unix::fs::{FileExt, MetadataExt};
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        let file = fs::File::create(&from).unwrap();
        // More than a download may store.
        file.set_len(600 << 30).unwrap();
        for at in 0..40u64 {
            file.write_all_at(b"data", at << 30).unwrap();
        }
        let mut bytes = Vec::new();
        pack(&from, &mut bytes).unwrap();
        assert!(bytes.len() < 1 << 20, "{}", bytes.len());
        unpack(&bytes[..], Path::new("/from"), &to).unwrap();
        let copy = fs::metadata(&to).unwrap();
        assert!(copy.len() == 600 << 30 && copy.blocks() < 4096, "{} of {}", copy.blocks(), copy.len());
        let mut read = [0; 5];
        fs::File::open(&to).unwrap().read_exact_at(&mut read, 39 << 30).unwrap();
        assert_eq!(&read, b"data\0");
    }

    #[test]
    fn what_is_too_much_is_named_and_not_kept_in_memory() {
        let temp = tempfile::tempdir().unwrap();
        let header = |kind: EntryType, size| {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..5].copy_from_slice(b"a/log");
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        let take = |kind, size| {
            let bytes = header(kind, size);
            unpack(Read::chain(&bytes[..], io::repeat(b'x')), Path::new("/var"), &temp.path().join("to")).unwrap_err()
        };
        let error = take(EntryType::Regular, 65 << 30);
        let text = "take all of /var with /var/a/log, of which 69793218560 bytes are stored,: it is longer than 64";
        assert!(error.to_string().starts_with(text), "{error}");
        let error = take(EntryType::GNULongName, 60 << 30);
        assert!(error.to_string().contains("more than 16M of names"), "{error}");
    }

    #[test]
    fn what_can_not_be_packed_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let missing = temp.path().join("missing");
        let (path, error) = pack(&missing, io::sink()).unwrap_err();
        assert_eq!((&path, error.kind()), (&missing, io::ErrorKind::NotFound));
        let (path, error) = pack(Path::new("/dev/null"), io::sink()).unwrap_err();
        assert!(path == Path::new("/dev/null") && error.to_string().contains("neither a file nor a directory"));
    }

    #[test]
    fn a_closed_directory_is_filled_again() {
        let temp = tempfile::tempdir().unwrap();
        let to = temp.path().join("to");
        fs::create_dir(&to).unwrap();
        fs::set_permissions(&to, Permissions::from_mode(0o500)).unwrap();
        // What root may do regardless of modes says nothing: the mode itself is looked at.
        make_directory(&to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o700);
        for _ in 0..2 {
            take(&to, &[(".", D, ""), ("f", F, "x")]).unwrap();
            assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o755);
        }
    }

    #[test]
    fn set_id_bits_are_dropped() {
        let temp = tempfile::tempdir().unwrap();
        let to = temp.path().join("f");
        take(&to, &[(".", F, "x")]).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o755);
    }
}
