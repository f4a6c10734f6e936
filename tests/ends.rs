//! Guests that stop without an end of their machine: each is told as what it is, and comes back.

use std::time::{Duration, Instant};

use quicksand::{ChannelError, Error, ExitStatus, Sandbox};

/// Long for a busy machine, and short beside any deadline of ours.
const SOON: Duration = Duration::from_secs(40);

async fn shell(sb: &Sandbox, line: &str) -> String {
    let output = sb.execute(line).await.unwrap();
    assert!(output.success(), "{line}: {output:?}");
    output.stdout
}

#[tokio::test]
async fn a_guest_that_halts_or_sleeps_is_told_or_lived_through() {
    let sb = Sandbox::builder("debian").start().await.unwrap();
    shell(&sb, "echo kept > /root/f; sync").await;
    sb.checkpoint("clean").await.unwrap();
    for (line, is_it) in [
        ("systemctl halt; sleep 1000", (|error| matches!(error, ChannelError::Halted)) as fn(&ChannelError) -> bool),
        ("halt -f; sleep 1000", |error| matches!(error, ChannelError::Halted)),
        ("echo mem >/sys/power/state; sleep 1000", |error| matches!(error, ChannelError::Suspended)),
    ] {
        let begun = Instant::now();
        // Its own shell may end on the way down, before the guest has.
        let _ = sb.execute(line).await;
        let error = loop {
            match sb.execute("true").await {
                Ok(_) => assert!(begun.elapsed() < SOON, "{line}: it goes on"),
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, Error::Guest(why) if is_it(why)), "{line}: {error:?}");
        sb.revert("clean").await.unwrap();
        assert_eq!(shell(&sb, "cat /root/f").await, "kept\n");
        assert!(begun.elapsed() < SOON, "{line}: {:?}", begun.elapsed());
    }
    // The light sleep ends, and whatever ran goes on.
    let mut child = sb.command("sh").args(["-c", "sleep 15; exit 7"]).spawn().await.unwrap();
    assert!(shell(&sb, "rtcwake -m freeze -s 5 && echo back").await.ends_with("back\n"));
    assert_eq!(child.wait().await.unwrap(), ExitStatus::Code(7));
    assert_eq!(shell(&sb, "cat /root/f; systemctl is-system-running").await, "kept\nrunning\n");
}

#[tokio::test]
async fn a_boot_that_does_not_end_names_what_is_waited_for_and_is_of_use() {
    let sb = Sandbox::builder("debian").boot_timeout(Duration::from_secs(90)).start().await.unwrap();
    let unit = "[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
    sb.write_file("/etc/systemd/system/hang.service", unit).await.unwrap();
    shell(&sb, "systemctl enable hang 2>&1").await;
    let error = sb.reboot().await.unwrap_err();
    assert!(error.to_string().contains("its systemd waits for hang.service"), "{error}");
    let begun = Instant::now();
    assert!(shell(&sb, "systemctl list-jobs").await.contains("hang.service"));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}
