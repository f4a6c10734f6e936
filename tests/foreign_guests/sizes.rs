//! Larger disks of systems that are laid out as cloud images are, and have no tool for it.

use std::{fs, path::Path};

use quicksand::{Error, Reporter, Sandbox, SandboxBuilder, Saves, StartKind};

use crate::{disks, subvolumes};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn shell(sandbox: &Sandbox, line: &str) -> String {
    sandbox.command("/bin/busybox").args(["sh", "-c", line]).output().await.unwrap().check().unwrap().stdout
}

/// The disk has that size, its last partition reaches to its end, and the root file system fills that.
async fn assert_is(sandbox: &Sandbox, device: &str, size: u64) {
    let device = format!("/sys/class/block/{device}");
    let line = format!(
        "busybox stat -f -c '%b %S' /; cat {device}/size /sys/class/block/vda/size; cat {device}/start || echo 0"
    );
    let text = shell(sandbox, &line).await;
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [blocks, block, partition, disk, start] = numbers[..] else { panic!("{text}") };
    let (file_system, partition, start) = (blocks * block, partition * 512, start * 512);
    assert_eq!(disk * 512, size);
    // A GUID partition table has the last MiB.
    assert!((size - MIB..=size).contains(&(start + partition)), "{start} and {partition} of {size}");
    // A file system keeps some of it for itself.
    assert!(file_system <= partition && file_system > partition - partition / 8, "{file_system} of {partition}");
}

/// Partition table and file system are sound in the eyes of the host's tools.
async fn assert_is_sound(sandbox: &Sandbox, saves: &Path, device: &str) {
    // So that there is no journal to be replayed.
    let line = format!("busybox mount -o remount,ro / && cd /sys/class/block/{device} && cat start size && mount");
    let text = shell(sandbox, &line).await;
    let mut lines = text.lines();
    let mut bytes = || lines.next().unwrap().parse::<u64>().unwrap() * 512;
    let (start, len) = (bytes(), bytes());
    sandbox.save("checked").await.unwrap();

    let save = saves.join("checked");
    let mut layers: Vec<_> = fs::read_dir(save.join("layers")).unwrap().map(|entry| entry.unwrap().path()).collect();
    layers.sort();
    let mut disk = serde_json::json!(null);
    for path in [save.join("image/disk.qcow2")].iter().chain(&layers) {
        let file = serde_json::json!({ "driver": "file", "filename": path });
        disk = serde_json::json!({ "driver": "qcow2", "file": file, "backing": disk });
    }
    let file_system = serde_json::json!({ "driver": "raw", "offset": start, "size": len, "file": disk });
    let raw = tempfile::NamedTempFile::new_in(saves).unwrap();
    for (what, tool) in [
        (disk, "sfdisk --verify"),
        (
            file_system,
            match text.lines().find_map(|line| line.split_once(" on / type ")).unwrap().1 {
                kind if kind.starts_with("ext4") => "e2fsck -fn",
                kind if kind.starts_with("xfs") => "xfs_repair -nf",
                _ => "btrfs check --readonly",
            },
        ),
    ] {
        disks::run("qemu-img", &["convert", "-O", "raw", &format!("json:{what}"), disks::text(raw.path())]);
        let words: Vec<&str> = tool.split(' ').chain([disks::text(raw.path())]).collect();
        disks::run(words[0], &words[1..]);
    }
}

/// Starts it from a warm state, which is made first where there is none.
async fn warm(builder: SandboxBuilder) -> Sandbox {
    loop {
        let sandbox = builder.clone().start().await.unwrap_or_else(|e| panic!("failed to {e:?}"));
        let report = sandbox.start_report().unwrap();
        if report.kind == StartKind::Warm {
            println!("{report:?}");
            return sandbox;
        }
        assert_eq!(report.kind, StartKind::Cold);
    }
}

/// Writes a file that has no room where the file system was before, to its end, and another.
async fn fill(sandbox: &Sandbox, size: u64) {
    let large = size / 4 * 3;
    let line = format!(
        "cd /root && busybox fallocate -l {large} large
        busybox dd if=/dev/urandom of=large bs=1M count=2 seek={} conv=notrunc 2>/dev/null
        busybox dd if=/dev/urandom of=small bs=1M count=1 2>/dev/null
        (busybox tail -c 2097152 large | busybox sha256sum; busybox sha256sum <small) >sums && busybox sync",
        large / MIB - 2
    );
    shell(sandbox, &line).await;
}

/// What `fill` wrote is there, read from the disk.
async fn assert_filled(sandbox: &Sandbox) {
    let line = "echo 3 >/proc/sys/vm/drop_caches; cd /root
        (busybox tail -c 2097152 large | busybox sha256sum; busybox sha256sum <small) | busybox cmp - sums";
    shell(sandbox, line).await;
}

/// From a warm start, and after a reboot. What was on the disk is there.
async fn grows(disk: &Path, device: &str) {
    let builder = Sandbox::builder(disks::text(disk));
    let sum = "busybox sha256sum /bin/busybox";
    let own = warm(builder.clone()).await;
    let before = shell(&own, sum).await;
    drop(own);
    let sandbox = warm(builder.disk_size("1G")).await;
    assert_is(&sandbox, device, GIB).await;
    fill(&sandbox, GIB).await;
    sandbox.reboot().await.unwrap();
    assert_is(&sandbox, device, GIB).await;
    assert_filled(&sandbox).await;
    assert_eq!(shell(&sandbox, sum).await, before);
}

