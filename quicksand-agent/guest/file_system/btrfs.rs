//! Btrfs, asked as `btrfs filesystem resize` does; see the kernel's `uapi/linux/btrfs.h`. Its root has a device number of its
//! own, which leads to no disk.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::PathBuf,
};

#[repr(C)]
#[derive(Debug)]
struct Info {
    largest_id: u64,
    devices: u64,
    id: [u8; 16],
    rest: [u64; 124],
}

#[repr(C)]
#[derive(Debug)]
struct Arguments {
    fd: i64,
    name: [u8; 4088],
}

// The kernel tells requests apart by the sizes of what they carry, too.
const _: () = assert!(size_of::<Info>() == 1024 && size_of::<Arguments>() == 4096);

// BTRFS_IOC_FS_INFO and BTRFS_IOC_RESIZE.
nix::ioctl_read!(info, 0x94, 31, Info);
nix::ioctl_write_ptr!(resize, 0x94, 3, Arguments);

/// A file system on one device.
#[derive(Debug)]
pub(super) struct Btrfs {
    id: [u8; 16],
    /// The number by which it knows its device.
    device: u64,
}

impl Btrfs {
    #[allow(unsafe_code)]
    pub(super) fn of(root: &File) -> io::Result<Btrfs> {
        let mut found = Info { largest_id: 0, devices: 0, id: [0; 16], rest: [0; 124] };
        // SAFETY: it writes a structure of that layout, which is there for the call.
        unsafe { info(root.as_raw_fd(), &mut found) }?;
        if found.devices != 1 {
            return Err(several());
        }
        Ok(Btrfs { id: found.id, device: found.largest_id })
    }

    /// In sysfs.
    pub(super) fn device(&self) -> io::Result<PathBuf> {
        let mut name = String::new();
        for (index, byte) in self.id.iter().enumerate() {
            name += if [4, 6, 8, 10].contains(&index) { "-" } else { "" };
            name += &format!("{byte:02x}");
        }
        let mut devices = fs::read_dir(format!("/sys/fs/btrfs/{name}/devices"))?;
        match (devices.next().transpose()?, devices.next()) {
            (Some(device), None) => fs::canonicalize(device.path()),
            _ => Err(several()),
        }
    }

    #[allow(unsafe_code)]
    pub(super) fn grow(&self, root: &File) -> io::Result<()> {
        let mut arguments = Arguments { fd: 0, name: [0; 4088] };
        let text = format!("{}:max", self.device);
        arguments.name[..text.len()].copy_from_slice(text.as_bytes());
        // SAFETY: it reads a structure of that layout, which is there for the call; its text ends with a zero.
        unsafe { resize(root.as_raw_fd(), &arguments) }?;
        Ok(())
    }
}

fn several() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "it is a btrfs on several devices; leave disk_size(..) out")
}
