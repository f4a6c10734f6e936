//! Waiting for what a guest does by itself, and the errors that show what was seen instead.

use std::time::{Duration, Instant};

use quicksand::{Error, Sandbox, sandbox_test};

const SHORT: Duration = Duration::from_secs(2);

/// A line of shell that goes on in the background.
async fn later(sb: &Sandbox, line: &str) -> quicksand::Result<()> {
    sb.execute(format!("({line}) >/dev/null 2>&1 &")).await?.check()?;
    Ok(())
}

#[track_caller]
fn seen(error: Error) -> String {
    match error {
        Error::WaitTimeout { seen, .. } => seen,
        other => panic!("{other}"),
    }
}

#[sandbox_test(image = "debian")]
async fn a_port_answers(sb: Sandbox) -> quicksand::Result<()> {
    assert!(matches!(sb.wait_for_port(0).await.unwrap_err(), Error::BadOption { .. }));
    let error = sb.wait_for_port(7777).timeout(SHORT).await.unwrap_err();
    assert_eq!(error.to_string().split(':').next(), Some("wait for port 7777 of the guest"));
    assert_eq!(seen(error), "nothing listens on TCP port 7777");
    // One that takes one visitor alone, who is not the one that waits.
    let once =
        "use IO::Socket::INET; my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 7777)
        or die; my $c = $s->accept; close $s; print $c 'hello'";
    sb.write_file("/tmp/once.pl", once).await?;
    later(&sb, "sleep 1; perl /tmp/once.pl").await?;
    sb.wait_for_port(7777).await?;
    sb.wait_for_port(7777).await?;
    assert_eq!(sb.execute("bash -c 'cat </dev/tcp/127.0.0.1/7777'").await?.stdout, "hello");
    // Also on an address other than loopback's.
    later(&sb, "systemd-socket-activate --accept --inetd -l 10.0.2.15:7778 cat").await?;
    sb.wait_for_port(7778).await
}

#[sandbox_test(image = "debian")]
async fn a_file_is_there(sb: Sandbox) -> quicksand::Result<()> {
    let begun = Instant::now();
    assert!(matches!(sb.wait_for_file("tmp/x").await.unwrap_err(), Error::BadOption { .. }));
    let error = sb.wait_for_file("/tmp/x").timeout(SHORT).await.unwrap_err();
    assert!(begun.elapsed() >= SHORT, "{:?}", begun.elapsed());
    assert!(seen(error).contains("No such file"));
    later(&sb, "sleep 1; touch /tmp/x").await?;
    sb.wait_for_file("/tmp/x").await
}

