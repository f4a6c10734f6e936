//! Waking where things are not as in the image: files that can't be written, a root that is read-only, timers whose time has passed
//! while the machine stood still.

use std::time::Duration;

use quicksand::{Mount, Network, NetworkMode, Sandbox, StartKind};

async fn shell(sb: &Sandbox, line: &str) -> String {
    sb.execute(line).await.unwrap().check().unwrap().stdout
}

/// That a machine works, and what has been said of it.
async fn warnings(sb: &Sandbox) -> String {
    assert_eq!(shell(sb, "echo works").await, "works\n");
    sb.warnings().unwrap().join("\n")
}

const RESOLVER: &str = "cat /etc/resolv.conf; lsattr /etc/resolv.conf | cut -c5; readlink /etc/resolv.conf || true";

#[tokio::test]
async fn a_resolvers_file_stays_as_somebody_made_it() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = |source: &str| Sandbox::builder(source).saves_dir(saves.path()).network_mode(NetworkMode::Full);
    let sb = builder("debian").start().await.unwrap();
    assert_eq!(shell(&sb, "cat /etc/resolv.conf").await, "nameserver 10.0.2.3\n");
    assert_eq!((warnings(&sb).await, sb.start_report().unwrap().warnings), (String::new(), vec![]));

    shell(&sb, "echo nameserver 192.0.2.53 > /etc/resolv.conf; chattr +i /etc/resolv.conf /etc/hosts /etc/machine-id")
        .await;
    let (expected, id) = ("nameserver 192.0.2.53\ni\n", shell(&sb, "cat /etc/machine-id").await);
    let resolver = async |sb: &Sandbox| shell(sb, RESOLVER).await;
    let told = |said: &str| assert!(said.contains("192.0.2.53") && !said.contains("machine id"), "{said}");
    sb.checkpoint("c").await.unwrap();
    sb.revert("c").await.unwrap();
    told(&warnings(&sb).await);
    assert_eq!(resolver(&sb).await, expected);
    assert_eq!(shell(&sb, "cat /etc/machine-id").await, id);
    let twin = sb.fork().await.unwrap();
    told(&twin.start_report().unwrap().warnings.join("\n"));
    assert_eq!(resolver(&twin).await, expected);
    // The file itself is as it was; what lies over it is told from it by nobody who reads.
    assert_ne!(shell(&twin, "cat /etc/machine-id; journalctl -n 1 -q > /dev/null").await, id);
    drop(twin);

    // Names go over the file as well, and what others wrote is still there.
    sb.allow_host_port(5432).await.unwrap();
    assert_eq!(warnings(&sb).await.lines().count(), 1);
    let hosts = "getent hosts host.quicksand.internal | wc -l; grep -c localhost /etc/hosts; findmnt -no OPTIONS /etc/hosts | cut -c1-2";
    assert_eq!(shell(&sb, hosts).await.replace("2\nro", "1\nro"), "1\n1\nro\n");
    sb.reboot().await.unwrap();
    told(&warnings(&sb).await);
    assert_eq!(resolver(&sb).await, expected);
    assert_eq!(shell(&sb, hosts).await.replace("2\nro", "1\nro"), "1\n1\nro\n");
    sb.save("s").await.unwrap();
    drop(sb);

    let network = Network::new();
    let sb = builder("s").join(&network, "db").start().await.unwrap();
    told(&sb.start_report().unwrap().warnings.join("\n"));
    assert_eq!(resolver(&sb).await, expected);
    assert_eq!(shell(&sb, "getent hosts db | wc -l").await, "1\n");
    // Each wake writes what it shows anew, and stacks nothing.
    sb.checkpoint("d").await.unwrap();
    sb.revert("d").await.unwrap();
    let mounts = "for f in hosts machine-id; do grep -c \" /etc/$f \" /proc/self/mountinfo; done";
    assert_eq!(shell(&sb, mounts).await, "1\n1\n");

    // A link stays one, whether it leads to something or not; where neither can be, that is all.
    let stub = "../run/systemd/resolve/stub-resolv.conf";
    shell(&sb, &format!("chattr -i /etc/resolv.conf; ln -sfn {stub} /etc/resolv.conf; test ! -e /etc/resolv.conf"))
        .await;
    for (checkpoint, line) in [("dangling", "true"), ("resolver's", "echo nameserver 127.0.0.53 > /etc/resolv.conf")] {
        shell(&sb, line).await;
        sb.checkpoint(checkpoint).await.unwrap();
        sb.revert(checkpoint).await.unwrap();
        assert_eq!(warnings(&sb).await, "", "{checkpoint}");
        assert_eq!(
            shell(&sb, "cat /etc/resolv.conf; readlink /etc/resolv.conf").await,
            format!("nameserver 10.0.2.3\n{stub}\n")
        );
    }
    let changes = sb.changes().await.unwrap().to_string();
    assert!(changes.contains("/etc/resolv.conf  ") && changes.contains(&format!("link -> {stub}")), "{changes}");
    shell(&sb, "rm /etc/resolv.conf; mkdir /etc/resolv.conf").await;
    let twin = sb.fork().await.unwrap();
    let said = warnings(&twin).await;
    assert!(said.contains("/etc/resolv.conf does not name"), "{said}");
    // A full disk leaves what was there.
    shell(&sb, "rmdir /etc/resolv.conf; echo '# mine' > /etc/resolv.conf; chattr -i /etc/hosts; umount /etc/hosts")
        .await;
    shell(
        &sb,
        "cp /etc/hosts /dev/shm/hosts; sync; for s in 1G 64M 1M 4K; do i=0; while fallocate -l $s /root/$s.$i; do i=$((i+1)); done; done 2> /dev/null; \
         ! echo x > /root/x",
    )
    .await;
    sb.checkpoint("full").await.unwrap();
    sb.revert("full").await.unwrap();
    sb.allow_host_port(5433).await.unwrap();
    shell(&sb, "grep -c localhost /etc/hosts; grep -q quicksand.internal /etc/hosts; grep nameserver /etc/resolv.conf")
        .await;
}

