//! The header of a qcow2, read before QEMU opens a file that somebody else made.
//!
//! A qcow2 can name other files, and QEMU follows such names: a backing file, a file that holds the data. From a stranger
//! that is a way to any file that we may read, so a disk that names one is refused. The format is that of QEMU's
//! `docs/interop/qcow2.txt`.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::base::plain_file;

/// The first bytes of every qcow2.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The largest disk that is taken, in bytes: far more than a test needs, far less than what overflows anything.
const LARGEST_DISK: u64 = 64 << 40;
/// A header of version 3 with the one optional field that we know.
const HEADER_LEN: usize = 105;

/// Features without which a file can't be read: the file was not closed, its clusters' compression is told, it has
/// subclusters. QEMU handles all three. The others that it knows say that the file is corrupt or its data elsewhere.
const HARMLESS_FEATURES: u64 = 1 | 1 << 3 | 1 << 4;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;

/// What a qcow2's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The size of the disk as a guest sees it, in bytes.
    pub disk_size: u64,
}

/// Why a file is not given to QEMU.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Qcow2Error {
    /// It could not be read.
    #[error("read the qcow2 {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// It is something else, or QEMU would follow what it says to where it must not.
    #[error("use {} as a disk: {why}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads a file's header and refuses what is no qcow2, depends on another file, is encrypted or corrupt, needs features that
/// we do not know, or has a size that no disk has.
///
/// # Errors
///
/// [`Qcow2Error`].
pub fn check(path: &Path) -> Result<Header, Qcow2Error> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    let read = plain_file::open(path).and_then(|file| file.take(HEADER_LEN as u64).read_to_end(&mut bytes));
    read.map_err(|source| Qcow2Error::Io { path: path.to_owned(), source })?;
    parse(&bytes).map_err(|why| Qcow2Error::Refused { path: path.to_owned(), why })
}

fn parse(bytes: &[u8]) -> Result<Header, String> {
    let field = |at: usize, len: usize| -> Result<u64, String> {
        let field = bytes.get(at..at + len).ok_or("it ends within its header")?;
        Ok(field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    if bytes.get(..4) != Some(&MAGIC) {
        return Err("it is no qcow2".into());
    }
    let version = field(4, 4)?;
    if !matches!(version, 2 | 3) {
        return Err(format!("it is a qcow2 of version {version}; 2 and 3 are known"));
    }
    if field(8, 8)? != 0 || field(16, 4)? != 0 {
        return Err("it depends on another file, its backing file; `qemu-img convert` makes one whole".into());
    }
    if field(32, 4)? != 0 {
        return Err("it is encrypted".into());
    }
    let features = if version == 3 { field(72, 8)? } else { 0 };
    if features & EXTERNAL_DATA != 0 {
        return Err("its data is in another file; `qemu-img convert` makes one whole".into());
    }
    if features & CORRUPT != 0 {
        return Err("it is marked as corrupt; try `qemu-img check -r all`".into());
    }
    if features & !HARMLESS_FEATURES != 0 {
        return Err(format!("it needs features that are not known here ({features:#x})"));
    }
    let (cluster_bits, disk_size, level1_len) = (field(20, 4)?, field(24, 8)?, field(36, 4)?);
    if !(9..=21).contains(&cluster_bits) {
        return Err(format!("its clusters have 2^{cluster_bits} bytes; 2^9 to 2^21 are possible"));
    }
    if disk_size == 0 || disk_size > LARGEST_DISK {
        return Err(format!("it claims a disk of {disk_size} bytes; 1 to {LARGEST_DISK} are taken"));
    }
    // An entry of the first table stands for a cluster full of entries of eight bytes, each of which stands for a cluster.
    let reach = 1u64 << (2 * cluster_bits - 3);
    if level1_len < disk_size.div_ceil(reach) || level1_len > 4 << 20 {
        return Err(format!("its first table has {level1_len} entries, which does not fit its {disk_size} bytes"));
    }
    Ok(Header { disk_size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn made(directory: &Path, options: &[&str]) -> PathBuf {
        let path = directory.join("d.qcow2");
        let mut qemu_img = Command::new("qemu-img");
        qemu_img.args(["create", "-q", "-f", "qcow2"]).args(options).arg(&path).arg("1G");
        assert!(qemu_img.status().unwrap().success());
        path
    }

    #[test]
    fn what_qemu_makes_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        for options in [
            &[][..],
            &["-o", "compat=0.10"],
            &["-o", "cluster_size=2M"],
            &["-o", "compression_type=zstd"],
            &["-o", "extended_l2=on"],
        ] {
            let path = made(directory.path(), options);
            assert_eq!(check(&path).unwrap(), Header { disk_size: 1 << 30 }, "{options:?}");
        }
    }

    #[test]
    fn disks_that_name_other_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (base, data) = (directory.path().join("base"), directory.path().join("data"));
        std::fs::write(&base, [0; 512]).unwrap();
        let backing = format!("backing_file={},backing_fmt=raw", base.display());
        let external = format!("data_file={}", data.display());
        let cases: [(&[&str], &str); 2] =
            [(&["-o", &backing], "backing file"), (&["-o", &external], "its data is in another file")];
        for (options, expected) in cases {
            let error = check(&made(directory.path(), options)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let whole = std::fs::read(made(directory.path(), &[])).unwrap();
        let changes: [(usize, &[u8], &str); 10] = [
            (0, b"\x7fELF", "no qcow2"),
            (4, &[0, 0, 0, 4], "version 4"),
            (8, &[0, 0, 0, 0, 0, 0, 2, 0], "backing file"),
            (20, &[0, 0, 0, 63], "2^63"),
            (24, &[0xff; 8], "bytes"),
            (24, &[0; 8], "0 bytes"),
            (32, &[0, 0, 0, 2], "encrypted"),
            (36, &[0; 4], "0 entries"),
            (72, &[0x80, 0, 0, 0, 0, 0, 0, 0], "0x8000000000000000"),
            (72, &[0, 0, 0, 0, 0, 0, 0, 2], "corrupt"),
        ];
        for (at, change, expected) in changes {
            let mut bytes = whole.clone();
            bytes[at..at + change.len()].copy_from_slice(change);
            let why = parse(&bytes).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        for len in [0, 3, 4, 50, 75] {
            parse(&whole[..len]).unwrap_err();
        }
        let missing = directory.path().join("missing");
        assert!(matches!(check(&missing), Err(Qcow2Error::Io { .. })));
    }
}
