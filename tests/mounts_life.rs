//! Mounts in the life of a sandbox: on and off at any time, off while it is frozen, on again after each start, and gone with it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        resource::{Resource, getrlimit},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use quicksand::{Error, Mount, NetworkMode, Sandbox, StartKind};

/// What a line prints, which must succeed.
async fn shell(sb: &Sandbox, line: &str) -> String {
    sb.execute(line).await.unwrap().check().unwrap().stdout
}

fn share(content: &str) -> tempfile::TempDir {
    let host = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(host.path().join("f"), content).unwrap();
    host
}

/// The process that serves a directory.
fn server_of(host: &Path) -> Option<Pid> {
    let host = fs::canonicalize(host).unwrap();
    let holds = |pid: &u32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "quicksand-mount\n")
            && fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|target| target == host)
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(holds).map(|pid| Pid::from_raw(pid as i32))
}

async fn gone(host: &Path) {
    let begun = Instant::now();
    while server_of(host).is_some() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the server of {} stays", host.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn several_from_the_start_in_every_network_mode() {
    let (one, two, three) = (share("one"), share("two"), share("three"));
    for mode in [NetworkMode::None, NetworkMode::MountsOnly, NetworkMode::Full] {
        let sb = Sandbox::builder("debian")
            .network_mode(mode)
            .mount(Mount::new(one.path(), "/mnt/one").read_only())
            .mount(Mount::new(two.path(), "/mnt/two"))
            // Inside another one, where the host gets the directory.
            .mount(Mount::new(three.path(), "/mnt/two/three"))
            .start()
            .await
            .unwrap();
        assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
        assert_eq!(shell(&sb, "cat /mnt/one/f /mnt/two/f /mnt/two/three/f").await, "onetwothree");
        let active = sb.active_mounts();
        let guest: Vec<&Path> = active.iter().map(|mount| mount.guest()).collect();
        assert_eq!(guest, ["/mnt/one", "/mnt/two", "/mnt/two/three"].map(Path::new));
        assert_eq!(active[1].host(), fs::canonicalize(two.path()).unwrap());
        assert!(active[0].is_read_only() && !active[1].is_read_only());
        // The inner one keeps the outer one where it is.
        let busy = sb.unmount(&active[1]).await.unwrap_err();
        assert!(matches!(&busy, Error::MountBusy { guest, .. } if guest == Path::new("/mnt/two")), "{busy}");
        sb.unmount(&active[2]).await.unwrap();
        sb.unmount(&active[1]).await.unwrap();
        assert_eq!(sb.active_mounts(), active[..1]);
        assert_eq!(shell(&sb, "ls /mnt/two").await, "");
        sb.stop().await.unwrap();
        assert!(server_of(one.path()).is_none() && sb.active_mounts().is_empty());
    }
    assert!(two.path().join("three").is_dir());
}

#[tokio::test]
async fn on_and_off_while_it_runs() {
    let host = share("here");
    let sb = Sandbox::builder("debian").start().await.unwrap();
    // More often than there are ports.
    for _ in 0..40 {
        let mount = sb.mount(Mount::new(host.path(), "/m")).await.unwrap();
        assert_eq!(shell(&sb, "cat /m/f").await, "here");
        sb.unmount(&mount).await.unwrap();
        assert_eq!(shell(&sb, "ls -A /m; grep -c quicksand /proc/mounts || :").await, "0\n");
        assert!(server_of(host.path()).is_none());
        assert!(matches!(sb.unmount(mount).await, Err(Error::NotMounted { .. })));
    }

    let mount = sb.mount(Mount::new(host.path(), "/m")).await.unwrap();
    let again = sb.mount(Mount::new(host.path(), "/m")).await.unwrap_err();
    assert!(matches!(again, Error::BadOption { option: "mount", .. }), "{again}");
    // By whichever name: one over the other would keep that from being taken off.
    shell(&sb, "ln -s / /root/link").await;
    for name in ["/mnt/../m", "/root/link/m"] {
        let again = sb.mount(Mount::new(host.path(), name)).await.unwrap_err();
        assert!(again.to_string().contains("there is a mount at /m already"), "{again}");
    }
    assert_eq!(sb.active_mounts(), std::slice::from_ref(&mount));
    let mut user = sb.command("sleep").arg("1000").current_dir("/m").spawn().await.unwrap();
    shell(&sb, "while ! pgrep -x sleep > /dev/null; do sleep 0.05; done").await;
    let busy = sb.unmount(&mount).await.unwrap_err().to_string();
    assert!(busy.contains("sleep (process ") && busy.contains("is in /m"), "{busy}");
    assert_eq!(shell(&sb, "cat /m/f").await, "here", "it stays");
    user.kill();
    user.wait().await.unwrap();
    sb.unmount(&mount).await.unwrap();
    // The guest may have taken it off by itself.
    let mount = sb.mount(Mount::new(host.path(), "/m")).await.unwrap();
    shell(&sb, "umount /m").await;
    sb.unmount(&mount).await.unwrap();
    gone(host.path()).await;
}