#[tokio::test]
async fn a_root_that_is_read_only_is_no_hindrance() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = |source: &str| Sandbox::builder(source).saves_dir(saves.path());
    let sb = builder("debian").start().await.unwrap();
    shell(&sb, "touch /etc/resolv.conf; echo \"$(findmnt -no SOURCE /) / ext4 ro 0 1\" > /etc/fstab").await;
    sb.reboot().await.unwrap();
    let is_read_only = "findmnt -no OPTIONS / | cut -d, -f1";
    assert_eq!(shell(&sb, is_read_only).await, "ro\n");
    assert_eq!(warnings(&sb).await, "");
    let id = shell(&sb, "cat /etc/machine-id").await;
    sb.write_file("/run/x", "x").await.unwrap();
    sb.checkpoint("c").await.unwrap();
    sb.revert("c").await.unwrap();
    assert_eq!(shell(&sb, "cat /run/x /etc/machine-id").await, format!("x{id}"));
    let twin = sb.fork().await.unwrap();
    assert_eq!(warnings(&twin).await, "");
    assert_ne!(shell(&twin, "cat /etc/machine-id").await, id);
    drop(twin);

    // What has to write to the disk says so for itself.
    let host = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(host.path().join("f"), "from the host").unwrap();
    let error = sb.mount(Mount::new(host.path(), "/mnt/new")).await.unwrap_err().to_string();
    assert!(error.contains("Read-only file system"), "{error}");
    let error = sb.install("/bin/true").await.unwrap_err().to_string();
    assert!(error.contains("Read-only file system"), "{error}");
    let mount = sb.mount(Mount::new(host.path(), "/mnt")).await.unwrap();
    assert_eq!(shell(&sb, "cat /mnt/f").await, "from the host");
    let changes = sb.changes().await.unwrap();
    let changed: Vec<_> = changes.files.iter().map(|file| file.path.to_string_lossy()).collect();
    assert_eq!(changed, ["/etc/fstab", "/etc/resolv.conf"]);
    sb.allow_host_port(5432).await.unwrap();
    shell(&sb, "getent hosts host.quicksand.internal").await;
    assert_eq!(warnings(&sb).await, "");
    sb.unmount(mount).await.unwrap();
    sb.save("ro").await.unwrap();
    drop(sb);

    for mode in [NetworkMode::MountsOnly, NetworkMode::Full] {
        let sb = builder("ro").network_mode(mode).start().await.unwrap();
        assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
        assert_eq!(warnings(&sb).await, "");
        assert_eq!(shell(&sb, is_read_only).await, "ro\n");
        assert_ne!(shell(&sb, "cat /etc/machine-id").await, id);
        if mode == NetworkMode::Full {
            assert_eq!(shell(&sb, "cat /etc/resolv.conf").await, "nameserver 10.0.2.3\n");
        }
    }
}

/// Timers by the time of day, each with its own way to be a timer, and what they start.
const TIMERS: &str = r"
cd /etc/systemd/system
unit() {
    printf '[Timer]\n%b\n[Install]\nWantedBy=timers.target\n' $2 > $1.timer
    printf '[Service]\nExecStart=/bin/sh -c \047echo %s >> /var/log/ran\047\n' $1 > $1.service
}
unit kept 'OnCalendar=daily\nPersistent=true'
unit plain 'OnCalendar=hourly\nPersistent=true'
unit minute 'OnCalendar=*:*:00\nAccuracySec=1us'
unit clock 'OnClockChange=true'
unit soon 'OnActiveSec=1h'
date -s '-3 days' > /dev/null
systemctl daemon-reload
systemctl enable --now kept.timer plain.timer minute.timer clock.timer soon.timer 2> /dev/null
for t in fstrim apt-daily apt-daily-upgrade e2scrub_all systemd-tmpfiles-clean; do systemctl enable --now $t.timer 2> /dev/null || exit; done
rm -f /var/log/ran
";

