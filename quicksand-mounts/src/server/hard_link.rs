//! Hard links for a host's user without privileges.
//!
//! The library links a file by a descriptor of it, which kernels before 6.10 leave to privileged processes. A link by
//! `/proc/self/fd` is open to everybody, but needs a descriptor of our own: the library's is not to be had. So the file is opened
//! once more, by its path beneath the directory, and is then seen to be the same.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlink},
    unistd::linkat,
};

/// A file of the directory: where the kernel says that it is, and which one it must be.
#[derive(Debug)]
pub(super) struct Named<'a> {
    pub(super) path: &'a Path,
    pub(super) device: u64,
    pub(super) number: u64,
}

/// Gives `file` the further name `name` in the directory `parent`, both of them beneath `root`.
pub(super) fn hard_link(root: BorrowedFd<'_>, file: &Named<'_>, parent: &Named<'_>, name: &CStr) -> io::Result<()> {
    let file = open(root, file)?;
    let parent = open(root, parent)?;
    let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(AT_FDCWD, by_number.as_str(), parent.as_fd(), name, AtFlags::AT_SYMLINK_FOLLOW)?;
    Ok(())
}

/// Opens a file without following any link, and never outside of `root`.
fn open(root: BorrowedFd<'_>, file: &Named<'_>) -> io::Result<File> {
    let base = readlink(format!("/proc/self/fd/{}", root.as_raw_fd()).as_str())?;
    let inner = file.path.strip_prefix(&base).map_err(|_| Errno::ENOENT)?;
    let inner = if inner.as_os_str().is_empty() { Path::new(".") } else { inner };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let found = File::from(openat2(root, inner, how)?);
    let metadata = found.metadata()?;
    // Something else may have taken its place since the kernel told where it is.
    if (metadata.dev(), metadata.ino()) == (file.device, file.number) { Ok(found) } else { Err(Errno::ENOENT.into()) }
}
