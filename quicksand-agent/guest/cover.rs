//! Files of ours over such as can't be written: a mount, as systemd makes one over the machine id of a root that is read-only.
//!
//! A mount is a part of the frozen memory, so a clone has it already. What it shows is then written anew, and nothing is stacked.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
};

/// Where ours may be: what is not on a disk, wherever there is that.
const HOMES: [&str; 2] = ["/run/quicksand", "/dev/.quicksand"];
/// The longest file that is read: those that we write are short.
const LONGEST: u64 = 1 << 20;

/// What a regular file holds. `None` where there is none. Does not wait, whatever else may be there.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    must_be_regular(&file)?;
    let mut content = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LONGEST {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is longer than {LONGEST} bytes")));
    }
    Ok(Some(content))
}

/// An error where a file is a directory, a pipe or a device.
pub(crate) fn must_be_regular(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { Ok(()) } else { Err(io::Error::other("it is no regular file")) }
}

/// Writes a file, which may be missing, without cutting it off first: one that there is no room for stays as it was.
pub(crate) fn write_in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).custom_flags(libc::O_NONBLOCK).open(path)?;
    must_be_regular(&file)?;
    file.write_all_at(content, 0)?;
    file.set_len(content.len() as u64)
}

/// Has `path` show `content`, without writing anything to its disk. There must be a file.
pub(crate) fn cover(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let covered = fs::metadata(&path)?;
    if !covered.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let ours = HOMES.map(|home| Path::new(home).join(path.file_name().unwrap_or_default()));
    let is_it = |ours: &Path| {
        fs::symlink_metadata(ours).is_ok_and(|own| (own.dev(), own.ino()) == (covered.dev(), covered.ino()))
    };
    if let Some(shown) = ours.iter().find(|ours| is_it(ours)) {
        return write_in_place(shown, content);
    }
    let mode = covered.mode() & 0o777;
    let [first, second] = &ours;
    put_over(&path, first, content, mode).or_else(|_| put_over(&path, second, content, mode))
}

fn put_over(path: &Path, ours: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let home = ours.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(home)?;
    // Left by a mount that has gone, or put there by somebody.
    match fs::remove_file(ours) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    write_in_place(ours, content)?;
    fs::set_permissions(ours, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    mount(Some(ours), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    // What could not be written can't be, still: what a program wrote there would be lost at the next boot.
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, path, None::<&str>, read_only, None::<&str>).inspect_err(|_| {
        let _ = umount2(path, MntFlags::MNT_DETACH);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read_and_written() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        for path in [at("pipe"), directory.path().to_owned()] {
            assert!(read(&path).is_err() && write_in_place(&path, b"x").is_err() && cover(&path, b"x").is_err());
        }
        assert_eq!(read(&at("none")).unwrap(), None);
        write_in_place(&at("file"), b"longer").unwrap();
        write_in_place(&at("file"), b"short").unwrap();
        assert_eq!(read(&at("file")).unwrap().as_deref(), Some(&b"short"[..]));
        assert!(cover(&at("none"), b"x").is_err());
    }
}
