//! Systems that are not our own image: another init or none, no bash, no C library of ours, partitions, other file systems.

mod disks;
mod openrc;
mod sizes;
mod subvolumes;

use std::path::Path;

use quicksand::{Sandbox, StartKind, images};

async fn start(disk: &Path) -> Sandbox {
    Sandbox::builder(disk.to_str().unwrap()).start().await.unwrap_or_else(|e| panic!("failed to {e}"))
}

#[tokio::test]
async fn busybox_init_is_ready_when_its_start_script_is_done() {
    let disk = disks::once("busybox-init.raw", |path| {
        let tree = tempfile::tempdir().unwrap();
        disks::busybox(tree.path());
        disks::with_init(tree.path());
        disks::ext4(tree.path(), path, "32M");
    });
    let first = start(&disk).await;
    assert_eq!(first.execute("cat /root/boot.log").await.unwrap().stdout, "1\n2\n3\n4\n");
    assert!(first.execute("ps").await.unwrap().stdout.contains("sleep 1000"));
    first.stop().await.unwrap();
    let second = start(&disk).await;
    assert_eq!(second.start_report().unwrap().kind, StartKind::Warm);
    let out = second.command("id").arg("-u").user("user").output().await.unwrap();
    assert_eq!(out.stdout, "1000\n");
    second.write_file("/root/new", "x").await.unwrap();
    assert_eq!(second.changes().await.unwrap().to_string(), "files added:\n  /root/new  0644 root:root 1 B\n");
    second.stop().await.unwrap();
}

#[tokio::test]
async fn another_release_is_as_warm_as_ours() {
    let first = Sandbox::builder("debian:13").start().await.unwrap_or_else(|e| panic!("failed to {e}"));
    let out = first.execute("cut -d. -f1 /etc/debian_version; systemctl is-system-running; uname -r").await.unwrap();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(lines[..2], ["13", "running"], "{out}");
    assert!(!lines[2].starts_with("6.1."), "a kernel of its own: {out}");
    first.write_file("/root/new", "x").await.unwrap();
    first.stop().await.unwrap();
    let second = Sandbox::builder("debian:13").start().await.unwrap();
    assert_eq!(second.start_report().unwrap().kind, StartKind::Warm);
    assert!(!second.execute("test -e /root/new").await.unwrap().success());
    second.stop().await.unwrap();
}

#[tokio::test]
async fn openrc_is_ready_when_its_services_are_started() {
    let first = start(&openrc::archive()).await;
    let shell = async |sandbox: &Sandbox, line: &str| sandbox.execute(line).await.unwrap().stdout;
    assert_eq!(shell(&first, "cat /proc/1/comm /run/slow /run/openrc/softlevel").await, "init\nslow\ndefault");
    let services = shell(&first, "rc-status default").await;
    let slow = services.lines().find(|line| line.trim_start().starts_with("slow ")).unwrap_or_default();
    assert!(slow.contains("started"), "{services}");
    assert_eq!(shell(&first, "uname -n; ls /run/openrc/rc.starting 2>&1 | grep -c No").await, "openrc\n1\n");
    first.stop().await.unwrap();
    let second = start(&openrc::archive()).await;
    assert_eq!(second.start_report().unwrap().kind, StartKind::Warm);
    assert_eq!(shell(&second, "rc-service slow status | grep -c started").await, "1\n");
    second.stop().await.unwrap();
}