#[tokio::test]
async fn what_can_not_be_mounted_says_why() {
    let host = share("");
    let sb = Sandbox::builder("debian").start().await.unwrap();
    let missing = host.path().join("missing");
    for path in [missing.clone(), host.path().join("f")] {
        let error = sb.mount(Mount::new(&path, "/m")).await.unwrap_err();
        assert!(matches!(&error, Error::MountSource { path: named, .. } if *named == path), "{error}");
    }
    let error = Sandbox::builder("debian").mount(Mount::new(&missing, "/m")).start().await.unwrap_err();
    assert!(matches!(error, Error::MountSource { .. }), "{error}");
    assert!(!missing.exists());
    let twice = Sandbox::builder("debian").mount(Mount::new("/tmp", "/m")).mount(Mount::new("/usr", "/m")).build();
    assert!(matches!(twice, Err(Error::BadOption { option: "mount", .. })));
    for guest in ["m", "/"] {
        let error = sb.mount(Mount::new(host.path(), guest)).await.unwrap_err();
        assert!(matches!(error, Error::BadOption { option: "mount", .. }), "{error}");
    }
    let error = sb.mount(Mount::new(host.path(), "/etc/passwd")).await.unwrap_err();
    assert!(matches!(error, Error::Guest(_)) && error.to_string().contains("/etc/passwd"), "{error}");
    // Nothing is left of it.
    gone(host.path()).await;
    assert!(sb.active_mounts().is_empty());
    assert_eq!(shell(&sb, "ls /sys/class/virtio-ports | wc -l; pgrep -c quicksand-mount || :").await, "1\n0\n");
}

#[tokio::test]
async fn a_server_that_dies_is_an_error_at_once_and_not_the_end() {
    let host = share("here");
    let sb = Sandbox::builder("debian").start().await.unwrap();
    let mount = sb.mount(Mount::new(host.path(), "/m")).await.unwrap();
    let mut reader = sb
        .command("sh")
        .args(["-c", "exec 3< /m/f; echo ready; while cat /m/f > /dev/null; do :; done"])
        .spawn()
        .await
        .unwrap();
    let mut ready = [0; 6];
    tokio::io::AsyncReadExt::read_exact(reader.stdout.as_mut().unwrap(), &mut ready).await.unwrap();
    kill(server_of(host.path()).unwrap(), Signal::SIGKILL).unwrap();
    // Whoever was at it gets an error, and so does whoever comes.
    tokio::time::timeout(Duration::from_secs(20), reader.wait()).await.expect("it does not hang").unwrap();
    let output = sb.command("ls").arg("/m").timeout(Duration::from_secs(20)).output().await.unwrap();
    assert!(output.stderr.contains("Transport endpoint is not connected"), "{output:?}");
    sb.unmount(mount).await.unwrap();
    let mount = sb.mount(Mount::new(host.path(), "/m")).await.unwrap();
    assert_eq!(shell(&sb, "cat /m/f").await, "here");

    // So it is where the guest kills its own end.
    shell(&sb, "pkill -KILL -f '^@quicksand-mount'").await;
    let output = sb.command("ls").arg("/m").timeout(Duration::from_secs(20)).output().await.unwrap();
    assert!(output.stderr.contains("Transport endpoint is not connected"), "{output:?}");
    sb.unmount(mount).await.unwrap();
    gone(host.path()).await;
}