const STATES: &str = "systemctl is-enabled fstrim.timer apt-daily.timer kept.timer plain.timer; \
    systemctl is-active fstrim.timer apt-daily.timer kept.timer plain.timer minute.timer clock.timer soon.timer | sort | uniq -c | tr -s ' '";

#[tokio::test]
async fn timers_are_as_elsewhere_and_waking_starts_none() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = |source: &str| Sandbox::builder(source).saves_dir(saves.path());
    let sb = builder("debian").start().await.unwrap();
    shell(&sb, TIMERS).await;
    let states = "enabled\nenabled\nenabled\nenabled\n 7 active\n";
    assert_eq!(shell(&sb, STATES).await, states);
    sb.service("fstrim.timer").await.unwrap().assert_enabled();
    let changes = sb.changes().await.unwrap();
    assert!(changes.unit("kept.timer").is_some(), "{changes}");
    sb.save("old").await.unwrap();
    drop(sb);

    let ran = "sort /var/log/ran 2> /dev/null | uniq -c; systemctl list-jobs --no-legend; \
               systemctl list-units --failed --no-legend";
    for _ in 0..2 {
        let sb = builder("old").start().await.unwrap();
        assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
        assert_eq!(warnings(&sb).await, "");
        assert_eq!(shell(&sb, STATES).await, states);
        // What would have been started by now would be waited for by this, which starts after it.
        shell(&sb, "systemd-run --quiet --wait true").await;
        let day = "systemctl show -p LastTriggerUSec --value kept.timer plain.timer | sort -u | wc -l";
        let now = shell(&sb, &format!("{ran}; {day}")).await;
        assert!(!now.contains("kept") && !now.contains("plain") && !now.contains("clock"), "{now}");
        // By the clock that runs, all is as ever.
        sb.wait_until_succeeds("grep minute /var/log/ran").timeout(Duration::from_secs(90)).await.unwrap();
        sb.checkpoint("c").await.unwrap();
        sb.revert("c").await.unwrap();
        let now = shell(&sb, ran).await;
        assert!(!now.contains("kept") && !now.contains("plain") && !now.contains("clock"), "{now}");
    }
}

/// How often systemd has gone to sleep, once it has done so for a while.
const SLEPT: &str = "old=; while new=$(grep ^voluntary /proc/1/status); [ \"$new\" != \"$old\" ]; do old=$new; sleep 0.3; done; echo $new";

#[tokio::test]
async fn systemd_sleeps_on_while_a_clone_wakes() {
    let sb = Sandbox::builder("debian").start().await.unwrap();
    let mut seen = Vec::new();
    // It may have something of its own to do, but not each time.
    for number in 0..5 {
        let tag = number.to_string();
        sb.checkpoint(&tag).await.unwrap();
        let goes_on = shell(&sb, SLEPT).await;
        sb.revert(&tag).await.unwrap();
        let put_back = shell(&sb, SLEPT).await;
        if put_back == goes_on {
            return;
        }
        seen.push((goes_on, put_back));
    }
    panic!("each wake gives systemd something to do: {seen:?}");
}

#[tokio::test]
async fn systemd_still_hears_of_other_jumps_of_the_clock() {
    let sb = Sandbox::builder("debian").start().await.unwrap();
    let unit = "cd /etc/systemd/system; printf '[Timer]\nOnClockChange=true\n' > jump.timer; \
                printf '[Service]\nExecStart=touch /run/jumped\n' > jump.service; systemctl daemon-reload; systemctl start jump.timer";
    shell(&sb, unit).await;
    sb.checkpoint("c").await.unwrap();
    for _ in 0..2 {
        sb.revert("c").await.unwrap();
        shell(&sb, "systemd-run --quiet --wait true; test ! -e /run/jumped; date -s '+2 hours'").await;
        sb.wait_for_file("/run/jumped").await.unwrap();
    }
}

#[tokio::test]
async fn what_is_found_after_the_start_is_told_as_well() {
    let sb = Sandbox::builder("debian").start().await.unwrap();
    shell(&sb, "mkdir -p /var/log/journal/$(cat /etc/machine-id) && chattr +i /var/log/journal").await;
    let twin = sb.fork().await.unwrap();
    let told = warnings(&twin).await;
    assert!(told.starts_with("journalctl does not find what is in /var/log/journal"), "{told}");
    assert_eq!(twin.start_report().unwrap().warnings, [told.as_str()]);
    // It keeps the id that it has.
    twin.checkpoint("c").await.unwrap();
    twin.revert("c").await.unwrap();
    assert_eq!((warnings(&twin).await, twin.start_report().unwrap().warnings), (String::new(), vec![told]));
}
