//! Programs on a terminal: prompts, keys, sizes, whole screens, and programs that end or say nothing.

use std::time::{Duration, Instant};

use quicksand::{Error, ExitStatus, Sandbox, sandbox_test};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHORT: Duration = Duration::from_secs(2);

#[sandbox_test(image = "debian")]
async fn an_interactive_program_is_answered(sb: Sandbox) -> quicksand::Result<()> {
    // It reads the password from /dev/tty, with the echo off.
    let mut terminal = sb.command("adduser").arg("ann").pty(24, 80).spawn().await?;
    for prompt in ["New password: $", "Retype new password: $"] {
        terminal.wait_for(prompt).await?;
        terminal.send_line("correct horse").await?;
    }
    terminal.wait_for(r"Full Name \[\]: $").await?;
    terminal.send_line("Ann \u{c4}nders").await?;
    for field in ["Room Number", "Work Phone", "Home Phone", "Other"] {
        terminal.wait_for(field).await?;
        terminal.send_line("").await?;
    }
    let asked = terminal.wait_for(r"(?i)is the information correct\? \[(Y)/(n)\]").await?;
    assert_eq!(asked.groups, ["Y", "n"]);
    assert!(!terminal.screen().contains("correct horse"), "{}", terminal.screen());
    terminal.send_line("y").await?;
    assert_eq!(terminal.wait().await?, ExitStatus::Code(0));

    let entry = sb.execute("grep ^ann: /etc/passwd; grep ^ann: /etc/shadow").await?.stdout;
    assert!(entry.contains("Ann \u{c4}nders") && entry.contains("ann:$y$"), "{entry}");
    // The password is the one that was typed.
    let mut terminal =
        sb.command("su").args(["-c", "echo I am $USER", "ann"]).user("nobody").pty(24, 80).spawn().await?;
    terminal.wait_for("Password: ").await?;
    terminal.send_line("correct horse").await?;
    terminal.wait_for("I am ann\n").await?;
    assert!(terminal.wait().await?.success());
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_shell_has_a_size_jobs_and_keys(sb: Sandbox) -> quicksand::Result<()> {
    let mut shell = sb.command("bash").arg("--norc").env("PS1", "READY ").pty(30, 100).spawn().await?;
    shell.wait_for("READY $").await?;
    shell.send_line("stty size; echo $TERM; test -t 0 -a -t 1 -a -t 2 && tty").await?;
    shell.wait_for(r"30 100\nxterm-256color\n/dev/pts/\d+\n").await?;
    shell.resize(50, 120)?;
    shell.send_line("stty size").await?;
    shell.wait_for("\n50 120\n").await?;

    // A key that sends a signal reaches the job in the foreground, and the shell lives on.
    shell.wait_for("READY $").await?;
    shell.send_line("trap : INT; sleep 1000").await?;
    shell.wait_for("sleep 1000\n").await?;
    sb.wait_until_succeeds("pgrep -fx 'sleep 1000'").await?;
    shell.send("\x03").await?;
    shell.wait_for("READY $").await?;
    shell.send_line("echo code $?").await?;
    shell.wait_for("\ncode 130\n").await?;

    // What stands before a find is what a command printed.
    shell.wait_for("READY $").await?;
    shell.send_line("seq 3; printf 'done\\n'").await?;
    shell.wait_for("seq.*\n").await?;
    assert_eq!(shell.wait_for("done\n").await?.before, "1\n2\n3\n");
    shell.wait_for("READY $").await?;
    shell.send("\x04").await?;
    assert_eq!(shell.wait().await?, ExitStatus::Code(0));
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_shell_controls_its_jobs(sb: Sandbox) -> quicksand::Result<()> {
    let mut shell = sb.command("bash").args(["--norc", "-i"]).env("PS1", "READY ").pty(30, 100).spawn().await?;
    shell.wait_for("READY $").await?;
    // It leads its group, and that is the one of the foreground.
    shell.send_line("ps -o pid=,pgid=,tpgid= -p $$ | awk '{ print \"is\", $1 == $2 }'").await?;
    shell.wait_for("\nis 1\n").await?;
    shell.wait_for("READY $").await?;
    shell.send_line("sleep 1001").await?;
    sb.wait_until_succeeds("pgrep -fx 'sleep 1001'").await?;
    shell.send("\x1a").await?;
    shell.wait_for(r"Stopped +sleep 1001\n").await?;
    sb.wait_until_succeeds("ps -C sleep -o stat= | grep -q T").await?;
    shell.wait_for("READY $").await?;
    shell.send_line("fg").await?;
    sb.wait_until_succeeds("ps -C sleep -o stat= | grep -q 'S+'").await?;
    shell.send("\x03").await?;
    shell.wait_for("READY $").await?;
    shell.send_line("tty; exit 3").await?;
    shell.wait_for(r"\n/dev/pts/\d+\n").await?;
    assert_eq!(shell.wait().await?, ExitStatus::Code(3));
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_program_leads_its_group_and_dies_of_what_it_is_sent(sb: Sandbox) -> quicksand::Result<()> {
    for (line, expected) in [
        ("exit 7", ExitStatus::Code(7)),
        ("kill -9 $$", ExitStatus::Signal(9)),
        ("kill -40 $$", ExitStatus::Signal(40)),
        // Its group, as scripts end what they have started.
        ("sleep 1002 & kill -- -$$", ExitStatus::Signal(15)),
        ("sleep 1002 & kill -9 0", ExitStatus::Signal(9)),
        // Nobody could continue it, so the key that stops does not.
        ("kill -TSTP 0; exit 5", ExitStatus::Code(5)),
        ("trap 'exit 6' HUP; kill -HUP 0", ExitStatus::Code(6)),
    ] {
        let mut terminal = sb.command("bash").args(["-c", line]).pty(24, 80).spawn().await?;
        assert_eq!(terminal.wait().await?, expected, "{line}");
    }
    for (keys, expected) in [("\x03", ExitStatus::Signal(2)), ("\x1c", ExitStatus::Signal(3))] {
        let mut terminal = sb.command("sleep").arg("1003").pty(24, 80).spawn().await?;
        sb.wait_until_succeeds("pgrep -fx 'sleep 1003'").await?;
        terminal.send("\x1a").await?;
        terminal.send(keys).await?;
        assert_eq!(terminal.wait().await?, expected);
    }
    // What it is left in, and what it left open, is busy no longer than the program is there.
    sb.execute("mkdir /mnt/t && mount -t tmpfs t /mnt/t").await?.check()?;
    let mut terminal =
        sb.command("sh").args(["-c", "cd /; umount /mnt/t"]).current_dir("/mnt/t").pty(24, 80).spawn().await?;
    assert_eq!(terminal.wait().await?, ExitStatus::Code(0), "{}", terminal.screen());
    sb.wait_until_succeeds("! pgrep -x sleep && test $(pgrep -fc '^@quicksand-agent') = 1").await?;
    let mut terminal = sb.command("true").current_dir("/no/such").pty(24, 80).spawn().await?;
    let error = terminal.wait().await.unwrap_err();
    assert!(error.to_string().contains("/no/such"), "{error}");
    sb.wait_until_succeeds("test $(pgrep -fc '^@quicksand-agent') = 1").await.map(drop)
}

#[sandbox_test(image = "debian")]
async fn a_program_that_paints_the_whole_screen_is_seen(sb: Sandbox) -> quicksand::Result<()> {
    let mut top = sb.command("top").args(["-d", "1"]).pty(24, 80).spawn().await?;
    let screen = top.wait_for_screen(r"(?s)load average.*PID USER.*systemd").await?;
    assert!(screen.lines().count() <= 24 && screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    assert!(screen.starts_with("top - "), "{screen}");
    top.send("q").await?;
    assert!(top.wait().await?.success());
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn what_does_not_come_is_an_error_that_shows_the_screen(sb: Sandbox) -> quicksand::Result<()> {
    let mut terminal = sb
        .command("sh")
        .args(["-c", "printf '\\033[31mone\\033[0m\\ntwo? '; read x; exit 3"])
        .pty(24, 80)
        .spawn()
        .await?;
    let error = terminal.wait_for("three").timeout(SHORT).await.unwrap_err();
    assert!(matches!(&error, Error::WaitTimeout { seen, .. } if seen == "one\ntwo?"), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("wait for \"three\" on the terminal of sh -c") && text.ends_with("one\n    two?"),
        "{text}"
    );
    let error = terminal.wait().timeout(SHORT).await.unwrap_err();
    assert!(matches!(error, Error::WaitTimeout { .. }), "{error:?}");
    // Nothing was taken by the waits that failed.
    terminal.wait_for("one\n").await?;
    terminal.send_line("").await?;
    let error = terminal.wait_for("three").await.unwrap_err();
    let expected = |seen: &str| seen.starts_with("one\ntwo?");
    assert!(
        matches!(&error, Error::TerminalEnded { status: ExitStatus::Code(3), seen, .. } if expected(seen)),
        "{error:?}"
    );
    assert!(matches!(terminal.send_line("x").await, Err(Error::TerminalEnded { .. })));

    let mut terminal = sb.command("/no/such/program").pty(24, 80).spawn().await?;
    let error = terminal.wait_for("x").await.unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
    assert!(matches!(sb.command("true").pty(0, 80).spawn().await, Err(Error::BadOption { option: "pty", .. })));
    let mut terminal = sb.command("true").pty(24, 80).spawn().await?;
    assert!(matches!(terminal.wait_for("(").await, Err(Error::BadPattern { .. })));
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn its_bytes_go_through_as_they_are(sb: Sandbox) -> quicksand::Result<()> {
    let mut child = sb.command("cat").pty(24, 80).spawn().await?.into_child();
    let (mut keys, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    keys.write_all(b"\x1b[1mab\r").await.unwrap();
    let mut echo = [0; 17];
    output.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"^[[1mab\r\n\x1b[1mab\r\n");
    // The end of what is typed is the end of a file.
    drop(keys);
    assert_eq!(child.wait().await?, ExitStatus::Code(0));
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn much_is_typed_and_printed(sb: Sandbox) -> quicksand::Result<()> {
    let mut terminal = sb
        .command("sh")
        .args(["-c", "stty -icanon; echo ready; head -c 1500000 | wc -c; echo end"])
        .pty(24, 80)
        .spawn()
        .await?;
    terminal.wait_for("ready\n").await?;
    // The echo alone is more than what may be under way.
    terminal.send("a".repeat(1_500_000)).await?;
    // The last of the echo comes late, among what the program prints.
    terminal.wait_for("1500000\n").await?;
    terminal.wait_for("end\n").await?;
    assert!(terminal.wait().await?.success());
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn nothing_of_it_stays(sb: Sandbox) -> quicksand::Result<()> {
    let mut shell = sb.command("bash").pty(24, 80).spawn().await?;
    shell.wait_for(r"# $").await?;
    // A job of a shell has a process group of its own.
    shell.send_line("sleep 4242 & sleep 4243").await?;
    sb.wait_until_succeeds("pgrep -f 'sleep 424[2]' && pgrep -f 'sleep 424[3]'").await?;
    drop(shell);
    sb.wait_until_succeeds("! pgrep -f 'sleep 424[23]'").await?;
    sb.wait_until_succeeds("test -z \"$(ls /dev/pts | grep -v ptmx)\"").await?;
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_program_that_writes_without_end_holds_up_no_deadline(sb: Sandbox) -> quicksand::Result<()> {
    let mut terminal = sb.command("yes").pty(24, 80).spawn().await?;
    let begun = Instant::now();
    let error = terminal.wait_for("never").timeout(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, Error::WaitTimeout { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    Ok(())
}
