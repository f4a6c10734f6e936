//! XFS, asked as `xfs_growfs` does. What it asks with stands in the driver's `xfs_fs.h`.

use std::{fs::File, io, os::fd::AsRawFd};

/// What every version of the driver tells of a file system.
#[repr(C)]
#[derive(Debug, Default)]
struct Geometry {
    block_size: u32,
    before: [u32; 6],
    inodes_percent: u32,
    blocks: u64,
    after: [u64; 9],
}

#[repr(C)]
#[derive(Debug)]
struct Growth {
    blocks: u64,
    inodes_percent: u32,
}

// The kernel tells requests apart by the sizes of what they carry, too.
const _: () = assert!(size_of::<Geometry>() == 112 && size_of::<Growth>() == 16);

// XFS_IOC_FSGEOMETRY_V4 and XFS_IOC_FSGROWFSDATA.
nix::ioctl_read!(geometry, b'X', 124, Geometry);
nix::ioctl_write_ptr!(grow_data, b'X', 110, Growth);
// FIFREEZE and FITHAW of the kernel's `uapi/linux/fs.h`. They take no notice of what they are given.
nix::ioctl_readwrite!(freeze, b'X', 119, i32);
nix::ioctl_readwrite!(thaw, b'X', 120, i32);

#[allow(unsafe_code)]
pub(super) fn grow(root: &File, bytes: u64) -> io::Result<()> {
    let mut now = Geometry::default();
    // SAFETY: it writes a structure of that layout, which is there for the call.
    unsafe { geometry(root.as_raw_fd(), &mut now) }?;
    if now.block_size == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let blocks = bytes / u64::from(now.block_size);
    if blocks <= now.blocks {
        return Ok(());
    }
    let growth = Growth { blocks, inodes_percent: now.inodes_percent };
    // SAFETY: it reads a structure of that layout, which is there for the call.
    unsafe { grow_data(root.as_raw_fd(), &growth) }?;
    settle(root)
}

/// Has the driver write all that its log holds where it belongs. Where only the log has the new size, and more that is beyond
/// the old one, the driver of Linux 6.1 does not mount the disk; and a disk may be all that is taken over from a machine.
#[allow(unsafe_code)]
fn settle(root: &File) -> io::Result<()> {
    let mut unused = 0;
    // SAFETY: there is a number for it, which it does not use.
    unsafe { freeze(root.as_raw_fd(), &mut unused) }?;
    // SAFETY: as before.
    unsafe { thaw(root.as_raw_fd(), &mut unused) }?;
    Ok(())
}
