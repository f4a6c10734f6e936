//! A GUID partition table. It is on the disk twice, and the copy is at the disk's end, wherever that is now.

use std::{fs::File, ops::Range, os::unix::fs::FileExt};

use super::{Disk, Entry, Partition, Plan, Refusal, mbr, room, u32_at, u64_at};

/// Where the header has the bytes that are its own, their checksum, its own block and that of the other header, the last block for
/// partitions, the block where the entries begin, their number, the bytes of one, and their checksum.
const LEN: usize = 12;
const CHECKSUM: usize = 16;
const OWN: usize = 24;
const OTHER: usize = 32;
const FIRST_USABLE: usize = 40;
const LAST_USABLE: usize = 48;
const ENTRIES: usize = 72;
const COUNT: usize = 80;
const ENTRY_LEN: usize = 84;
const ENTRIES_CHECKSUM: usize = 88;
/// The least bytes of a header.
const HEADER: usize = 92;
/// The bytes of an entry, in every table that Linux takes; and where it has its first and its last block. Before these it has
/// what kind of partition it is, which is zero where there is none, and which one.
const ENTRY: usize = 128;
const KIND: Range<usize> = 0..16;
const START: usize = 32;
const END: usize = 40;
/// More entries than any program makes room for.
const MOST_ENTRIES: u32 = 1024;

/// The table with a larger partition.
pub(super) fn plan(file: &File, disk: Disk, own: Partition, first: mbr::Table) -> Result<Option<Plan>, Refusal> {
    let blocks = disk.size / disk.block;
    let mut header = vec![0; disk.block as usize];
    file.read_exact_at(&mut header, disk.block).map_err(Refusal::Io)?;
    let entry_blocks = check_header(&header, disk)?;

    let at = u64_at(&header, ENTRIES) * disk.block;
    let len = u32_at(&header, COUNT) as usize * ENTRY;
    // To the end of the last block, whose rest is nobody's.
    let mut entries = vec![0; (entry_blocks * disk.block) as usize];
    file.read_exact_at(&mut entries, at).map_err(Refusal::Io)?;
    if crc32fast::hash(&entries[..len]) != u32_at(&header, ENTRIES_CHECKSUM) {
        return Err(Refusal::Broken("the checksum of its entries is wrong"));
    }

    let table: Vec<Entry> = entries[..len]
        .chunks_exact(ENTRY)
        .zip(1..)
        .filter(|(entry, _)| entry[KIND].iter().any(|byte| *byte != 0))
        // An end that can't be counted is beyond the disk, too.
        .map(|(entry, number)| Entry { number, start: u64_at(entry, START), end: u64_at(entry, END).saturating_add(1) })
        .collect();
    let usable = blocks - 1 - entry_blocks;
    if table.iter().any(|entry| entry.start < u64_at(&header, FIRST_USABLE)) {
        return Err(Refusal::Broken("a partition begins where the table is"));
    }
    let Some(end) = room(&table, disk, own, usable)? else { return Ok(None) };

    let index = own.number as usize - 1;
    entries[index * ENTRY + END..][..8].copy_from_slice(&(end - 1).to_le_bytes());
    header[LAST_USABLE..][..8].copy_from_slice(&(usable - 1).to_le_bytes());
    header[ENTRIES_CHECKSUM..][..4].copy_from_slice(&crc32fast::hash(&entries[..len]).to_le_bytes());
    let mut copy = header.clone();
    place(&mut header, (1, blocks - 1), at / disk.block);
    place(&mut copy, (blocks - 1, 1), usable);

    let partition = Partition { len: end * disk.block - own.start, ..own };
    let copy = (usable * disk.block, [&entries[..], &copy].concat());
    let table = vec![(at, entries), (disk.block, header), (0, first.protect(blocks))];
    Ok(Some(Plan { partition, copy: Some(copy), table }))
}

/// How many blocks the entries take, of a header that is sound.
fn check_header(header: &[u8], disk: Disk) -> Result<u64, Refusal> {
    let len = u32_at(header, LEN) as usize;
    if &header[..8] != b"EFI PART" || !(HEADER..=header.len()).contains(&len) {
        return Err(Refusal::Broken("it has no GUID partition table, and should"));
    }
    if checksum(header, len) != u32_at(header, CHECKSUM) {
        return Err(Refusal::Broken("the checksum of its header is wrong"));
    }
    if u64_at(header, OWN) != 1 || u32_at(header, ENTRY_LEN) as usize != ENTRY {
        return Err(Refusal::Broken("its header is of no kind that is known"));
    }
    let count = u32_at(header, COUNT);
    if count == 0 || count > MOST_ENTRIES {
        return Err(Refusal::Broken("it has no entries, or far too many"));
    }
    let entry_blocks = (u64::from(count) * ENTRY as u64).div_ceil(disk.block);
    let (entries, usable) = (u64_at(header, ENTRIES), u64_at(header, FIRST_USABLE));
    let fits = entries >= 2 && entries.checked_add(entry_blocks).is_some_and(|end| end <= usable);
    // The copy of all of it is to have a place behind.
    let last = (disk.size / disk.block).checked_sub(1 + entry_blocks);
    if !fits || last.is_none_or(|last| usable >= last) {
        return Err(Refusal::Broken("its entries lie where partitions may"));
    }
    Ok(entry_blocks)
}

/// Tells a header where it is, where the other one is, and where its entries are.
fn place(header: &mut [u8], (own, other): (u64, u64), entries: u64) {
    header[OWN..][..8].copy_from_slice(&own.to_le_bytes());
    header[OTHER..][..8].copy_from_slice(&other.to_le_bytes());
    header[ENTRIES..][..8].copy_from_slice(&entries.to_le_bytes());
    let checksum = checksum(header, u32_at(header, LEN) as usize);
    header[CHECKSUM..][..4].copy_from_slice(&checksum.to_le_bytes());
}

/// The checksum of a header of that length, made with zero in its own place.
fn checksum(header: &[u8], len: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..CHECKSUM]);
    hasher.update(&[0; 4]);
    hasher.update(&header[CHECKSUM + 4..len]);
    hasher.finalize()
}