#[tokio::test]
async fn an_image_without_an_init_has_its_orphans_reaped_and_what_programs_expect() {
    let sandbox = start(&disks::busybox_disk("no-init.raw", disks::small_ext4, disks::partitioned)).await;
    let shell = async |line: &str| sandbox.execute(line).await.unwrap().stdout;
    assert!(shell("mount").await.contains("/dev/vda2 on / type ext4"));
    // An orphan's parent is process 1, which takes leave of it.
    shell("(sleep 0.2; exit 3) & (sh -c 'sleep 0.1 & exit 0')").await;
    sandbox.wait_until_succeeds("! { ps | grep '[s]leep'; ps -o stat | grep '^Z'; }").await.unwrap();
    assert_eq!(shell("uname -n").await, "tiny\n");
    for mounted in ["devpts on /dev/pts", "tmpfs on /dev/shm"] {
        assert!(shell("mount").await.contains(mounted), "{mounted}");
    }
    assert!(shell("cat /sys/class/net/lo/operstate /sys/class/net/lo/flags").await.contains("0x9"));
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn roots_on_xfs_and_btrfs() {
    for (name, make) in [("xfs", disks::xfs as fn(&Path, &Path)), ("btrfs", disks::btrfs)] {
        let sandbox = start(&disks::busybox_disk(&format!("{name}.raw"), make, disks::partitioned)).await;
        let mounts = sandbox.execute("mount").await.unwrap().stdout;
        assert!(mounts.contains(&format!("/dev/vda2 on / type {name}")), "{mounts}");
        sandbox.write_file("/root/x", "y").await.unwrap();
        assert_eq!(sandbox.read_file("/root/x").await.unwrap(), b"y");
        let changes = sandbox.changes().await.unwrap();
        assert_eq!(changes.to_string(), "files added:\n  /root/x  0644 root:root 1 B\n");
        sandbox.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_root_in_a_subvolume_with_its_kernel_on_a_partition_of_its_own() {
    let sandbox = start(&subvolumes::with_boot()).await;
    let mounts = sandbox.execute("mount").await.unwrap().stdout;
    let root = mounts.lines().find(|line| line.starts_with("/dev/vda3 on / type btrfs")).unwrap_or_default();
    assert!(root.contains("subvol=/root"), "{mounts}");
    let modules = sandbox.execute("cat /proc/modules").await.unwrap().stdout;
    // What the bundle has besides is not there: kernel and modules are the disk's.
    assert!(modules.contains("btrfs ") && !modules.contains("overlay "), "{modules}");
    sandbox.write_file("/root/x", "y").await.unwrap();
    // Changes are told of every subvolume that is mounted, and once of what is mounted twice.
    let line = "mkdir -p /home /mnt && mount -t btrfs -o subvol=home /dev/vda3 /home && mount --bind /home /mnt && touch /home/new";
    sandbox.execute(line).await.unwrap().check().unwrap();
    let changes = sandbox.changes().await.unwrap();
    for (path, is_told) in [("/root/x", true), ("/home/new", true), ("/mnt/new", false)] {
        assert_eq!(changes.file(path).is_some(), is_told, "{path}: {changes}");
    }
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn a_root_that_is_the_default_subvolume() {
    let sandbox = start(&subvolumes::default_snapshot()).await;
    let mounts = sandbox.execute("mount").await.unwrap().stdout;
    assert!(
        mounts.contains("/dev/vda2 on / type btrfs") && mounts.contains("subvol=/@/.snapshots/1/snapshot"),
        "{mounts}"
    );
    assert_eq!(sandbox.execute("cat /etc/os-release").await.unwrap().stdout, "ID=snapshot.raw\n");
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn a_root_in_a_subvolume_that_only_its_name_tells() {
    let disk = subvolumes::at();
    let cache = images::Cache::from_environment().unwrap();
    let name = "at-layout";
    let _ = images::remove(&cache, name).await;
    let image = images::import_as(&cache, &disk, name, &quicksand::Reporter::silent()).await.unwrap();
    assert_eq!((image.root_device(), image.root_flags()), ("/dev/vda2", "subvol=@"));
    assert_eq!(image.file_system(), "btrfs");
    drop(image);
    images::remove(&cache, name).await.unwrap();
}

#[tokio::test]
async fn a_kernel_and_an_initrd_beside_the_disk() {
    let cache = images::Cache::from_environment().unwrap();
    let debian = images::ensure(&cache, "debian", &quicksand::Reporter::silent()).await.unwrap();
    let disk = disks::once("beside.raw", |path| {
        let tree = tempfile::tempdir().unwrap();
        disks::busybox(tree.path());
        disks::ext4(tree.path(), path, "32M");
    });
    // Made anew where `debian` is another one by now.
    let (kernel, initrd) = (disk.with_extension("kernel"), disk.with_extension("initrd"));
    if std::fs::read(&kernel).ok() != std::fs::read(debian.kernel()).ok() {
        std::fs::copy(debian.kernel(), &kernel).unwrap();
        disks::initrd(&debian.modules(), &initrd);
    }
    let sandbox = start(&disk).await;
    let modules = sandbox.execute("cat /proc/modules").await.unwrap().stdout;
    // What the bundle has besides is not there: the modules are the initrd's.
    assert!(modules.contains("virtio_blk ") && !modules.contains("overlay "), "{modules}");
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn disks_that_lead_elsewhere_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (secret, disk) = (directory.path().join("secret"), directory.path().join("disk.qcow2"));
    std::fs::write(&secret, [7; 4096]).unwrap();
    let backing = format!("backing_file={},backing_fmt=raw", disks::text(&secret));
    disks::run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", &backing, disks::text(&disk), "1M"]);
    let error = Sandbox::builder(disks::text(&disk)).start().await.unwrap_err().to_string();
    assert!(error.contains("depends on another file"), "{error}");
    std::fs::write(&disk, "KDMV of another program").unwrap();
    let error = Sandbox::builder(disks::text(&disk)).start().await.unwrap_err().to_string();
    assert!(error.contains("VMDK") && error.contains("qemu-img convert"), "{error}");
    std::fs::write(&disk, [0; 1 << 20]).unwrap();
    let error = Sandbox::builder(disks::text(&disk)).start().await.unwrap_err().to_string();
    assert!(error.contains("find a root file system on the disk"), "{error}");
}
