//! Guests that stop without an end of their machine, end in other ways than by a power-off, or boot without an end: each is told as
//! what it is, within seconds, and comes back.

use std::time::{Duration, Instant};

use quicksand::{ChannelError, Error, ExitStatus, Sandbox, StartCause};

/// Long for a busy machine, and short beside any deadline of ours.
const SOON: Duration = Duration::from_secs(40);

async fn shell(sb: &Sandbox, line: &str) -> String {
    sb.execute(line).await.unwrap().check().unwrap().stdout
}

/// What a guest's end is told as.
type Told = fn(&Error) -> bool;

const PANIC: &str = "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 1000";
const STOP_AGENT: &str = "pkill -STOP -f '@quicksand-agen[t]'; sleep 1000";
const KILL_AGENT: &str = "pkill -KILL -f '@quicksand-agen[t]'; sleep 1000";

fn is_halted(error: &Error) -> bool {
    matches!(error, Error::Guest(ChannelError::Halted))
}

fn is_off(error: &Error) -> bool {
    matches!(error, Error::Ended { qemu, .. } if qemu.starts_with("the guest switched itself off"))
}

fn is_panicked(error: &Error) -> bool {
    matches!(error, Error::Guest(ChannelError::Panicked(words)) if words.contains("sysrq triggered crash"))
}

fn is_stopped(error: &Error) -> bool {
    matches!(error, Error::Guest(ChannelError::AgentStopped))
}

/// Runs a line that ends the guest, until that is told: to the line itself, unless its shell ends before, and to the next command.
async fn end(sb: &Sandbox, line: &str, is_it: Told) {
    let begun = Instant::now();
    let first = sb.execute(line).await.err();
    let error = loop {
        match sb.execute("true").await {
            Ok(_) => assert!(begun.elapsed() < SOON, "{line}: it goes on"),
            Err(error) => break error,
        }
    };
    assert!(is_it(&error), "{line}: {error:?}");
    assert!(first.as_ref().is_none_or(is_it), "{line}: {first:?}");
    assert!(begun.elapsed() < SOON, "{line}: {:?}", begun.elapsed());
    // Nothing of it takes a deadline of its own.
    let begun = Instant::now();
    assert!(is_it(&sb.execute("true").await.unwrap_err()), "{line}");
    assert!(sb.checkpoint("too late").await.is_err(), "{line}");
    sb.console_tail(10).unwrap();
    assert!(begun.elapsed() < SOON, "{line}: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_guest_that_ends_or_sleeps_is_told_or_lived_through() {
    let sb = Sandbox::builder("debian").start().await.unwrap();
    shell(&sb, "echo kept > /root/f; sync").await;
    sb.checkpoint("clean").await.unwrap();
    let mut waits = sb.fork().await.unwrap();
    for (line, is_it) in [
        ("systemctl halt; sleep 1000", is_halted as Told),
        ("halt -f; sleep 1000", is_halted),
        ("echo mem >/sys/power/state; sleep 1000", |error| matches!(error, Error::Guest(ChannelError::Suspended))),
        ("poweroff -f; sleep 1000", is_off),
        ("shutdown +0; sleep 1000", is_off),
        ("echo 1 >/proc/sys/kernel/sysrq; echo o >/proc/sysrq-trigger; sleep 1000", is_off),
        (PANIC, |error| {
            matches!(error, Error::Ended { qemu, console, .. }
                if qemu.starts_with("the guest's kernel gave up") && console.contains("sysrq triggered crash"))
        }),
        // It has its kernel stand still, and then its agent.
        (&format!("sysctl -w kernel.panic=0; {PANIC}"), is_panicked),
        (STOP_AGENT, is_stopped),
        (KILL_AGENT, |error| matches!(error, Error::Guest(ChannelError::AgentGone))),
    ] {
        end(&sb, line, is_it).await;
        let begun = Instant::now();
        sb.revert("clean").await.unwrap();
        assert_eq!(shell(&sb, "cat /root/f").await, "kept\n");
        assert!(begun.elapsed() < SOON, "{line}: {:?}", begun.elapsed());
    }
    // A guest that boots is not waited for by who returns to before that.
    assert!(matches!(sb.execute("reboot -f; sleep 1000").await, Err(Error::Guest(ChannelError::Restarted))));
    let begun = Instant::now();
    let (asked, reverted) = tokio::join!(sb.execute("true"), sb.revert("clean"));
    reverted.unwrap();
    assert!(asked.is_ok() || matches!(asked, Err(Error::Guest(ChannelError::Reverted))), "{asked:?}");
    assert_eq!(shell(&sb, "cat /root/f").await, "kept\n");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());

    // What a guest refuses, or its init does not outlive, is no end of it.
    for line in ["systemctl kexec", "systemctl hibernate", "echo disk >/sys/power/state", "kill -KILL 1"] {
        let _ = sb.execute(line).await.unwrap();
        assert_eq!(shell(&sb, "cat /root/f; systemctl is-system-running").await, "kept\nrunning\n", "{line}");
    }
    // The light sleep ends, and whatever ran goes on.
    let mut child = sb.command("sh").args(["-c", "sleep 15; exit 7"]).spawn().await.unwrap();
    assert!(shell(&sb, "rtcwake -m freeze -s 5 && echo back").await.ends_with("back\n"));
    assert_eq!(child.wait().await.unwrap(), ExitStatus::Code(7));
    assert_eq!(shell(&sb, "cat /root/f; systemctl is-system-running").await, "kept\nrunning\n");

    // Words alone are no panic, and a guest that is busy is not stopped.
    let line =
        "echo 'Kernel panic - not syncing: a joke' >/dev/console; timeout 15 sh -c 'while :; do :; done'; echo on";
    assert_eq!(shell(&waits, line).await, "on\n");
    let twin = std::mem::replace(&mut waits, sb);
    end(&twin, STOP_AGENT, is_stopped).await;
    drop(twin);
    assert_eq!(shell(&waits, "cat /root/f").await, "kept\n");
}

