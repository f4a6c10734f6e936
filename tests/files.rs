//! Files and directories to and from a real guest. What a hostile one might send is tried in `quicksand-core/src/files.rs`.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
    time::{Duration, Instant},
};

use quicksand::{Error, Sandbox, sandbox_test};
use tokio::io::AsyncReadExt;

fn random(len: usize) -> Vec<u8> {
    // A fixed sequence of bytes that does not compress to nothing (xorshift).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[sandbox_test(image = "debian")]
async fn a_file_is_written_and_read(sb: Sandbox) -> quicksand::Result<()> {
    sb.write_file("/etc/motd", "hi\n").await?;
    assert_eq!(sb.execute("cat /etc/motd; stat -c '%a %U' /etc/motd").await?.stdout, "hi\n644 root\n");
    for len in [0, 1, 65_536, 5_000_000] {
        let bytes = random(len);
        sb.write_file("/root/f", &bytes).await?;
        assert!(sb.read_file("/root/f").await? == bytes, "{len}");
    }
    sb.execute("printf 'odd' > \"/root/$(printf 'a b\\n\\377')\"").await?.check()?;
    let odd: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(b"/root/a b\n\xff".to_vec());
    assert_eq!(sb.read_file(Path::new(&odd)).await?, b"odd");
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn what_can_not_be_read_or_written_says_why(sb: Sandbox) -> quicksand::Result<()> {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("pipe"), "x").unwrap();
    // One that nobody has open, one that somebody reads, and one that somebody writes.
    sb.execute(
        "cd /root; mkfifo pipe read written; ln -s pipe link; mkdir /opt/of; mkfifo /opt/of/pipe; (cat read; touch got) & sleep 1000 >written &
         perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => q(/root/socket), Listen => 1) or die'",
    )
    .await?
    .check()?;
    let cases = [
        (sb.read_file("/root/pipe").await.map(drop), "a named pipe"),
        (sb.read_file("/root/written").await.map(drop), "a named pipe"),
        (sb.read_file("/root/link").await.map(drop), "a named pipe"),
        (sb.write_file("/root/pipe", "x").await, "a named pipe"),
        (sb.write_file("/root/read", "x").await, "a named pipe"),
        (sb.upload("/etc/passwd", "/root/pipe").await, "a named pipe"),
        (sb.upload("/etc/passwd", "/root/read").await, "a named pipe"),
        (sb.upload(host.path(), "/opt/of").await, "at /opt/of/pipe: it is a named pipe"),
        (sb.download("/root/pipe", "/tmp/quicksand-never").await, "neither a file nor a directory"),
        (sb.read_file("/root/socket").await.map(drop), "a socket"),
        (sb.write_file("/root/socket", "x").await, "a socket"),
        (sb.upload("/etc/passwd", "/root/socket").await, "a socket"),
        (sb.read_file("/dev/zero").await.map(drop), "a device"),
        (sb.write_file("/dev/null", "x").await, "a device"),
        (sb.upload("/etc/passwd", "/dev/null").await, "a device"),
        (sb.read_file("/no/such").await.map(drop), "No such file"),
        (sb.read_file("relative").await.map(drop), "not absolute"),
        (sb.read_file("/etc").await.map(drop), "Is a directory"),
        (sb.write_file("/no/such", vec![1; 2_000_000]).await, "No such file"),
        (sb.write_file("/proc/version", "x").await, "os error"),
        (sb.download("/no/such", "/tmp/quicksand-never").await, "No such file"),
        (sb.download("/dev/null", "/tmp/quicksand-never").await, "neither a file nor a directory"),
        (sb.upload("/etc/passwd", "/no/such/file").await, "No such file"),
        (sb.upload("/etc/passwd", "/tmp/").await, "Is a directory"),
    ];
    for (result, word) in cases {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Guest(_)) && error.to_string().contains(word), "{word}: {error}");
    }
    assert!(matches!(sb.upload("/no/such/file", "/root/x").await, Err(Error::Io { .. })));
    // Neither they nor the channel are the worse for it.
    let is_there = "test -p pipe -a -p read -a -S socket -a -c /dev/null -a ! -e got && echo ok";
    assert_eq!(sb.command("sh").args(["-c", is_there]).current_dir("/root").output().await?.stdout, "ok\n");
    Ok(())
}

