//! The size of a guest's disk and root file system.

use quicksand::{Error, Sandbox, Size, StartKind};

async fn shell(sb: &Sandbox, line: &str) -> String {
    sb.execute(line).await.unwrap().check().unwrap().stdout
}

/// The sizes of the root file system and of its disk, in bytes.
async fn sizes(sb: &Sandbox) -> (u64, u64) {
    let text = shell(sb, "echo $(($(stat -f -c '%b * %S' /))); blockdev --getsize64 /dev/vda").await;
    let mut lines = text.lines().map(|line| line.parse().unwrap());
    (lines.next().unwrap(), lines.next().unwrap())
}

const GIB: u64 = 1 << 30;

/// A file system keeps some of its disk for itself.
fn assert_is((file_system, disk): (u64, u64), size: u64) {
    assert_eq!(disk, size);
    assert!(file_system > size - size / 16 && file_system <= size, "{file_system} of {disk}");
}

#[tokio::test]
async fn the_root_file_system_is_that_big_when_the_test_begins() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = |source: &str| Sandbox::builder(source).saves_dir(saves.path());
    let own = builder("debian").start().await.unwrap();
    let (_, least) = sizes(&own).await;
    drop(own);

    let sb = builder("debian").disk_size("24G").start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm, "the size is not of the machine");
    println!("start with a larger disk: {:?}", sb.start_report().unwrap().elapsed);
    assert_is(sizes(&sb).await, 24 * GIB);
    // The new part can be written, at its end, too.
    shell(&sb, "fallocate -l 21G /root/big && sync && rm /root/big").await;
    shell(&sb, "head -c 30000000 /dev/urandom > /root/data && sha256sum < /root/data > /root/sum && sync").await;

    // It stays with what comes from it: a checkpoint, a twin, a reboot, a save and what boots from its disk alone.
    sb.checkpoint("c").await.unwrap();
    sb.revert("c").await.unwrap();
    assert_is(sizes(&sb).await, 24 * GIB);
    let twin = sb.fork().await.unwrap();
    assert_is(sizes(&twin).await, 24 * GIB);
    drop(twin);
    sb.reboot().await.unwrap();
    assert_is(sizes(&sb).await, 24 * GIB);
    sb.save("s").await.unwrap();
    drop(sb);

    let sb = builder("s").start().await.unwrap();
    assert_is(sizes(&sb).await, 24 * GIB);
    shell(&sb, "sha256sum < /root/data | cmp - /root/sum").await;
    drop(sb);
    let sb = builder("s").disk_size("40G").start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
    assert_is(sizes(&sb).await, 40 * GIB);
    drop(sb);
    let sb = builder("s").memory("640M").disk_size("40G").start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Disk);
    assert_is(sizes(&sb).await, 40 * GIB);
    shell(&sb, "sha256sum < /root/data | cmp - /root/sum").await;
    drop(sb);

    let error = builder("s").disk_size("20G").start().await.unwrap_err();
    assert!(matches!(error, Error::DiskTooSmall { least, .. } if least.bytes() == 24 * GIB), "{error}");
    let error = builder("debian").disk_size("1M").start().await.unwrap_err();
    assert!(matches!(error, Error::DiskTooSmall { least: is, .. } if is.bytes() == least), "{error}");
    assert!(error.to_string().contains(&Size::from_bytes(least).to_string()), "{error}");
    for size in ["17T", "10", "x"] {
        builder("debian").disk_size(size).build().unwrap_err();
    }
}
