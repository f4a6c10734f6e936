//! Files of the host that a user names. Only a file is of use where one is asked for: a pipe would be waited for without end, and a
//! device may have none.

use std::{
    fs::{self, File, FileType},
    io::{self, Error, ErrorKind, Read, Result, Seek, SeekFrom},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use nix::{
    errno::Errno,
    libc,
    unistd::{Whence, lseek},
};

/// Opens a file to be read. Anything else is refused at once, in words.
pub(crate) fn open(path: &Path) -> Result<File> {
    check(fs::metadata(path)?.file_type())?;
    // A pipe that has just taken its place does not hold us up either.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

/// Reads all of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads all of a file of text.
pub(crate) fn read_to_string(path: &Path) -> Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Copies a file to a new one or in place of another, with its mode. Holes stay holes; where the file system can, both have the same blocks.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = open(from)?;
    let (metadata, mut target) = (source.metadata()?, File::create(to)?);
    target.set_len(metadata.len())?;
    let mut at = 0;
    while let Some((start, end)) = next_extent(&source, at, metadata.len())? {
        source.seek(SeekFrom::Start(start))?;
        target.seek(SeekFrom::Start(start))?;
        // The kernel's own copying, where it has that.
        if io::copy(&mut (&source).take(end - start), &mut target)? != end - start {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        at = end;
    }
    target.set_permissions(metadata.permissions())
}

fn check(kind: FileType) -> Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, format!("it is {}, where a file is wanted", kind_name(kind))))
}

/// What a file of that kind is called.
pub(crate) fn kind_name(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_file() => "a file",
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a link",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// The next stretch of data of a file at or after `at`. A file system without holes says that all is data.
pub(crate) fn next_extent(file: &File, at: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= len {
        return Ok(None);
    }
    let start = match lseek(file, at as i64, Whence::SeekData) {
        Ok(start) => start as u64,
        Err(Errno::ENXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = lseek(file, start as i64, Whence::SeekHole)? as u64;
    Ok(Some((start, end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;

    #[test]
    fn holes_are_copied_as_holes() {
        use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let source = File::create(&from).unwrap();
        source.write_all_at(b"begin", 0).unwrap();
        source.write_all_at(b"end", 100 << 30).unwrap();
        source.set_len(200 << 30).unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(&to, "what was there").unwrap();
        copy(&from, &to).unwrap();
        let metadata = fs::metadata(&to).unwrap();
        assert_eq!((metadata.len(), metadata.mode() & 0o777), (200 << 30, 0o640));
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
        let mut bytes = [0; 14];
        let copied = File::open(&to).unwrap();
        copied.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"begin\0\0\0\0\0\0\0\0\0");
        copied.read_exact_at(&mut bytes, 100 << 30).unwrap();
        assert_eq!(&bytes[..4], b"end\0");
    }

    #[test]
    fn only_files_are_opened_and_nothing_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        assert_eq!(
            (read(&path("file")).unwrap(), read_to_string(&path("link")).unwrap()),
            (b"text".into(), "text".into())
        );
        nix::unistd::mkfifo(&path("pipe"), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        for (path, what) in [
            (path("pipe"), "a pipe"),
            (path("socket"), "a socket"),
            (path(""), "a directory"),
            ("/dev/zero".into(), "a device"),
        ] {
            let said = read(&path).unwrap_err().to_string();
            assert_eq!(said, format!("it is {what}, where a file is wanted"));
        }
        assert_eq!(read(&path("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
