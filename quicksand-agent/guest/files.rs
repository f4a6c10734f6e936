//! Files and directories to and from the host.

use std::{
    ffi::OsStr,
    fs::{self, File, FileType, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::libc;
use quicksand_protocol::message::{Done, Failure, stream};

use crate::operation::Operation;

/// Keeps apart the names of files that are put in place at the same time.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Sends a file's bytes, unless there are more of them than the host takes.
pub(crate) fn read(path: &[u8], limit: u64, operation: &Arc<Operation>) -> Result<Done, Failure> {
    let path = absolute(path)?;
    let mut output = operation.output(stream::STDOUT);
    let opened = open(OpenOptions::new().read(true), &path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, mut file) = opened.map_err(|e| failure("read", &path, &e))?;
    if metadata.is_file() && metadata.len() > limit {
        let message = format!("{} with its {} bytes", path.display(), metadata.len());
        return Err(Failure { errno: libc::EFBIG, message });
    }
    copy(&mut file, &mut output).map_err(|e| failure("read", &path, &e))
}

/// Fills a file from the host.
pub(crate) fn write(path: &[u8], mode: u32, operation: &Arc<Operation>) -> Result<Done, Failure> {
    let path = absolute(path)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode & 0o7777);
    open(&mut options, &path)
        .and_then(|mut file| copy(&mut operation.input(), &mut file))
        .map_err(|e| failure("write", &path, &e))
}

/// Unpacks a tar from the host: its root becomes `path`, which is made where it is missing.
pub(crate) fn unpack(path: &[u8], operation: &Arc<Operation>) -> Result<Done, Failure> {
    let path = absolute(path)?;
    let unpack = || {
        let mut archive = tar::Archive::new(operation.input());
        archive.set_preserve_permissions(true);
        archive.set_preserve_mtime(true);
        let mut directories = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let inner = entry.path()?.into_owned();
            let target = if inner == Path::new(".") { path.clone() } else { path.join(inner) };
            if entry.header().entry_type().is_dir() {
                fs::create_dir_all(&target)?;
                // Last of all: a directory may be read-only.
                directories.push((target, entry.header().mode()?));
            } else if target == path {
                replace(&mut entry, &target)?;
            } else {
                if let Ok(metadata) = fs::symlink_metadata(&target) {
                    check(metadata.file_type()).map_err(|e| at(&target, e))?;
                }
                entry.unpack(&target)?;
            }
        }
        for (directory, mode) in directories.iter().rev() {
            fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(*mode))?;
        }
        Ok(Done::Nothing)
    };
    unpack().map_err(|e: io::Error| failure("unpack to", &path, &e))
}

/// Puts a file in place at once: whoever opens it meanwhile finds the old one or the new one, and one that runs can be replaced.
fn replace<R: io::Read>(entry: &mut tar::Entry<'_, R>, target: &Path) -> io::Result<()> {
    // What ends with a slash is the name of a directory to the kernel.
    let target = &target.components().collect::<PathBuf>();
    // Whoever writes or reads there would wait for ever at what has lost its name.
    if let Ok(metadata) = fs::symlink_metadata(target) {
        check(metadata.file_type())?;
    }
    let beside = target.with_file_name(format!(".quicksand-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let placed = entry.unpack(&beside).and_then(|_| fs::rename(&beside, target));
    if placed.is_err() {
        let _ = fs::remove_file(&beside);
    }
    placed
}

/// Sends a file or directory as a tar whose root it is. Sockets, pipes and devices are left out: nothing can be done with a copy
/// of one.
pub(crate) fn pack(path: &[u8], operation: &Arc<Operation>) -> Result<Done, Failure> {
    let path = absolute(path)?;
    let pack = || {
        let output = io::BufWriter::with_capacity(64 * 1024, operation.output(stream::STDOUT));
        let mut builder = tar::Builder::new(output);
        builder.follow_symlinks(false);
        // What the caller names may be a link; what lies below it is copied as it is.
        let root = fs::canonicalize(&path)?;
        let mut queue = vec![(root, PathBuf::from("."))];
        while let Some((source, name)) = queue.pop() {
            let metadata = match fs::symlink_metadata(&source) {
                Ok(metadata) => metadata,
                // Gone since its directory was read: a live system's logs and pid files do that.
                Err(e) if e.kind() == io::ErrorKind::NotFound && name != Path::new(".") => continue,
                Err(e) => return Err(at(&source, e)),
            };
            let kind = metadata.file_type();
            if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
                if name == Path::new(".") {
                    return Err(io::Error::other("it is neither a file nor a directory"));
                }
                continue;
            }
            add(&mut builder, &source, &name, &metadata).map_err(|e| at(&source, e))?;
            if kind.is_dir() {
                let entries = fs::read_dir(&source).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
                let mut entries = entries.map_err(|e| at(&source, e))?;
                entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
                queue.extend(entries.into_iter().map(|entry| (entry.path(), name.join(entry.file_name()))));
            }
        }
        builder.into_inner()?.flush()?;
        Ok(Done::Nothing)
    };
    pack().map_err(|e: io::Error| failure("pack", &path, &e))
}

/// Adds one file, directory or link.
fn add(builder: &mut tar::Builder<impl Write>, source: &Path, name: &Path, metadata: &Metadata) -> io::Result<()> {
    let has_holes = metadata.blocks().saturating_mul(512) < metadata.len();
    if !metadata.is_file() || has_holes {
        return builder.append_path_with_name(source, name);
    }
    // Exactly as long as its header says: a log may grow or be cut off meanwhile.
    let file = open(OpenOptions::new().read(true), source)?;
    let metadata = file.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    builder.append_data(&mut header, name, file.chain(io::repeat(0)).take(metadata.len()))
}

/// An error with the file that it is about.
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), AtFile(path.to_owned(), error))
}

#[derive(Debug)]
struct AtFile(PathBuf, io::Error);

impl std::fmt::Display for AtFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at {}", self.0.display())
    }
}

impl std::error::Error for AtFile {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.1)
    }
}

/// Opens a file or a directory. Anything else is refused in words: a pipe would wait for who is at its other end, and a device may have
/// no end.
pub(crate) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // Before it is opened, which sockets refuse in words of the kernel's, and which some devices take for a request.
    if let Ok(metadata) = fs::metadata(path) {
        check(metadata.file_type())?;
    }
    // A pipe that has just taken its place does not hold us up either.
    let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

fn check(kind: FileType) -> io::Result<()> {
    let what = match kind {
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_block_device() || kind.is_char_device() => "a device",
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}; have a command read or write it")))
}

fn copy(from: &mut impl io::Read, to: &mut impl Write) -> io::Result<Done> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(Done::Nothing),
            Ok(len) => to.write_all(&buffer[..len])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn absolute(path: &[u8]) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(OsStr::from_bytes(path));
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Failure { errno: 0, message: format!("use the path {}: it is not absolute", path.display()) })
}

fn failure(verb: &str, path: &Path, error: &io::Error) -> Failure {
    // An archive's errors say at which file, and have the kernel's within.
    let mut message = format!("{verb} {}: {error}", path.display());
    let mut errno = error.raw_os_error();
    let mut inner = error.get_ref().and_then(|inner| inner.source());
    while let Some(error) = inner {
        message = format!("{message}: {error}");
        errno = errno.or(error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error));
        inner = error.source();
    }
    Failure { errno: errno.unwrap_or(0), message }
}
