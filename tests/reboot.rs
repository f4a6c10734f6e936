//! Reboots, by the test and by the guest itself; and ends that are none.

use std::time::{Duration, Instant};

use quicksand::{ChannelError, Error, Mount, NetworkMode, Sandbox};

async fn shell(sb: &Sandbox, line: &str) -> String {
    sb.execute(line).await.unwrap().check().unwrap().stdout
}

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// Waits until the guest has rebooted by itself as often as that.
async fn await_reboots(sb: &Sandbox, count: u64) {
    let deadline = Instant::now() + Duration::from_secs(200);
    while sb.reboots().unwrap() < count {
        assert!(Instant::now() < deadline, "the guest does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_disk_is_kept_and_the_rest_is_new() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sb = Sandbox::builder("debian").saves_dir(saves.path()).start().await.unwrap();
    let old = shell(&sb, BOOT_ID).await;
    let id = shell(&sb, "cat /etc/machine-id").await;
    // Not synced by us: going down in good order does that. And what going down leaves: a service's last act.
    let unit = "[Service]\nExecStart=/bin/sleep infinity\nExecStop=/bin/sh -c 'echo stopped >> /root/log'\n\
                [Install]\nWantedBy=multi-user.target\n";
    sb.write_file("/etc/systemd/system/last.service", unit).await.unwrap();
    shell(
        &sb,
        "systemctl enable --now last 2>&1; echo disk > /root/f; echo memory > /dev/shm/f; echo before > /dev/console",
    )
    .await;
    let mut child = sb.command("sleep").arg("1000").spawn().await.unwrap();
    let begun = Instant::now();
    sb.reboot().await.unwrap();
    println!("reboot: {:?}", begun.elapsed());
    assert_ne!(shell(&sb, BOOT_ID).await, old);
    assert_eq!(shell(&sb, "cat /root/f /root/log /etc/machine-id; ls /dev/shm").await, format!("disk\nstopped\n{id}"));
    assert_eq!(shell(&sb, "systemctl is-system-running; systemctl is-active last").await, "running\nactive\n");
    assert!(!matches!(child.wait().await, Ok(status) if status.success()));
    assert_eq!(sb.reboots().unwrap(), 1);
    // The kernel on its disk is its image's, so the boot that looked for another one was the only one.
    assert!(shell(&sb, "cat /proc/cmdline").await.contains("quicksand.kernel=guest"));
    assert_eq!(sb.warnings().unwrap(), Vec::<String>::new());
    let console = sb.console_tail(500).unwrap();
    assert!(console.contains("before"), "{console}");

    // Whatever can be done with a sandbox can be done with one that was booted again.
    shell(&sb, "echo more > /dev/shm/f; echo more >> /root/f").await;
    sb.checkpoint("c").await.unwrap();
    shell(&sb, "rm /root/f").await;
    sb.revert("c").await.unwrap();
    let expected = "disk\nmore\nmore\n";
    assert_eq!(shell(&sb, "cat /root/f /dev/shm/f").await, expected);
    let twin = sb.fork().await.unwrap();
    assert_eq!(shell(&twin, "cat /root/f /dev/shm/f").await, expected);
    sb.save("s").await.unwrap();
    drop((sb, twin));
    let sb = Sandbox::builder("s").saves_dir(saves.path()).start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, quicksand::StartKind::Warm, "{:?}", sb.start_report());
    assert_eq!(shell(&sb, "cat /root/f /dev/shm/f").await, expected);
}

#[tokio::test]
async fn a_guest_that_reboots_by_itself_is_waited_for() {
    let host = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(host.path().join("f"), "host\n").unwrap();
    let mount = Mount::new(host.path(), "/mnt");
    let sb = Sandbox::builder("debian").network_mode(NetworkMode::None).mount(mount).start().await.unwrap();
    let old = shell(&sb, BOOT_ID).await;
    shell(&sb, "echo disk > /root/f").await;
    let mut hung = sb.command("sleep").arg("1000").spawn().await.unwrap();
    // Without its init, at once.
    let error = sb.execute("sync; reboot -f; sleep 1000").await.unwrap_err();
    assert!(matches!(error, Error::Guest(ChannelError::Restarted)), "{error}");
    assert!(matches!(hung.wait().await, Err(Error::Guest(ChannelError::Restarted))));
    // What is asked now waits, all of it.
    let (one, two, three) = tokio::join!(sb.execute(BOOT_ID), sb.read_file("/root/f"), sb.ping());
    assert_ne!(one.unwrap().stdout, old);
    assert_eq!(two.unwrap(), b"disk\n");
    three.unwrap();
    assert_eq!(sb.reboots().unwrap(), 1);
    assert_eq!(shell(&sb, "ls /sys/class/net").await, "lo\n", "the network is as it was");
    assert_eq!(shell(&sb, "cat /mnt/f").await, "host\n", "and so are its mounts");

    // In good order, and without anybody who asks: the guest is booted all the same.
    let old = shell(&sb, BOOT_ID).await;
    shell(&sb, "systemctl reboot").await;
    await_reboots(&sb, 2).await;
    assert_ne!(shell(&sb, BOOT_ID).await, old);
    assert_eq!(shell(&sb, "cat /root/f /mnt/f").await, "disk\nhost\n");
}

#[tokio::test]
async fn a_poweroff_and_a_panic_are_ends() {
    let sb = Sandbox::builder("debian").start().await.unwrap();
    shell(&sb, "echo disk > /root/f; sync").await;
    sb.checkpoint("c").await.unwrap();
    let error = sb.execute("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger").await.unwrap_err();
    assert!(matches!(&error, Error::Ended { console, .. } if console.contains("Kernel panic")), "{error}");
    assert!(!sb.is_running());
    let begun = Instant::now();
    assert!(matches!(sb.execute("true").await.unwrap_err(), Error::Ended { .. }));
    assert!(begun.elapsed() < Duration::from_secs(20), "nothing is waited for");
    assert_eq!(sb.reboots().unwrap(), 0);

    sb.revert("c").await.unwrap();
    let error = sb.execute("poweroff -f; sleep 1000").await.unwrap_err();
    assert!(matches!(&error, Error::Ended { .. }), "{error}");
    assert!(matches!(sb.execute("true").await.unwrap_err(), Error::Ended { .. }));
    assert!(matches!(sb.checkpoint("d").await.unwrap_err(), Error::Ended { .. }));

    // Switched on again by hand, with the network that it has.
    sb.reboot().await.unwrap();
    assert_eq!(shell(&sb, "cat /root/f").await, "disk\n");
    assert_eq!(shell(&sb, "ls /sys/class/net | wc -l").await, "2\n");
    // A sandbox that is stopped while it reboots is stopped.
    shell(&sb, "reboot -f >/dev/null 2>&1 &").await;
    while sb.is_running() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // In the middle of it: the next machine has said something.
    let (before, deadline) = (sb.console_tail(1000).unwrap(), Instant::now() + Duration::from_secs(200));
    while !sb.is_running() && sb.console_tail(1000).unwrap() == before {
        assert!(Instant::now() < deadline, "the guest does not come back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sb.stop().await.unwrap();
    assert!(matches!(sb.execute("true").await.unwrap_err(), Error::NotRunning));
}
