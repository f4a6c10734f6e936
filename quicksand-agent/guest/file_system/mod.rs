//! File systems made larger while they are in use. Their drivers do the work, so that the image needs no tool for it.

mod btrfs;
mod xfs;

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::PathBuf,
};

use nix::{
    libc::{major, minor},
    sys::statfs::fstatfs,
};

/// A kind of file system that can be made larger in use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl FileSystem {
    /// The kind that the kernel calls so.
    pub(crate) fn of(kind: &str) -> Option<FileSystem> {
        match kind {
            "ext2" | "ext3" | "ext4" => Some(FileSystem::Ext4),
            "xfs" => Some(FileSystem::Xfs),
            "btrfs" => Some(FileSystem::Btrfs),
            _ => None,
        }
    }

    /// The device that it is on, in sysfs.
    pub(crate) fn device(self, root: &File) -> io::Result<PathBuf> {
        match self {
            FileSystem::Ext4 | FileSystem::Xfs => {
                let device = root.metadata()?.dev();
                fs::canonicalize(format!("/sys/dev/block/{}:{}", major(device), minor(device)))
            }
            FileSystem::Btrfs => btrfs::Btrfs::of(root)?.device(),
        }
    }

    /// Makes it use `bytes`, all that its device has.
    pub(crate) fn grow(self, root: &File, bytes: u64) -> io::Result<()> {
        match self {
            FileSystem::Ext4 => {
                let block = fstatfs(root)?.block_size();
                let block = u64::try_from(block).ok().filter(|block| *block > 0).ok_or(io::ErrorKind::InvalidData)?;
                ext4_resize(root, bytes / block)
            }
            FileSystem::Xfs => xfs::grow(root, bytes),
            FileSystem::Btrfs => btrfs::Btrfs::of(root)?.grow(root),
        }
    }
}

/// Has ext4 use that many blocks.
#[allow(unsafe_code)]
fn ext4_resize(root: &File, blocks: u64) -> io::Result<()> {
    // EXT4_IOC_RESIZE_FS of the kernel's `uapi/linux/ext4.h`.
    nix::ioctl_write_ptr!(resize_fs, b'f', 16, u64);
    // SAFETY: it reads one number, which is there for the call.
    unsafe { resize_fs(root.as_raw_fd(), &blocks) }?;
    Ok(())
}