/// From a save, with memory and from its disk alone.
async fn grows_again(disk: &Path, device: &str) {
    let saves = directory();
    let builder = |source: &str| Sandbox::builder(source).saves_dir(saves.path());
    let sandbox = warm(builder(disks::text(disk)).disk_size("1G")).await;
    fill(&sandbox, GIB).await;
    sandbox.save("s").await.unwrap();
    drop(sandbox);

    let sandbox = warm(builder("s").disk_size("3G")).await;
    assert_is(&sandbox, device, 3 * GIB).await;
    assert_filled(&sandbox).await;
    shell(&sandbox, "busybox fallocate -l 1500000000 /root/larger").await;
    drop(sandbox);

    let sandbox = builder("s").memory("384M").disk_size("3G").start().await.unwrap();
    assert_eq!(sandbox.start_report().unwrap().kind, StartKind::Disk);
    assert_is(&sandbox, device, 3 * GIB).await;
    assert_filled(&sandbox).await;
    assert_is_sound(&sandbox, saves.path(), device).await;
}

#[tokio::test]
async fn ext4_on_the_last_partition_of_a_gpt() {
    let disk = disks::busybox_disk("no-init.raw", disks::small_ext4, disks::partitioned);
    grows(&disk, "vda2").await;
    grows_again(&disk, "vda2").await;
}

#[tokio::test]
async fn ext4_on_the_last_partition_of_an_mbr() {
    let disk = disks::busybox_disk("mbr.raw", disks::small_ext4, disks::mbr);
    grows(&disk, "vda2").await;
    grows_again(&disk, "vda2").await;
}

#[tokio::test]
async fn xfs_on_a_partition() {
    let disk = disks::busybox_disk("xfs.raw", disks::xfs, disks::partitioned);
    grows(&disk, "vda2").await;
    grows_again(&disk, "vda2").await;
}

#[tokio::test]
async fn btrfs_in_a_subvolume_on_a_partition() {
    grows(&subvolumes::with_boot(), "vda3").await;
    grows_again(&subvolumes::with_boot(), "vda3").await;
}

#[tokio::test]
async fn xfs_and_btrfs_on_whole_disks() {
    for (name, make) in [("whole-xfs.raw", disks::xfs as fn(&Path, &Path)), ("whole-btrfs.raw", disks::btrfs)] {
        grows(&disks::busybox_disk(name, make, disks::whole), "vda").await;
    }
}

#[tokio::test]
async fn what_comes_from_a_larger_disk_has_it_too() {
    let saves = directory();
    let disk = disks::busybox_disk("btrfs.raw", disks::btrfs, disks::partitioned);
    let builder = Sandbox::builder(disks::text(&disk)).saves_dir(saves.path());
    let sandbox = warm(builder.disk_size("2G")).await;
    assert_is(&sandbox, "vda2", 2 * GIB).await;
    assert!(sandbox.changes().await.unwrap().is_empty(), "a larger disk is no change");
    fill(&sandbox, 2 * GIB).await;
    sandbox.checkpoint("c").await.unwrap();
    shell(&sandbox, "busybox rm /root/large").await;
    sandbox.revert("c").await.unwrap();
    assert_is(&sandbox, "vda2", 2 * GIB).await;
    assert_filled(&sandbox).await;
    let twin = sandbox.fork().await.unwrap();
    assert_is(&twin, "vda2", 2 * GIB).await;
    assert_filled(&twin).await;
    drop(twin);
    sandbox.save("s").await.unwrap();
    drop(sandbox);

    let (elsewhere, here) = (Saves::at(saves.path().join("elsewhere")), Saves::at(saves.path()));
    let file = saves.path().join("s.tar.gz");
    here.export("s", &file, &Reporter::silent()).await.unwrap();
    elsewhere.import(&file, "t", &Reporter::silent()).await.unwrap();
    let sandbox = Sandbox::builder("t").saves_dir(saves.path().join("elsewhere")).start().await.unwrap();
    assert_eq!(sandbox.start_report().unwrap().kind, StartKind::Disk);
    assert_is(&sandbox, "vda2", 2 * GIB).await;
    assert_filled(&sandbox).await;
}

#[tokio::test]
async fn a_root_before_another_partition_stays_as_it_is() {
    let disk = disks::once("before.raw", |path| {
        let (tree, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = [tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap()];
        disks::busybox(tree.path());
        disks::ext4(tree.path(), files[0].path(), "32M");
        disks::ext4(empty.path(), files[1].path(), "4M");
        disks::partitions(&[files[0].path(), files[1].path()], path);
    });
    let error = Sandbox::builder(disks::text(&disk)).disk_size("1G").start().await.unwrap_err();
    assert!(matches!(error, Error::DiskGrowth { .. }), "{error:?}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("partition 3 lies behind it") && source.contains("disk_size"), "{source}");
    drop(warm(Sandbox::builder(disks::text(&disk))).await);
}
