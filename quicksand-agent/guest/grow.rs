//! A root file system made as large as its disk, while it is in use.
//!
//! The kernel does the work, so that the image needs no tool for it.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc::{major, minor},
    sys::statfs::{EXT4_SUPER_MAGIC, statfs},
};
use quicksand_protocol::message::{Done, Failure};

/// How long the kernel may take to learn of the disk's new size.
const PATIENCE: Duration = Duration::from_secs(10);
/// What sizes of disks are counted in, in `/sys`.
const SECTOR: u64 = 512;

/// Makes the root file system as large as its disk, which is to have `size` bytes.
pub(crate) fn grow_root(size: u64) -> Result<Done, Failure> {
    let root = File::open("/").map_err(|e| failure("open /", &e))?;
    let kind = statfs("/").map_err(|e| failure("look at /", &e.into()))?;
    if kind.filesystem_type() != EXT4_SUPER_MAGIC {
        let message = format!(
            "grow the root file system: it is of the kind {:#x}, and only ext4 is grown; leave disk_size(..) out",
            kind.filesystem_type().0
        );
        return Err(Failure { errno: 0, message });
    }
    let device = root.metadata().map_err(|e| failure("look at /", &e))?.dev();
    let device = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    wait_for_size(Path::new(&device), size).map_err(|e| failure("grow the root file system's disk", &e))?;
    resize(&root, size / kind.block_size() as u64).map_err(|e| failure("grow the root file system", &e))?;
    Ok(Done::Nothing)
}

fn wait_for_size(device: &Path, size: u64) -> io::Result<()> {
    if device.join("partition").exists() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is a partition"));
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(device.join("size"))?;
        let sectors: u64 = text.trim().parse().map_err(io::Error::other)?;
        if sectors >= size / SECTOR {
            return Ok(());
        }
        if Instant::now() > deadline {
            let message = format!("it has {} bytes and should have {size}", sectors * SECTOR);
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Has ext4 use that many blocks.
#[allow(unsafe_code)]
fn resize(root: &File, blocks: u64) -> io::Result<()> {
    // EXT4_IOC_RESIZE_FS of the kernel's `uapi/linux/ext4.h`.
    nix::ioctl_write_ptr!(resize_fs, b'f', 16, u64);
    // SAFETY: it reads one number, which is there for the call.
    unsafe { resize_fs(root.as_raw_fd(), &blocks) }?;
    Ok(())
}

fn failure(what: &str, error: &io::Error) -> Failure {
    Failure { errno: error.raw_os_error().unwrap_or(0), message: format!("{what}: {error}") }
}