/// Sleep with the machine's power off, as a laptop's: its memory is on its disk by then.
const HIBERNATE: &str = "fallocate -l 768M /swapfile && chmod 600 /swapfile && mkswap /swapfile && swapon /swapfile && \
                         systemctl hibernate; sleep 1000";

#[tokio::test]
async fn a_guest_that_is_put_to_sleep_by_its_init_is_told_and_comes_back() {
    let sb = Sandbox::builder("debian").start().await.unwrap();
    shell(&sb, "echo kept > /root/f; sync").await;
    sb.checkpoint("clean").await.unwrap();
    let is_suspended: Told = |error| matches!(error, Error::Guest(ChannelError::Suspended));
    for (line, is_it) in [("systemctl suspend; sleep 1000", is_suspended), (HIBERNATE, is_off)] {
        let error = sb.execute(line).await.unwrap_err();
        assert!(is_it(&error), "{line}: {error:?}");
        sb.reboot().await.unwrap();
        assert_eq!(shell(&sb, "cat /root/f").await, "kept\n", "{line}");
        sb.revert("clean").await.unwrap();
    }
}

#[tokio::test]
async fn a_guest_that_does_not_answer_goes_down_by_its_button_or_is_reset() {
    let sb = Sandbox::builder("debian").start().await.unwrap();
    let unit = "[Service]\nExecStart=/bin/sleep infinity\nExecStop=/bin/sh -c 'echo stopped >>/root/log'\n\
                [Install]\nWantedBy=multi-user.target\n";
    sb.write_file("/etc/systemd/system/last.service", unit).await.unwrap();
    shell(&sb, "systemctl enable --now last 2>&1").await;
    // It heeds its button, and goes down in good order.
    end(&sb, STOP_AGENT, is_stopped).await;
    sb.reboot().await.unwrap();
    assert_eq!(shell(&sb, "cat /root/log").await, "stopped\n");
    assert_eq!(sb.warnings().unwrap(), Vec::<String>::new());
    // It has no button any more.
    shell(&sb, "echo kept >/root/f; sync").await;
    end(&sb, &format!("sysctl -w kernel.panic=0; {PANIC}"), is_panicked).await;
    sb.reboot().await.unwrap();
    assert_eq!(shell(&sb, "cat /root/log /root/f").await, "stopped\nkept\n");
    let warnings = sb.warnings().unwrap();
    assert!(warnings.iter().any(|warning| warning.contains("its kernel has given up")), "{warnings:?}");
}