#[tokio::test]
async fn no_frozen_state_holds_a_mount() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let host = share("old");
    let path = host.path().join("f");
    let sb =
        Sandbox::builder("debian").saves_dir(saves.path()).mount(Mount::new(host.path(), "/m")).start().await.unwrap();
    assert_eq!(shell(&sb, "cat /m/f").await, "old");

    // In use it stops the freeze, and nothing else.
    let mut user = sb.command("sh").args(["-c", "exec 3< /m/f; echo ready; exec sleep 1000"]).spawn().await.unwrap();
    let mut ready = [0; 6];
    tokio::io::AsyncReadExt::read_exact(user.stdout.as_mut().unwrap(), &mut ready).await.unwrap();
    for error in
        [sb.save("s").await.map(drop).unwrap_err(), sb.checkpoint("c").await.unwrap_err(), sb.fork().await.unwrap_err()]
    {
        assert!(matches!(&error, Error::MountBusy { users, .. } if users.contains("has /m/f open")), "{error}");
    }
    assert!(!saves.path().join("s").exists() && sb.checkpoints().unwrap().is_empty());
    assert_eq!(shell(&sb, "cat /m/f").await, "old");
    user.kill();
    user.wait().await.unwrap();

    // The machine that is written down has the mount again, and what was written down has none.
    sb.save("s").await.unwrap();
    sb.checkpoint("c").await.unwrap();
    fs::write(&path, "new").unwrap();
    assert_eq!(shell(&sb, "cat /m/f; echo made > /m/g").await, "new");
    let saved = Sandbox::builder("s").saves_dir(saves.path()).start().await.unwrap();
    assert_eq!(saved.start_report().unwrap().kind, StartKind::Warm);
    assert_eq!(
        shell(&saved, "ls /m; grep -c quicksand /proc/mounts || :; ls /sys/class/virtio-ports | wc -l").await,
        "0\n1\n"
    );
    saved.mount(Mount::new(host.path(), "/m")).await.unwrap();
    assert_eq!(shell(&saved, "cat /m/f /m/g").await, "newmade\n");
    saved.stop().await.unwrap();

    // After a return the mount is there, with the files of now.
    sb.revert("c").await.unwrap();
    assert_eq!(shell(&sb, "cat /m/f /m/g").await, "newmade\n");
    assert_eq!(sb.active_mounts().len(), 1);

    // A twin has it too, by a server of its own.
    let twin = sb.fork().await.unwrap();
    assert_eq!(shell(&twin, "cat /m/f; echo twin > /m/g").await, "new");
    assert_eq!(shell(&sb, "cat /m/g").await, "twin\n");
    sb.unmount(&sb.active_mounts()[0]).await.unwrap();
    assert_eq!(shell(&twin, "cat /m/f").await, "new");
    twin.stop().await.unwrap();

    // One that is on at a return stays, and one that can't be put on again is an error and is gone.
    sb.mount(Mount::new(host.path(), "/n")).await.unwrap();
    drop(host);
    let error = sb.revert("c").await.unwrap_err();
    assert!(matches!(error, Error::MountSource { .. }), "{error}");
    assert!(sb.active_mounts().is_empty());
    assert_eq!(shell(&sb, "echo lives").await, "lives\n");
}

#[tokio::test]
async fn the_users_own_process_stays_as_it_is() {
    let umask =
        || fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("Umask")).map(str::to_owned);
    let descriptors = || -> Vec<PathBuf> {
        fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok()).collect()
    };
    let before = (umask(), getrlimit(Resource::RLIMIT_NOFILE).unwrap());
    assert!(before.0.is_some());
    let host = share("here");
    let sb = Sandbox::builder("debian").mount(Mount::new(host.path(), "/m")).start().await.unwrap();
    shell(&sb, "cat /m/f && umask 0 && touch /m/g").await;
    assert_eq!((umask(), getrlimit(Resource::RLIMIT_NOFILE).unwrap()), before);
    let root = fs::canonicalize(host.path()).unwrap();
    assert!(!descriptors().iter().any(|target| target.starts_with(&root)), "no file of the mount is open here");

    // The server: no new privileges, and of root's none that it does not need.
    let pid = server_of(host.path()).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((field("NoNewPrivs:"), field("Umask:")), ("1".to_owned(), "0000".to_owned()));
    let capabilities = u64::from_str_radix(&field("CapEff:"), 16).unwrap();
    assert_eq!(capabilities & !(1 << 1 | 1 << 2 | 1 << 3), 0, "{capabilities:#x}");
    // It has its standard streams, the socket, the directory, and what the library needs; nothing of ours.
    let open =
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    for target in open {
        let own = ["/dev/null", "socket:", "/proc/"].iter().any(|start| target.to_string_lossy().starts_with(start));
        assert!(own || target.starts_with(&root) || target.to_string_lossy().ends_with(".log"), "{}", target.display());
    }
    drop(sb);
    gone(host.path()).await;
}

/// What this program does when it is run as a child of the test below.
#[tokio::test]
#[ignore = "run by another test in a process of its own, which it kills"]
async fn owner() {
    let host = std::env::var("MOUNTS_HOST").unwrap();
    let sb = Sandbox::builder("debian").mount(Mount::new(&host, "/m")).start().await.unwrap();
    assert_eq!(shell(&sb, "cat /m/f").await, "here");
    println!("ready");
    tokio::time::sleep(Duration::from_secs(600)).await;
}

#[tokio::test]
async fn no_server_survives_a_killed_owner() {
    let host = share("here");
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["owner", "--exact", "--ignored", "--nocapture"])
        .env("MOUNTS_HOST", host.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the owner ended early");
    assert!(server_of(host.path()).is_some());
    owner.kill().unwrap();
    owner.wait().unwrap();
    gone(host.path()).await;
}