#[sandbox_test(image = "debian")]
async fn a_command_succeeds(sb: Sandbox) -> quicksand::Result<()> {
    let line = "echo checked; test -e /tmp/x || { echo not there >&2; exit 7; }";
    let error = sb.wait_until_succeeds(line).timeout(SHORT).await.unwrap_err();
    assert_eq!(seen(error), "exit code 7\nstdout: checked\nstderr: not there");
    let error = sb.wait_until_succeeds("echo begun; sleep 1000").timeout(SHORT).await.unwrap_err();
    assert_eq!(seen(error), "it was still running\nstdout: begun");
    later(&sb, "sleep 1; touch /tmp/x").await?;
    assert_eq!(sb.wait_until_succeeds(line).await?.stdout, "checked\n");
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_unit_is_active_or_has_failed(sb: Sandbox) -> quicksand::Result<()> {
    sb.wait_for_unit("dbus").await?;
    sb.write_file(
        "/etc/systemd/system/slow.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=sleep 2\n",
    )
    .await?;
    let broken = "[Service]\nExecStart=sh -c 'echo this is why; sleep 1; exit 3'\n";
    sb.write_file("/etc/systemd/system/broken.service", broken).await?;
    sb.execute("systemctl daemon-reload; systemctl start --no-block slow broken").await?.check()?;
    sb.wait_for_unit("slow").await?;

    let begun = Instant::now();
    let error = sb.wait_for_unit("broken").timeout(Duration::from_secs(100)).await;
    // It was active until it failed.
    let error = match error {
        Ok(()) => {
            sb.wait_until_succeeds("systemctl is-failed broken").await.map(drop).and(sb.wait_for_unit("broken").await)
        }
        failed => failed,
    };
    let error = error.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(90), "{:?}", begun.elapsed());
    match &error {
        Error::UnitFailed { state, journal, .. } => {
            assert_eq!(state, "failed (failed), result exit-code");
            assert!(journal.contains("this is why") && journal.contains("status=3"), "{journal}");
        }
        other => panic!("{other}"),
    }
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_unit_is_not_waited_for_where_nothing_can_come(sb: Sandbox) -> quicksand::Result<()> {
    for (name, file) in [
        ("once", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'sleep 2; echo ok >/run/did'"),
        ("condition", "[Unit]\nConditionPathExists=/nope\n[Service]\nExecStart=/bin/true"),
        ("assertion", "[Unit]\nAssertPathExists=/nope\n[Service]\nExecStart=/bin/true"),
        ("fails", "[Service]\nType=oneshot\nExecStart=/bin/false"),
        ("needs", "[Unit]\nRequires=fails.service\nAfter=fails.service\n[Service]\nExecStart=sleep 100"),
        ("ends", "[Service]\nExecStart=/bin/true"),
        ("masked", "[Service]\nExecStart=/bin/true"),
        ("bad", "[Service]\nRestart=never-heard-of\nExecStart="),
        ("slow", "[Service]\nType=oneshot\nExecStart=sleep 100"),
        ("behind", "[Unit]\nAfter=slow.service\n[Service]\nExecStart=sleep 100"),
        ("late", "[Service]\nExecStart=sleep 100"),
        ("again", "[Service]\nExecStart=/bin/sh -c 'test ! -e /run/ready || exec sleep 100'"),
    ] {
        sb.write_file(format!("/etc/systemd/system/{name}.service"), format!("{file}\n")).await?;
    }
    sb.write_file(
        "/etc/systemd/system/again.timer",
        "[Timer]\nOnActiveSec=1s\nOnUnitInactiveSec=4s\nAccuracySec=100ms\n",
    )
    .await?;
    let _ = sb
        .execute(
            "mv /etc/systemd/system/masked.service /run; systemctl daemon-reload; systemctl mask masked; \
         systemctl start --no-block slow; systemctl start --no-block behind once; systemctl start again.timer; \
         for unit in condition assertion needs ends; do systemctl start $unit; done",
        )
        .await?;
    // What does its work and ends has been active, also where systemd has forgotten it.
    sb.wait_for_unit("once.service").await?;
    assert_eq!(sb.execute("cat /run/did").await?.stdout, "ok\n");
    sb.wait_for_unit("once").await?;

    for (unit, expected) in [
        ("no-such-unit", "not-found"),
        ("condition", "ConditionPathExists=/nope"),
        ("assertion", "Assertion failed"),
        ("needs", "Dependency failed"),
        ("ends", "it has run and ended"),
        ("masked", "it is masked"),
        ("bad", "systemd can't use its file"),
    ] {
        match sb.wait_for_unit(unit).await.unwrap_err() {
            Error::UnitInactive { why, .. } => assert!(why.contains(expected), "{unit}: {why}"),
            other => panic!("{unit}: {other}"),
        }
    }
    // A job that is canceled while it is waited for.
    later(&sb, "sleep 1; systemctl cancel").await?;
    match sb.wait_for_unit("behind").await.unwrap_err() {
        Error::UnitInactive { why, .. } => assert!(why.contains("canceled"), "{why}"),
        other => panic!("{other}"),
    }
    // What nobody has started yet is waited for, and what a timer may start.
    later(&sb, "sleep 2; systemctl start late").await?;
    sb.wait_for_unit("late").await?;
    sb.execute("touch /run/ready").await?.check()?;
    sb.wait_for_unit("again").await
}

#[sandbox_test(image = "debian")]
async fn a_line_appears_in_a_file(sb: Sandbox) -> quicksand::Result<()> {
    let error = sb.wait_for_line("/tmp/log", "ready").timeout(SHORT).await.unwrap_err();
    assert!(seen(error).contains("No such file"));
    later(
        &sb,
        "sleep 0.5; echo one > /tmp/log; sleep 0.5; echo ready at $((6 * 7)) >> /tmp/log; echo more >> /tmp/log",
    )
    .await?;
    assert_eq!(sb.wait_for_line("/tmp/log", r"ready at \d+").await?, "ready at 42");
    // What is there counts, also after it was cut off.
    later(&sb, "sleep 1; echo two > /tmp/log; echo three >> /tmp/log").await?;
    assert_eq!(sb.wait_for_line("/tmp/log", "^(three|four)$").await?, "three");
    let error = sb.wait_for_line("/tmp/log", "four").timeout(SHORT).await.unwrap_err();
    assert_eq!(seen(error), "two\nthree");
    // A large one, and one that is no text.
    sb.execute("seq 1 500000 > /tmp/large; head -c 1000000 /dev/urandom >> /tmp/large; echo; echo last >> /tmp/large")
        .await?
        .check()?;
    assert_eq!(sb.wait_for_line("/tmp/large", "^499999$").await?, "499999");
    assert!(sb.wait_for_line("/tmp/large", "last$").await?.ends_with("last"));
    assert!(matches!(sb.wait_for_line("/tmp/log", "[").await, Err(Error::BadPattern { .. })));
    // One that never ends, whose lines don't either, does not hold up the deadline.
    let begun = Instant::now();
    sb.execute("truncate -s 1T /root/endless").await?.check()?;
    assert!(seen(sb.wait_for_line("/root/endless", "x").timeout(SHORT).await.unwrap_err()).is_empty());
    assert!(begun.elapsed() < SHORT + Duration::from_secs(30), "{:?}", begun.elapsed());
    // What is no file has no lines, and is not waited at.
    sb.execute("mkfifo /root/pipe").await?.check()?;
    for (path, what) in [("/root/pipe", "it is a named pipe"), ("/dev/zero", "it is a device")] {
        let error = sb.wait_for_line(path, "x").timeout(SHORT).await.unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_line_appears_on_the_console(sb: Sandbox) -> quicksand::Result<()> {
    later(&sb, "sleep 1; echo hello console > /dev/console").await?;
    // The prompt of the login stands before it where it was printed by this clone, and not by the machine that was frozen.
    let line = sb.wait_for_console("hello console$").await?;
    assert!(["hello console", "debian login: hello console"].contains(&line.as_str()), "{line}");
    let error = sb.wait_for_console("nothing like it").timeout(SHORT).await.unwrap_err();
    assert!(seen(error).contains("hello console"));
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_machine_that_ends_ends_every_wait(sb: Sandbox) -> quicksand::Result<()> {
    let waits = async {
        let console = sb.wait_for_console("nothing like it");
        let file = sb.wait_for_file("/nowhere");
        let line = sb.wait_for_line("/nowhere", "x");
        tokio::join!(console, file, line)
    };
    let end = async { sb.execute("sleep 1; echo o > /proc/sysrq-trigger; sleep 100").await };
    let ((console, file, line), _) = tokio::join!(waits, end);
    for error in [console.err(), file.err(), line.err()] {
        assert!(matches!(error, Some(Error::Ended { .. })), "{error:?}");
    }
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_user_is_made(sb: Sandbox) -> quicksand::Result<()> {
    sb.create_user("ann").await?;
    let who =
        sb.command("sh").args(["-c", "id -un; id -gn; pwd; touch x; ls -A; stat -c %a ."]).user("ann").output().await?;
    assert_eq!(who.stdout, "ann\nann\n/home/ann\n.bash_logout\n.bashrc\n.profile\nx\n700\n", "{}", who.stderr);
    assert!(matches!(sb.create_user("ann").await, Err(Error::UserExists { .. })));
    assert!(matches!(sb.create_user("a:0:0").await, Err(Error::BadUserName { .. })));
    // The guest's own programs take the files as they are, and go on from them.
    let check =
        sb.execute("pwck -r; grpck -r; useradd bob && id -u bob; grep ^bob: /etc/subuid; passwd -S ann").await?;
    assert!(check.stdout.contains("1001\nbob:165536:65536\nann L "), "{check:?}");
    sb.create_user("carl").await?;
    assert_eq!(sb.execute("id -u carl; id -G carl").await?.stdout, "1002\n1002\n");
    Ok(())
}

/// Where there is no program for it, as in an image of little more than busybox.
#[sandbox_test(image = "debian")]
async fn a_user_is_made_without_any_program_for_it(sb: Sandbox) -> quicksand::Result<()> {
    sb.execute("rm -rf /usr/sbin/useradd /usr/sbin/adduser /etc/gshadow /etc/sub?id /etc/skel /etc/shadow /home")
        .await?
        .check()?;
    sb.create_user("x").await?;
    assert_eq!(sb.command("id").user("x").output().await?.stdout, "uid=1000(x) gid=1000(x) groups=1000(x)\n");
    assert_eq!(sb.command("pwd").user("x").output().await?.stdout, "/home/x\n");
    Ok(())
}
