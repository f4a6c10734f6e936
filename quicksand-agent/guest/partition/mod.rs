//! A partition table rewritten, so that its last partition reaches to the end of a disk that became larger.
//!
//! What a table says is the guest's: where anything in it does not fit the rest, or what the kernel made of it, it is left as it is.

mod gpt;
mod mbr;
#[cfg(test)]
mod tests;

use std::{fmt, fs::File, io, os::unix::fs::FileExt};

/// Where a partition may end: what programs that make partitions keep to.
const ALIGNMENT: u64 = 1 << 20;

/// A disk as its kernel knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// The bytes of its logical blocks, which tables count in.
    pub(crate) block: u64,
}

/// A partition as its kernel knows it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) number: u32,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// A table with a larger partition, not yet written.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The partition as it will be.
    pub(crate) partition: Partition,
    /// Bytes and where they go: first the copy of the table, if there is one, which is what a system goes by that finds only half of
    /// the table itself written; then the table.
    copy: Option<(u64, Vec<u8>)>,
    table: Vec<(u64, Vec<u8>)>,
}

/// Why a partition is not made larger. Finishes "grow the root file system's partition: ".
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The disk could not be read.
    Io(io::Error),
    /// There is no table of a kind that is known.
    NoTable,
    /// The disk's first block tells of partitions that its GUID partition table need not have.
    Hybrid,
    /// Something in the table is not as it must be.
    Broken(&'static str),
    /// The partition is one of those in an extended partition.
    Logical,
    /// A partition of that number lies behind it.
    Followed(u32),
    /// A table of that kind can't tell of so large a partition.
    TooLarge,
}

impl Plan {
    /// How the table on `disk` is to be changed for that partition; `None` where it reaches to the end.
    pub(crate) fn new(file: &File, disk: Disk, partition: Partition) -> Result<Option<Plan>, Refusal> {
        if !disk.block.is_power_of_two() || !(512..=65536).contains(&disk.block) || disk.size < 64 * disk.block {
            return Err(Refusal::Broken("the disk has no size that a table could be for"));
        }
        let mut first = vec![0; disk.block as usize];
        file.read_exact_at(&mut first, 0).map_err(Refusal::Io)?;
        let table = mbr::Table::new(first)?;
        if table.is_protective()? { gpt::plan(file, disk, partition, table) } else { table.plan(disk, partition) }
    }

    /// Writes the table.
    pub(crate) fn write(&self, file: &File) -> io::Result<()> {
        if let Some((offset, bytes)) = &self.copy {
            file.write_all_at(bytes, *offset)?;
            file.sync_data()?;
        }
        self.table.iter().try_for_each(|(offset, bytes)| file.write_all_at(bytes, *offset))?;
        file.sync_data()
    }
}

/// What a table says of a partition, in blocks.
#[derive(Debug, Clone, Copy)]
struct Entry {
    number: u32,
    start: u64,
    /// The first block behind it.
    end: u64,
}

/// Where the partition can end, in blocks, if it can end later than it does: at most at `limit`, where nothing lies behind it.
fn room(entries: &[Entry], disk: Disk, partition: Partition, limit: u64) -> Result<Option<u64>, Refusal> {
    let own = entries.iter().find(|entry| entry.number == partition.number);
    let own = own.ok_or(Refusal::Broken("its kernel knows a partition that the table does not have"))?;
    let bytes = |blocks: u64| blocks.checked_mul(disk.block);
    let len = own.end.checked_sub(own.start).and_then(bytes);
    if (bytes(own.start), len) != (Some(partition.start), Some(partition.len)) {
        return Err(Refusal::Broken("its kernel and the table do not agree where it is"));
    }
    for entry in entries {
        let apart = entry.end <= own.start || entry.start >= own.end || entry.number == own.number;
        if entry.start >= entry.end || entry.end > disk.size / disk.block || !apart {
            return Err(Refusal::Broken("a partition overlaps another, or has no place on the disk"));
        }
    }
    if let Some(behind) = entries.iter().find(|entry| entry.start >= own.end) {
        return Err(Refusal::Followed(behind.number));
    }
    let unit = ALIGNMENT / disk.block;
    Ok(Some(limit / unit * unit).filter(|&end| end > own.end))
}

/// The number at a place of a table.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// The number at a place of a table.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at + 4)) << 32 | u64::from(u32_at(bytes, at))
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const INSTEAD: &str = "leave disk_size(..) out, or use an image whose root partition is the last on its disk";
        match self {
            Refusal::Io(error) => write!(f, "read the partition table: {error}"),
            Refusal::NoTable => f.write_str("its disk has neither a GUID partition table nor an MBR"),
            Refusal::Hybrid => {
                f.write_str("its disk has a hybrid of GUID partition table and MBR; leave disk_size(..) out")
            }
            Refusal::Broken(what) => write!(f, "its disk's partition table is not sound: {what}"),
            Refusal::Logical => write!(f, "it is a logical partition, in an extended one; {INSTEAD}"),
            Refusal::Followed(number) => write!(f, "partition {number} lies behind it; {INSTEAD}"),
            Refusal::TooLarge => f.write_str("an MBR has no larger partitions; ask for less with disk_size(..)"),
        }
    }
}