/// Who reads a file while it is uploaded again finds one of the two, whole.
#[sandbox_test(image = "debian")]
async fn an_uploaded_file_replaces_another_at_once(sb: Sandbox) -> quicksand::Result<()> {
    let host = tempfile::NamedTempFile::new().unwrap();
    fs::write(host.path(), vec![b'a'; 2_000_000]).unwrap();
    sb.upload(host.path(), "/root/f").await?;
    // Counts what is neither: less than all of it, or nothing at all.
    let watch = "while [ ! -e /root/end ]; do [ \"$(cat /root/f | wc -c)\" = 2000000 ] || echo torn; done; ls -A /root | grep quicksand";
    let mut watcher = sb.command("sh").args(["-c", watch]).spawn().await?;
    for round in 0..10 {
        fs::write(host.path(), vec![b'b' + round; 2_000_000]).unwrap();
        sb.upload(host.path(), "/root/f").await?;
    }
    sb.write_file("/root/end", "").await?;
    let mut said = String::new();
    watcher.stdout.take().expect("it is read once").read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "", "torn files, or leftovers beside it");
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_directory_goes_in_and_comes_out_as_it_was(sb: Sandbox) -> quicksand::Result<()> {
    let temp = tempfile::tempdir().unwrap();
    let from = temp.path().join("from");
    fs::create_dir_all(from.join("sub/empty")).unwrap();
    fs::write(from.join("run.sh"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(from.join("run.sh"), Permissions::from_mode(0o750)).unwrap();
    fs::write(from.join("sub/data"), random(300_000)).unwrap();
    fs::write(from.join(format!("sub/{}", "long".repeat(50))), "x").unwrap();
    symlink("../run.sh", from.join("sub/link")).unwrap();
    symlink("/nowhere", from.join("dangling")).unwrap();

    sb.upload(&from, "/opt/dist").await?;
    assert_eq!(sb.execute("/opt/dist/sub/link; stat -c '%a %U' /opt/dist/run.sh").await?.stdout, "ran\n750 root\n");
    sb.execute("mkdir /opt/dist/closed && chmod 500 /opt/dist/closed && mkfifo /opt/dist/pipe").await?.check()?;

    let to = temp.path().join("to");
    sb.download("/opt/dist", &to).await?;
    assert_eq!(fs::read(to.join("sub/data")).unwrap(), random(300_000));
    assert_eq!(fs::read_link(to.join("sub/link")).unwrap(), Path::new("../run.sh"));
    assert_eq!(fs::read_link(to.join("dangling")).unwrap(), Path::new("/nowhere"));
    let mode = |path: &str| fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("run.sh"), mode("closed")), (0o750, 0o500));
    assert!(to.join("sub/empty").is_dir() && to.join(format!("sub/{}", "long".repeat(50))).is_file());
    assert!(!to.join("pipe").exists());

    // A second time adds to what is there, and a single file is a file.
    sb.execute("echo new > /opt/dist/new").await?.check()?;
    sb.download("/opt/dist", &to).await?;
    assert_eq!(fs::read(to.join("new")).unwrap(), b"new\n");
    sb.upload(from.join("run.sh"), "/usr/local/bin/ran").await?;
    assert_eq!(sb.execute("ran").await?.stdout, "ran\n");
    sb.download("/usr/local/bin/ran", temp.path().join("file")).await?;
    assert_eq!(fs::read(temp.path().join("file")).unwrap(), b"#!/bin/sh\necho ran\n");
    Ok(())
}

/// Neither side stores or carries what a file does not have, and no guest is called hostile for a user with a large number.
#[sandbox_test(image = "debian", timeout = "300s")]
async fn holes_stay_holes_both_ways(sb: Sandbox) -> quicksand::Result<()> {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    let stored = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
    let begun = Instant::now();
    for size in ["10G", "600G"] {
        let line =
            "printf begin > /var/log/lastlog && truncate -s SIZE /var/log/lastlog && echo end >> /var/log/lastlog";
        sb.execute(&line.replace("SIZE", size)).await?.check()?;
        sb.download("/var/log", path("log")).await?;
    }
    let log = path("log/lastlog");
    assert_eq!(fs::metadata(&log).unwrap().len(), (600 << 30) + 4);
    assert!(stored(&log) < 1 << 20, "{}", stored(&log));
    let mut bytes = [0; 7];
    fs::File::open(&log).unwrap().read_exact_at(&mut bytes, (600 << 30) - 3).unwrap();
    assert_eq!(&bytes, b"\0\0\0end\n");

    // Its length is told before any of it is sent.
    let error = sb.read_file("/var/log/lastlog").await.unwrap_err();
    let text = "take all of /var/log/lastlog with its 644245094404 bytes: it is longer than 1G";
    assert!(matches!(error, Error::TooLong { .. }) && error.to_string().starts_with(text), "{error}");

    sb.upload(&log, "/root/f").await?;
    let said =
        sb.execute("stat -c %s /root/f; cd /root; [ $(du -k f | cut -f1) -lt 100 ] && tail -c 4 f").await?.stdout;
    assert_eq!(said, "644245094404\nend\n");
    // A list of changes does not read it.
    sb.execute("mv /root/f /opt/f").await?.check()?;
    assert_eq!(
        sb.changes().await?.to_string(),
        "files added:\n  /opt/f  0640 root:root 644245094404 B\n".replace("0640", &mode_of(&log))
    );
    assert!(begun.elapsed() < Duration::from_secs(200), "{:?}", begun.elapsed());
    Ok(())
}

fn mode_of(path: &Path) -> String {
    format!("{:04o}", fs::metadata(path).unwrap().permissions().mode() & 0o7777)
}

#[sandbox_test(image = "debian")]
async fn a_log_that_grows_meanwhile_is_downloaded(sb: Sandbox) -> quicksand::Result<()> {
    let temp = tempfile::tempdir().unwrap();
    let grow = "mkdir /opt/log; while :; do echo line >> /opt/log/a; [ $(stat -c %s /opt/log/a) -lt 100000 ] || : > /opt/log/a; done";
    let _growing = sb.command("sh").args(["-c", grow]).spawn().await?;
    sb.wait_for_file("/opt/log/a").await?;
    for round in 0..20 {
        sb.download("/opt/log", temp.path().join(round.to_string())).await?;
    }
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_live_directory_can_be_downloaded(sb: Sandbox) -> quicksand::Result<()> {
    let temp = tempfile::tempdir().unwrap();
    sb.download("/var/log", temp.path().join("log")).await?;
    assert!(fs::read_dir(temp.path().join("log")).unwrap().count() > 0);
    sb.download("/run", temp.path().join("run")).await?;
    assert!(temp.path().join("run/systemd").is_dir());
    Ok(())
}