fn is_loop(error: &Error, whose: &str) -> bool {
    let Error::Start(start) = error else { return false };
    matches!(&start.cause, StartCause::RebootLoop { times: 3, by: Some(by) } if by.contains(whose))
}

#[tokio::test]
async fn a_guest_that_reboots_again_and_again_is_told_after_the_third_time() {
    let sb = Sandbox::builder("debian").start().await.unwrap();
    shell(&sb, "echo kept > /root/f; sync").await;
    sb.checkpoint("clean").await.unwrap();
    // On its way up, whoever waits for that.
    shell(&sb, "systemctl set-default reboot.target 2>&1").await;
    let error = sb.reboot().await.unwrap_err();
    assert!(is_loop(&error, "default.target"), "{error}");
    // The next command costs nothing.
    let begun = Instant::now();
    for _ in 0..2 {
        let error = sb.execute("true").await.unwrap_err();
        assert!(is_loop(&error, "default.target"), "{error}");
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(!sb.is_running());
    sb.revert("clean").await.unwrap();
    assert_eq!(shell(&sb, "cat /root/f").await, "kept\n");

    // In the middle of its use, by a script that a unit runs.
    sb.write_file("/usr/local/bin/again", "#!/bin/sh\nsleep 1\nsystemctl reboot\n").await.unwrap();
    let unit = "[Service]\nExecStart=/usr/local/bin/again\n[Install]\nWantedBy=multi-user.target\n";
    sb.write_file("/etc/systemd/system/loop.service", unit).await.unwrap();
    shell(&sb, "chmod 755 /usr/local/bin/again; systemctl enable loop 2>&1").await;
    let _ = sb.execute("systemctl reboot; sleep 1000").await;
    let error = loop {
        match sb.execute("sleep 1000").await {
            Err(Error::Guest(ChannelError::Restarted)) => {}
            Err(error) => break error,
            // On its way down the guest kills what runs.
            Ok(output) => assert!(!output.success(), "{output}"),
        }
    };
    assert!(is_loop(&error, "loop.service: systemctl reboot"), "{error}");
    sb.revert("clean").await.unwrap();
    assert_eq!(shell(&sb, "cat /root/f").await, "kept\n");
}

#[tokio::test]
async fn a_boot_that_does_not_end_names_what_is_waited_for_and_is_of_use() {
    let sb = Sandbox::builder("debian").boot_timeout(Duration::from_secs(90)).start().await.unwrap();
    let unit = "[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
    sb.write_file("/etc/systemd/system/hang.service", unit).await.unwrap();
    // Nor does the guest go down.
    let unit = "[Service]\nExecStart=/bin/sleep infinity\nExecStop=/bin/sleep infinity\n";
    sb.write_file("/etc/systemd/system/stuck.service", unit).await.unwrap();
    shell(&sb, "systemctl enable hang 2>&1; systemctl start stuck; echo kept >/root/f").await;
    let error = sb.reboot().await.unwrap_err();
    assert!(error.to_string().contains("its systemd waits for hang.service"), "{error}");
    let begun = Instant::now();
    assert!(shell(&sb, "systemctl list-jobs").await.contains("hang.service"));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let warnings = sb.warnings().unwrap();
    assert!(warnings.iter().any(|warning| warning.contains("its systemd waited for stuck.service")), "{warnings:?}");
    assert_eq!(shell(&sb, "cat /root/f").await, "kept\n");
}
