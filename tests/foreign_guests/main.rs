//! Systems that are not our own image: another init or none, no bash, no C library of ours, partitions, other file systems.

mod disks;

use std::path::Path;

use quicksand::{Sandbox, StartKind};

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
    second.stop().await.unwrap();
}

#[tokio::test]
async fn an_image_without_an_init_has_its_orphans_reaped_and_what_programs_expect() {
    let disk = disks::once("no-init.raw", |path| {
        let (tree, file_system) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        disks::busybox(tree.path());
        disks::ext4(tree.path(), file_system.path(), "32M");
        disks::partitioned(file_system.path(), path);
    });
    let sandbox = start(&disk).await;
    let shell = async |line: &str| sandbox.execute(line).await.unwrap().stdout;
    assert!(shell("mount").await.contains("/dev/vda2 on / type ext4"));
    // An orphan's parent is process 1, which takes leave of it.
    shell("(sleep 0.2; exit 3) & (sh -c 'sleep 0.1 & exit 0')").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(shell("ps | grep -c '[s]leep'").await, "0\n");
    assert_eq!(shell("ps -o stat | grep -c '^Z'").await, "0\n");
    assert_eq!(shell("uname -n").await, "tiny\n");
    for mounted in ["devpts on /dev/pts", "tmpfs on /dev/shm"] {
        assert!(shell("mount").await.contains(mounted), "{mounted}");
    }
    assert!(shell("cat /sys/class/net/lo/operstate /sys/class/net/lo/flags").await.contains("0x9"));
    sandbox.stop().await.unwrap();
}
