//! Saves: the four ways to start, what a save holds, what happens where it can't be used as it is.

use std::{fs, path::Path, time::Duration};

use quicksand::{Error, Sandbox, SandboxBuilder, StartKind};

/// A directory for the saves of one test, on the same file system as the build.
fn saves() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn builder(source: &str, saves: &tempfile::TempDir) -> SandboxBuilder {
    Sandbox::builder(source).saves_dir(saves.path())
}

async fn shell(sb: &Sandbox, line: &str) -> String {
    sb.execute(line).await.unwrap().check().unwrap().stdout
}

const BIG: &str = "head -c 8000000 /dev/urandom > /root/big && sync && sha256sum < /root/big";

#[tokio::test]
async fn the_four_ways_to_start() {
    let saves = saves();
    // Ephemeral: nothing stays.
    let sb = builder("debian", &saves).start().await.unwrap();
    shell(&sb, "echo lost > /root/lost").await;
    sb.stop().await.unwrap();
    assert_eq!(fs::read_dir(saves.path()).unwrap().count(), 0);

    // Saved when it stops, in memory as well as on disk.
    let sb = builder("debian", &saves).save("x").start().await.unwrap();
    let big = shell(&sb, BIG).await;
    shell(&sb, "test ! -e /root/lost; echo x > /dev/shm/memory; sleep 4242 >/dev/null 2>&1 & echo $! > /run/pid").await;
    sb.stop().await.unwrap();
    assert!(!sb.is_running());

    // Dropped without a stop: nothing is written.
    drop(builder("debian", &saves).save("never").start().await.unwrap());
    assert!(!saves.path().join("never").exists());

    // From the save, and from the save into another.
    let sb = builder("x", &saves).save("y").start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
    assert_eq!(shell(&sb, "sha256sum < /root/big").await, big);
    assert_eq!(shell(&sb, "cat /dev/shm/memory; kill -0 $(cat /run/pid) && echo alive").await, "x\nalive\n");
    let more = shell(&sb, &BIG.replace("big", "more")).await;
    shell(&sb, "echo y >> /dev/shm/memory").await;
    sb.stop().await.unwrap();

    let sb = builder("y", &saves).start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
    assert_eq!(shell(&sb, "sha256sum < /root/big; sha256sum < /root/more").await, big.clone() + &more);
    assert_eq!(shell(&sb, "cat /dev/shm/memory").await, "x\ny\n");
    drop(sb);
    let sb = builder("x", &saves).start().await.unwrap();
    assert_eq!(shell(&sb, "cat /dev/shm/memory; ls /root").await, "x\nbig\n", "x is as it was");

    // y needs nothing of x.
    fs::remove_dir_all(saves.path().join("x")).unwrap();
    let sb = builder(saves.path().join("y").to_str().unwrap(), &saves).start().await.unwrap();
    assert_eq!(shell(&sb, "sha256sum < /root/more").await, more);
}

#[tokio::test]
async fn two_that_stop_it_at_once_are_one_too_many_and_no_fault() {
    let saves = saves();
    let sb = builder("debian", &saves).save("x").start().await.unwrap();
    let (one, two) = tokio::join!(sb.stop(), sb.stop());
    one.unwrap();
    two.unwrap();
    assert!(!sb.is_running());
    assert_eq!(builder("x", &saves).start().await.unwrap().start_report().unwrap().kind, StartKind::Warm);
}

#[tokio::test]
async fn a_running_sandbox_is_saved_and_both_go_on() {
    let saves = saves();
    let sb = builder("debian", &saves).start().await.unwrap();
    let mut counter = sb
        .command("sh")
        .args(["-c", "while :; do date +%s%N >> /dev/shm/beat; sleep 0.05; done"])
        .spawn()
        .await
        .unwrap();
    shell(&sb, "until test -s /dev/shm/beat; do sleep 0.05; done").await;
    let report = sb.save("running").await.unwrap();
    assert!(report.pause < Duration::from_secs(2), "{:?}", report.pause);
    shell(&sb, "echo original > /root/who").await;
    // Saving it again, in use, works as well.
    sb.save("again").await.unwrap();

    for (save, files) in [("running", ""), ("again", "who\n")] {
        let twin = builder(save, &saves).start().await.unwrap();
        assert_eq!(twin.start_report().unwrap().kind, StartKind::Warm, "{:?}", twin.start_report());
        assert_eq!(shell(&twin, "ls /root").await, files);
        let beats = "a=$(wc -l < /dev/shm/beat); until [ $(wc -l < /dev/shm/beat) -gt $a ]; do sleep 0.05; done";
        // Which never ends where the process does not run on.
        shell(&twin, beats).await;
    }
    assert_eq!(shell(&sb, "cat /root/who").await, "original\n");
    counter.kill();
    counter.wait().await.unwrap();
}

