//! The table in a disk's first block: of a PC's old kind, or one that keeps programs of that kind off a GUID partition table.

use super::{Disk, Entry, Partition, Plan, Refusal, room, u32_at};

/// Where its four entries begin, and how long one is.
const ENTRIES: usize = 446;
const ENTRY: usize = 16;
/// Where an entry has its kind, the last block's cylinder, head and sector, its first block, and how many blocks it has.
const KIND: usize = 4;
const LAST: usize = 5;
const START: usize = 8;
const LEN: usize = 12;
/// The kind of what stands for a whole GUID partition table.
const PROTECTIVE: u8 = 0xee;
/// What a place is written as that is too far for cylinders, heads and sectors.
const FAR: [u8; 3] = [0xfe, 0xff, 0xff];

/// The first block of a disk.
#[derive(Debug)]
pub(super) struct Table(Vec<u8>);

impl Table {
    pub(super) fn new(block: Vec<u8>) -> Result<Table, Refusal> {
        if block[510..512] == [0x55, 0xaa] { Ok(Table(block)) } else { Err(Refusal::NoTable) }
    }

    fn entry(&self, index: usize) -> &[u8] {
        &self.0[ENTRIES + index * ENTRY..][..ENTRY]
    }

    fn entry_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.0[ENTRIES + index * ENTRY..][..ENTRY]
    }

    /// Whether the disk's partitions are those of a GUID partition table.
    pub(super) fn is_protective(&self) -> Result<bool, Refusal> {
        let kinds: Vec<u8> = (0..4).map(|index| self.entry(index)[KIND]).filter(|kind| *kind != 0).collect();
        match kinds[..] {
            [PROTECTIVE] => Ok(true),
            _ if kinds.contains(&PROTECTIVE) => Err(Refusal::Hybrid),
            _ => Ok(false),
        }
    }

    /// Has a protective table cover a whole disk of that many blocks, or as much of it as it can tell of.
    pub(super) fn protect(mut self, blocks: u64) -> Vec<u8> {
        let index = (0..4).find(|&index| self.entry(index)[KIND] == PROTECTIVE);
        if let Some(index) = index {
            let len = u32::try_from(blocks - 1).unwrap_or(u32::MAX);
            self.entry_mut(index)[LEN..].copy_from_slice(&len.to_le_bytes());
        }
        self.0
    }

    /// The table with a larger partition.
    pub(super) fn plan(mut self, disk: Disk, partition: Partition) -> Result<Option<Plan>, Refusal> {
        let index = match partition.number {
            number @ 1..=4 => number as usize - 1,
            _ => return Err(Refusal::Logical),
        };
        let entries: Vec<Entry> = (0..4)
            .map(|index| (index, self.entry(index)))
            .filter(|(_, entry)| entry[KIND] != 0 && u32_at(entry, LEN) != 0)
            .map(|(index, entry)| {
                let start = u64::from(u32_at(entry, START));
                Entry { number: index as u32 + 1, start, end: start + u64::from(u32_at(entry, LEN)) }
            })
            .collect();
        let Some(end) = room(&entries, disk, partition, disk.size / disk.block)? else { return Ok(None) };
        let blocks = end - partition.start / disk.block;
        let len = u32::try_from(blocks).map_err(|_| Refusal::TooLarge)?;
        let entry = self.entry_mut(index);
        entry[LEN..].copy_from_slice(&len.to_le_bytes());
        entry[LAST..START].copy_from_slice(&FAR);
        let partition = Partition { len: blocks * disk.block, ..partition };
        Ok(Some(Plan { partition, copy: None, table: vec![(0, self.0)] }))
    }
}
