//! Tables as sfdisk makes them, and such that no program makes. A table that was changed is shown to sfdisk again.

use std::{
    io::Write,
    os::unix::fs::FileExt,
    process::{Command, Output, Stdio},
};

use tempfile::NamedTempFile;

use super::*;

const MIB: u64 = 1 << 20;
/// The sizes of disks before and after.
const BEFORE: u64 = 64 * MIB;
const AFTER: u64 = 1024 * MIB;
/// What cloud images look like: what boots them comes first, and the root is number 1.
const CLOUD: &str = "label: gpt\n14: start=2048, size=6144, type=21686148-6449-6E6F-744E-656564454649\n\
    15: start=8192, size=16384, type=U\n1: start=24576, size=65536, type=L, name=root\n";

fn sfdisk(arguments: &[&str], disk: &NamedTempFile, input: &str) -> Output {
    let mut command = Command::new("sfdisk");
    command.args(arguments).arg(disk.path()).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("fdisk is installed");
    // One that knows no such option ends before it reads; its status says so.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// A disk with that table, made larger.
fn disk(table: &str) -> NamedTempFile {
    let disk = NamedTempFile::new().unwrap();
    disk.as_file().set_len(BEFORE).unwrap();
    let made = sfdisk(&["--quiet"], &disk, table);
    assert!(made.status.success(), "{made:?}");
    disk.as_file().set_len(AFTER).unwrap();
    disk
}

fn partition(number: u32, start: u64, len: u64) -> Partition {
    Partition { number, start: start * 512, len: len * 512 }
}

fn plan(disk: &NamedTempFile, partition: Partition) -> Result<Option<Plan>, Refusal> {
    Plan::new(disk.as_file(), Disk { size: AFTER, block: 512 }, partition)
}

/// Grows the partition; returns what sfdisk says of it then.
fn grow(disk: &NamedTempFile, partition: Partition) -> String {
    let plan = plan(disk, partition).unwrap().unwrap();
    plan.write(disk.as_file()).unwrap();
    let verified = sfdisk(&["--verify"], disk, "");
    let said = String::from_utf8_lossy(&[verified.stdout, verified.stderr].concat()).into_owned();
    assert!(verified.status.success() && said.contains("No errors detected"), "{said}");
    assert!(super::Plan::new(disk.as_file(), Disk { size: AFTER, block: 512 }, plan.partition).unwrap().is_none());
    let dumped = String::from_utf8(sfdisk(&["--dump"], disk, "").stdout).unwrap();
    let is_it = |line: &&str| line.contains(&format!("{} : ", partition.number));
    dumped.lines().find(is_it).unwrap_or_else(|| panic!("{dumped}")).split_once(" : ").unwrap().1.to_owned()
}

/// A disk with the table of another.
fn copy(other: &NamedTempFile) -> NamedTempFile {
    let (disk, mut table) = (NamedTempFile::new().unwrap(), vec![0; MIB as usize]);
    other.as_file().read_exact_at(&mut table, 0).unwrap();
    disk.as_file().write_all_at(&table, 0).unwrap();
    disk.as_file().set_len(AFTER).unwrap();
    disk
}

/// Writes into the header, and gives it the checksum that it is to have.
fn change_header(disk: &NamedTempFile, at: usize, bytes: &[u8]) {
    let mut header = [0; 92];
    disk.as_file().read_exact_at(&mut header, 512).unwrap();
    header[at..at + bytes.len()].copy_from_slice(bytes);
    header[16..20].fill(0);
    let checksum = crc32fast::hash(&header).to_le_bytes();
    header[16..20].copy_from_slice(&checksum);
    disk.as_file().write_all_at(&header, 512).unwrap();
}

/// Writes into the entries, and gives the header their checksum.
fn change_entry(disk: &NamedTempFile, index: u64, at: u64, bytes: &[u8]) {
    disk.as_file().write_all_at(bytes, 1024 + index * 128 + at).unwrap();
    let mut entries = vec![0; 128 * 128];
    disk.as_file().read_exact_at(&mut entries, 1024).unwrap();
    change_header(disk, 88, &crc32fast::hash(&entries).to_le_bytes());
}

#[test]
fn a_gpt_grows_with_its_copy_at_the_new_end() {
    let disk = disk(CLOUD);
    let before = sfdisk(&["--dump"], &disk, "").stdout;
    let root = grow(&disk, partition(1, 24576, 65536));
    // To the last whole MiB: the copy is behind.
    assert!(root.starts_with(&format!("start=       24576, size= {:>11},", (AFTER - MIB) / 512 - 24576)), "{root}");
    assert!(root.contains(r#"name="root""#), "{root}");
    // All else is as it was.
    let after = sfdisk(&["--dump"], &disk, "").stdout;
    let others = |dump: Vec<u8>| {
        let text = String::from_utf8(dump).unwrap();
        text.lines()
            .filter(|line| !line.contains("root") && !line.contains("last-lba"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(others(before), others(after));
    // What a system does that finds the first half destroyed.
    disk.as_file().write_all_at(&[0; 512 * 33], 512).unwrap();
    let dumped = String::from_utf8(sfdisk(&["--dump"], &disk, "").stdout).unwrap();
    assert!(dumped.contains(&root), "{dumped}");
}

#[test]
fn a_gpt_counts_in_the_blocks_of_its_disk() {
    let disk = NamedTempFile::new().unwrap();
    disk.as_file().set_len(BEFORE).unwrap();
    let table = "label: gpt\nsector-size: 4096\nstart=256, size=2048, type=L\n";
    let made = sfdisk(&["--quiet", "--sector-size=4096"], &disk, table);
    if !made.status.success() {
        // Of util-linux before 2.37, with no such option.
        return;
    }
    disk.as_file().set_len(AFTER).unwrap();
    let (size, own) = (Disk { size: AFTER, block: 4096 }, Partition { number: 1, start: MIB, len: 8 * MIB });
    let plan = Plan::new(disk.as_file(), size, own).unwrap().unwrap();
    assert_eq!(plan.partition, Partition { number: 1, start: MIB, len: AFTER - 2 * MIB });
    plan.write(disk.as_file()).unwrap();
    let verified = sfdisk(&["--verify", "--sector-size=4096"], &disk, "");
    assert!(verified.status.success(), "{verified:?}");
    // In another unit there is no table.
    plan_is_refused(&Plan::new(disk.as_file(), Disk { block: 512, ..size }, own), "no GUID partition table");
}

#[test]
fn an_mbr_grows() {
    let disk = disk("label: dos\nstart=2048, size=2048, type=c\nstart=8192, size=65536, type=83, bootable\n");
    let root = grow(&disk, partition(2, 8192, 65536));
    assert_eq!(root, format!("start=        8192, size= {:>11}, type=83, bootable", AFTER / 512 - 8192));
}

#[test]
fn the_order_on_the_disk_counts() {
    let table = "label: dos\n1: start=40960, size=2048, type=83\n2: start=2048, size=2048, type=83\n";
    assert!(grow(&disk(table), partition(1, 40960, 2048)).contains(&(AFTER / 512 - 40960).to_string()));
    let behind = plan(&disk(table), partition(2, 2048, 2048));
    assert!(matches!(behind, Err(Refusal::Followed(1))), "{behind:?}");
    let behind = plan(&disk(CLOUD), partition(15, 8192, 16384));
    assert!(matches!(behind, Err(Refusal::Followed(1))), "{behind:?}");
    // An extended one is in the way like any other, and what is in it is not grown.
    let table =
        "label: dos\nstart=2048, size=2048, type=83\nstart=8192, size=16384, type=5\nstart=10240, size=2048, type=83\n";
    let behind = plan(&disk(table), partition(1, 2048, 2048));
    assert!(matches!(behind, Err(Refusal::Followed(2))), "{behind:?}");
    let logical = plan(&disk(table), partition(5, 10240, 2048));
    assert!(matches!(logical, Err(Refusal::Logical)), "{logical:?}");
}

#[test]
fn nothing_is_to_do_where_a_partition_reaches_to_the_end() {
    let full = disk("label: dos\nstart=2048, size=129024, type=83\n");
    let disk_now = Disk { size: BEFORE, block: 512 };
    assert!(Plan::new(full.as_file(), disk_now, partition(1, 2048, 129024)).unwrap().is_none());
    let disk = disk("label: gpt\nstart=2048, size=126976, type=L\n");
    assert!(Plan::new(disk.as_file(), disk_now, partition(1, 2048, 126976)).unwrap().is_none());
}

fn plan_is_refused(plan: &Result<Option<Plan>, Refusal>, why: &str) {
    let refusal = plan.as_ref().err().map(Refusal::to_string).unwrap_or_default();
    assert!(refusal.contains(why), "{plan:?}");
}

#[test]
fn an_mbr_that_is_not_sound_is_left_as_it_is() {
    let table = "label: dos\nstart=2048, size=2048, type=83\nstart=8192, size=65536, type=83\n";
    let (sound, own) = (disk(table), partition(2, 8192, 65536));
    let changed = |at: u64, bytes: &[u8]| {
        let disk = copy(&sound);
        disk.as_file().write_all_at(bytes, at).unwrap();
        plan(&disk, own)
    };
    plan_is_refused(&changed(510, &[0, 0]), "neither");
    // The kernel has another size, or no such partition is there.
    plan_is_refused(&changed(462 + 12, &[9]), "do not agree");
    plan_is_refused(&changed(462 + 4, &[0]), "does not have");
    // The first reaches into it, or is the larger one that it is in.
    plan_is_refused(&changed(446 + 12, &8192_u32.to_le_bytes()), "overlaps");
    plan_is_refused(&changed(446 + 12, &u32::MAX.to_le_bytes()), "overlaps");
    plan_is_refused(&changed(446 + 8, &u32::MAX.to_le_bytes()), "no place on the disk");
    plan_is_refused(&changed(446 + 4, &[0xee]), "hybrid");
    plan_is_refused(&plan(&sound, partition(0, 8192, 65536)), "logical");

    // 2 TiB of blocks is all that it can tell of.
    let large = Disk { size: 4 << 40, block: 512 };
    plan_is_refused(&Plan::new(sound.as_file(), large, own), "no larger partitions");
    for disk_now in
        [Disk { size: AFTER, block: 0 }, Disk { size: AFTER, block: 1 << 40 }, Disk { size: 512, block: 512 }]
    {
        plan_is_refused(&Plan::new(sound.as_file(), disk_now, own), "no size");
    }
}

#[test]
fn a_gpt_that_is_not_sound_is_left_as_it_is() {
    let (sound, own) = (disk(CLOUD), partition(1, 24576, 65536));
    let changed = |change: &dyn Fn(&NamedTempFile)| {
        let disk = copy(&sound);
        change(&disk);
        plan(&disk, own)
    };
    let header = |at: usize, bytes: &[u8]| changed(&|disk| change_header(disk, at, bytes));
    let entry =
        |index: u64, at: u64, number: u64| changed(&|disk| change_entry(disk, index, at, &number.to_le_bytes()));

    assert!(header(24, &1_u64.to_le_bytes()).unwrap().is_some(), "the changes are made as they should be");
    plan_is_refused(&changed(&|disk| disk.as_file().write_all_at(b"x", 512).unwrap()), "no GUID partition table");
    plan_is_refused(&changed(&|disk| disk.as_file().write_all_at(b"x", 512 + 60).unwrap()), "checksum of its header");
    plan_is_refused(&changed(&|disk| disk.as_file().write_all_at(b"x", 1024 + 60).unwrap()), "checksum of its entries");
    for len in [0_u32, 91, 513, u32::MAX] {
        plan_is_refused(&header(12, &len.to_le_bytes()), "no GUID partition table");
    }
    for own_block in [0_u64, 2, u64::MAX] {
        plan_is_refused(&header(24, &own_block.to_le_bytes()), "no kind that is known");
    }
    for entry_len in [0_u32, 1, 256, u32::MAX] {
        plan_is_refused(&header(84, &entry_len.to_le_bytes()), "no kind that is known");
    }
    for count in [0_u32, 1025, u32::MAX] {
        plan_is_refused(&header(80, &count.to_le_bytes()), "far too many");
    }
    plan_is_refused(&header(80, &1024_u32.to_le_bytes()), "checksum of its entries");
    for entries in [0_u64, 1, 24576, u64::MAX, u64::MAX / 512] {
        plan_is_refused(&header(72, &entries.to_le_bytes()), "where partitions may");
    }
    for first_usable in [0_u64, 2, AFTER / 512, u64::MAX] {
        plan_is_refused(&header(40, &first_usable.to_le_bytes()), "where partitions may");
    }
    // The fourteenth ends within the root, has no end, ends before it begins, or begins in the table.
    plan_is_refused(&entry(13, 40, 30000), "overlaps");
    plan_is_refused(&entry(13, 40, u64::MAX), "overlaps");
    plan_is_refused(&entry(13, 40, 100), "no place on the disk");
    plan_is_refused(&entry(13, 32, 5), "where the table is");
    // The root ends beyond the disk, or elsewhere than its kernel says.
    plan_is_refused(&entry(0, 40, u64::MAX), "do not agree");
    plan_is_refused(&entry(0, 40, 24576 + 65536), "do not agree");
    let beyond = changed(&|disk| change_entry(disk, 0, 40, &(AFTER / 512 + 99).to_le_bytes()));
    plan_is_refused(&beyond, "do not agree");
    let disk = copy(&sound);
    change_entry(&disk, 0, 40, &(AFTER / 512 + 99).to_le_bytes());
    plan_is_refused(&plan(&disk, partition(1, 24576, AFTER / 512 + 100 - 24576)), "no place on the disk");
    plan_is_refused(&plan(&disk, partition(2, 24576, 65536)), "does not have");
    plan_is_refused(&plan(&disk, partition(4000, 24576, 65536)), "does not have");
}
