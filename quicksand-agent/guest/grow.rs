//! A root file system made as large as its disk, while it is in use; on a partition or on the whole disk.
//!
//! The kernel does the work, so that the image needs no tool for it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc::{self, makedev},
    sys::stat::{Mode, SFlag, mknod},
};
use quicksand_protocol::message::{Done, Failure};

use crate::{
    file_system::FileSystem,
    partition::{Disk, Partition, Plan},
};

/// How long the kernel may take to learn of the disk's new size.
const PATIENCE: Duration = Duration::from_secs(10);
/// What sizes of disks are counted in, in `/sys`.
const SECTOR: u64 = 512;
/// A name for the disk that no program in the guest watches, or has other ideas of.
const NODE: &str = "/dev/.quicksand-disk";

/// Makes the root file system as large as its disk, which is to have `size` bytes.
pub(crate) fn grow_root(size: u64) -> Result<Done, Failure> {
    let root = File::open("/").map_err(|e| failure("open /", &e))?;
    let kind = kind_of(&root).map_err(|e| failure("look at /", &e))?;
    let file_system = FileSystem::of(&kind).ok_or_else(|| {
        let message = format!(
            "grow the root file system: its kind is {kind}, and only ext4, xfs and btrfs are grown; leave disk_size(..) out"
        );
        Failure { errno: 0, message }
    })?;
    let device = file_system.device(&root).map_err(|e| failure("find the root file system's disk", &e))?;
    let size = if device.join("partition").exists() {
        grow_partition(&device, size)?
    } else {
        wait_for_size(&device, size).map_err(|e| failure("grow the root file system's disk", &e))?
    };
    file_system.grow(&root, size).map_err(|e| failure("grow the root file system", &e))?;
    Ok(Done::Nothing)
}

/// The kind of file system that a file is on, as the kernel calls it. Where something was mounted over the root, there are two of that
/// place, so it is found by the mount's number.
fn kind_of(file: &File) -> io::Result<String> {
    let of_file = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let mount = of_file.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(kind_of_mount(&mounts, mount.trim()).unwrap_or("unknown").to_owned())
}

fn kind_of_mount<'a>(mounts: &'a str, number: &str) -> Option<&'a str> {
    let mut words = mounts.lines().map(|line| line.split(' ')).find(|words| words.clone().next() == Some(number))?;
    // Optional fields end with a dash.
    words.find(|word| *word == "-")?;
    words.next()
}

/// Makes a partition reach to the end of its disk, which is to have `size` bytes. Returns the partition's size.
fn grow_partition(device: &Path, size: u64) -> Result<u64, Failure> {
    let what = "grow the root file system's partition";
    let failed = |e: io::Error| failure(what, &e);
    let parent = device.parent().unwrap_or(Path::new("/"));
    let disk = Disk {
        size: wait_for_size(parent, size).map_err(|e| failure("grow the root file system's disk", &e))?,
        block: number(&parent.join("queue/logical_block_size")).map_err(failed)?,
    };
    let bytes = |name: &str| number::<u64>(&device.join(name)).map(|sectors| sectors.saturating_mul(SECTOR));
    let partition = Partition {
        number: number(&device.join("partition")).map_err(failed)?,
        start: bytes("start").map_err(failed)?,
        len: bytes("size").map_err(failed)?,
    };
    let file = open_disk(parent).map_err(|e| failure("open the root file system's disk", &e))?;
    match Plan::new(&file, disk, partition) {
        Ok(None) => Ok(partition.len),
        Ok(Some(plan)) => {
            plan.write(&file).map_err(failed)?;
            tell_kernel(&file, plan.partition).map_err(failed)?;
            Ok(plan.partition.len)
        }
        Err(refusal) => Err(Failure { errno: 0, message: format!("{what}: {refusal}") }),
    }
}

/// Opens a whole disk. The guest's own node may not be there, and where udev watches it, it would have all partitions read anew.
fn open_disk(device: &Path) -> io::Result<File> {
    let text = fs::read_to_string(device.join("dev"))?;
    let numbers =
        text.trim().split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let (major, minor) = numbers.ok_or(io::ErrorKind::InvalidData)?;
    let device = makedev(major, minor);
    let _ = fs::remove_file(NODE);
    mknod(NODE, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, device)?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(NODE);
    let _ = fs::remove_file(NODE);
    let file = file?;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_block_device() || metadata.rdev() != device {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(file)
}

/// Has the kernel take a partition's new size, which it does also of one that is in use.
#[allow(unsafe_code)]
fn tell_kernel(disk: &File, partition: Partition) -> io::Result<()> {
    // Of the kernel's `uapi/linux/blkpg.h`.
    #[repr(C)]
    struct Place {
        start: i64,
        len: i64,
        number: i32,
        names: [u8; 128],
    }
    #[repr(C)]
    struct Argument {
        operation: i32,
        flags: i32,
        len: i32,
        data: *mut Place,
    }
    const RESIZE_PARTITION: i32 = 3;
    nix::ioctl_write_ptr_bad!(blkpg, nix::request_code_none!(0x12, 105), Argument);

    let whole = |number: u64| i64::try_from(number).map_err(io::Error::other);
    let number = i32::try_from(partition.number).map_err(io::Error::other)?;
    let mut place = Place { start: whole(partition.start)?, len: whole(partition.len)?, number, names: [0; 128] };
    let len = size_of::<Place>() as i32;
    let argument = Argument { operation: RESIZE_PARTITION, flags: 0, len, data: &raw mut place };
    // SAFETY: it reads two structures of that layout, which are there for the call.
    unsafe { blkpg(disk.as_raw_fd(), &argument) }?;
    Ok(())
}

/// Waits until the kernel knows a disk of at least so many bytes. Returns how many it knows.
fn wait_for_size(device: &Path, size: u64) -> io::Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sectors: u64 = number(&device.join("size"))?;
        if sectors >= size / SECTOR {
            return Ok(sectors.saturating_mul(SECTOR));
        }
        if Instant::now() > deadline {
            let message = format!("it has {} bytes and should have {size}", sectors.saturating_mul(SECTOR));
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The number in a file of sysfs.
fn number<T: FromStr>(path: &Path) -> io::Result<T> {
    fs::read_to_string(path)?.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

fn failure(what: &str, error: &io::Error) -> Failure {
    Failure { errno: error.raw_os_error().unwrap_or(0), message: format!("{what}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_mount_is_found() {
        let mounts = "29 1 0:27 /root / rw,relatime shared:1 master:2 - btrfs /dev/vda3 rw,subvol=/root\n\
            2 29 0:22 / /proc rw,nosuid - proc proc rw\n\
            30 29 0:40 / / rw - overlay overlay rw\n";
        assert_eq!(kind_of_mount(mounts, "29"), Some("btrfs"));
        assert_eq!(kind_of_mount(mounts, "30"), Some("overlay"));
        assert_eq!((kind_of_mount(mounts, "9"), kind_of_mount(mounts, "")), (None, None));
        assert!(!kind_of(&File::open("/proc/self/mountinfo").unwrap()).unwrap().contains("unknown"));
    }
}