/// The save that a running machine came from may be replaced, even by that machine, and the machine may be saved again.
#[tokio::test]
async fn a_save_is_replaced_under_its_own_clones() {
    let saves = saves();
    let sb = builder("debian", &saves).save("s").start().await.unwrap();
    shell(&sb, "echo 0 > /dev/shm/n; echo 0 > /root/n").await;
    sb.stop().await.unwrap();

    let old = builder("s", &saves).start().await.unwrap();
    let sb = builder("s", &saves).save("s").start().await.unwrap();
    for n in 1..4 {
        shell(&sb, &format!("echo {n} >> /dev/shm/n; echo {n} >> /root/n")).await;
        sb.save("s").await.unwrap();
    }
    shell(&sb, "echo 4 >> /dev/shm/n; echo 4 >> /root/n").await;
    sb.stop().await.unwrap();

    // The clone of the first save still has what it came from, on disk and in memory it never touched, and can be saved.
    assert_eq!(
        shell(&old, "cat /root/n /dev/shm/n; find /usr -type f | xargs cat | wc -c | grep -c .").await,
        "0\n0\n1\n"
    );
    old.save("old").await.unwrap();
    drop((old, sb));
    for (save, expected) in [("s", "0\n1\n2\n3\n4\n"), ("old", "0\n")] {
        let sb = builder(save, &saves).start().await.unwrap();
        assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm, "{:?}", sb.start_report());
        assert_eq!(shell(&sb, "cat /root/n").await, expected);
        assert_eq!(shell(&sb, "cat /dev/shm/n").await, expected);
    }
    // Nothing is left of those that were replaced, once another save is written.
    builder("old", &saves).start().await.unwrap().save("last").await.unwrap();
    let builder = builder("last", &saves).save("last");
    builder.start().await.unwrap().stop().await.unwrap();
    let names = fs::read_dir(saves.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names.iter().filter(|name| !name.starts_with(".old-")).collect::<Vec<_>>(), ["last", "old", "s"]);
    assert!(names.len() <= 4, "{names:?}");
}

#[tokio::test]
async fn fifteen_layers_deep() {
    let saves = saves();
    let mut source = "debian".to_owned();
    for layer in 0..15 {
        let save = format!("layer-{layer}");
        let sb = builder(&source, &saves).save(&save).start().await.unwrap();
        shell(&sb, &format!("echo {layer} > /root/{layer}; echo {layer} >> /root/all; echo {layer} >> /dev/shm/all"))
            .await;
        sb.stop().await.unwrap();
        source = save;
    }
    let expected: String = (0..15).map(|layer| format!("{layer}\n")).collect();
    let sb = builder(&source, &saves).start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
    assert_eq!(shell(&sb, "cat /root/all; ls /root | grep -c '^[0-9]'").await, expected.clone() + "15\n");
    assert_eq!(shell(&sb, "cat /dev/shm/all").await, expected);
    // The disk alone holds all of it, too.
    let sb = builder(&source, &saves).memory("640M").start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Disk);
    assert_eq!(shell(&sb, "cat /root/all").await, expected);
}

#[tokio::test]
async fn clones_are_not_each_other() {
    let saves = saves();
    let facts = "cat /etc/machine-id /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1; date +%s";
    let mut seen = vec![];
    for _ in 0..2 {
        let sb = builder("debian", &saves).start().await.unwrap();
        let lines: Vec<String> = shell(&sb, facts).await.lines().map(str::to_owned).collect();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(lines[3].parse().unwrap()) <= 60, "{lines:?}, now {now}");
        assert_eq!(lines[0].len(), 32);
        seen.push(lines);
    }
    for (one, other) in seen[0].iter().zip(&seen[1]).take(3) {
        assert_ne!(one, other);
    }
}

#[tokio::test]
async fn a_save_whose_memory_is_of_no_use_starts_from_its_disk_and_says_why() {
    let saves = saves();
    let sb = builder("debian", &saves).save("s").start().await.unwrap();
    shell(&sb, "echo kept > /root/kept; echo lost > /dev/shm/lost").await;
    sb.stop().await.unwrap();
    let (devices, memory) = (saves.path().join("s/devices"), saves.path().join("s/memory"));
    let whole = fs::read(&devices).unwrap();

    let check = async |kind: StartKind, reason: &str| {
        let sb = builder("s", &saves).start().await.unwrap();
        let report = sb.start_report().unwrap();
        assert_eq!(report.kind, kind, "{report:?}");
        assert!(report.reasons.iter().any(|text| text.contains(reason)), "{report:?}");
        assert_eq!(shell(&sb, "cat /root/kept; ls /dev/shm").await, "kept\n");
    };
    let mut damaged = whole.clone();
    damaged[1000..2000].fill(0xee);
    fs::write(&devices, &damaged).unwrap();
    check(StartKind::Disk, "the save's memory could not be used").await;
    // What was booted from its disk is kept, so that this is no slower the next time.
    fs::write(&devices, &whole[..whole.len() / 2]).unwrap();
    check(StartKind::Warm, "the save's memory could not be used").await;
    fs::write(&devices, &whole).unwrap();
    fs::remove_file(&memory).unwrap();
    check(StartKind::Warm, "missing").await;
    assert!(!memory.exists(), "nothing that loads a save writes to it");

    fs::remove_file(saves.path().join("s/layers/0.qcow2")).unwrap();
    let error = builder("s", &saves).start().await.unwrap_err();
    assert!(error.to_string().contains("layers/0.qcow2 is missing"), "{error}");
}

#[tokio::test]
async fn names_that_are_no_names_touch_nothing() {
    let saves = saves();
    let sb = builder("debian", &saves).start().await.unwrap();
    for name in ["../evil", "a/b", "", ".", "a,b"] {
        assert!(matches!(sb.save(name).await, Err(Error::BadName { .. })), "{name}");
    }
    let error = builder("../debian", &saves).start().await.unwrap_err();
    assert!(matches!(error, Error::NoSuchSource { .. }), "{error}");
    assert_eq!(fs::read_dir(saves.path()).unwrap().count(), 0);
    assert!(!Path::new("../evil").exists());
    assert!(matches!(sb.start().await, Err(Error::AlreadyStarted)));
    sb.stop().await.unwrap();
    sb.stop().await.unwrap();
    assert!(matches!(sb.execute("true").await, Err(Error::NotRunning)));
}
