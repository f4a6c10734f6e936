//! Programs that outlive the command that started them: what they still print, and how a command is ended with all that belongs to it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use quicksand::{Error, ExitStatus, PortForward, Sandbox, sandbox_test};
use tokio::io::AsyncReadExt;

/// A script whose own output goes through a filter, as many installers have it.
const INSTALLER: &str = r#"#!/bin/bash
exec > >(while IFS= read -r l; do printf '%s %s\n' "$(date +%T)" "$l"; done | tee -a /var/log/i.log) 2>&1
for i in $(seq 25); do echo "step $i"; done
echo "installation complete"
exit 3
"#;

/// Tells each time that it is still there, on its output and in a file.
const TICKS: &str = "(i=0; while :; do i=$((i+1)); echo tick $i; echo $i >/tmp/ticks; sleep 0.1; done) & echo started";

/// Waits until the program of [`TICKS`] has come further than it is now.
async fn goes_on(sb: &Sandbox) -> quicksand::Result<()> {
    let now = sb.execute("cat /tmp/ticks").await?.stdout.trim().parse::<u64>().unwrap_or(0);
    sb.wait_until_succeeds(format!("test $(cat /tmp/ticks) -gt {}", now + 5)).await.map(drop)
}

#[sandbox_test(image = "debian")]
async fn the_end_of_a_filtered_log_is_there(sb: Sandbox) -> quicksand::Result<()> {
    sb.write_file("/tmp/i.sh", INSTALLER).await?;
    for run in 0..20 {
        sb.execute("rm -f /var/log/i.log").await?.check()?;
        let output = sb.command("bash").arg("/tmp/i.sh").output().await?;
        assert_eq!(output.exit_code, 3);
        let printed = &output.stdout;
        assert_eq!(printed.lines().count(), 26, "run {run}: {printed}");
        assert!(printed.ends_with("installation complete\n"), "run {run}: {printed}");
        assert_eq!(*printed, sb.execute("cat /var/log/i.log").await?.stdout, "run {run}");
    }
    // As a stream.
    let mut child = sb.command("bash").arg("/tmp/i.sh").spawn().await?;
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).await.unwrap();
    assert_eq!(printed.lines().count(), 26, "{printed}");
    assert_eq!(child.wait().await?, ExitStatus::Code(3));
    // More than a pipe holds, through two filters.
    let much = "exec > >(sed s/^/x/ | sed s/^/y/); seq 200000";
    let output = sb.command("bash").args(["-c", much]).output().await?;
    assert_eq!(output.stdout.lines().count(), 200_000);
    assert!(output.stdout.ends_with("\nyx200000\n"));
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn the_end_of_a_filtered_log_is_there_on_a_terminal(sb: Sandbox) -> quicksand::Result<()> {
    let all: String = (1..=2000).map(|number| format!("step {number}\n")).collect();
    for filter in
        ["tee /tmp/log", "tee /tmp/log >/dev/tty", "while IFS= read -r l; do echo \"$l\"; done | tee /tmp/log"]
    {
        let line = format!("exec > >({filter}) 2>&1; seq -f 'step %.0f' 2000; exit 3");
        for run in 0..10 {
            sb.execute("rm -f /tmp/log").await?.check()?;
            let mut child = sb.command("bash").args(["-c", &line]).pty(24, 80).spawn().await?.into_child();
            let mut printed = String::new();
            child.stdout.take().unwrap().read_to_string(&mut printed).await.unwrap();
            assert!(printed.replace("\r\n", "\n") == all, "{filter}, run {run}: {printed}");
            assert_eq!(child.wait().await?, ExitStatus::Code(3), "{filter}");
            assert!(sb.execute("cat /tmp/log").await?.stdout == all, "{filter}, run {run}");
        }
    }
    // One that takes its time, and one that is none.
    for (line, expected) in [
        ("exec > >(while read -r l; do sleep 0.4; echo $l; done); seq 5", "1\n2\n3\n4\n5\n"),
        ("exec > >(sleep 1; cat); echo one", "one\n"),
        ("sleep 1000 & (sleep 1000 &); echo one", "one\n"),
    ] {
        let begun = Instant::now();
        let mut terminal = sb.command("bash").args(["-c", line]).pty(24, 80).spawn().await?;
        assert_eq!(terminal.wait().await?, ExitStatus::Code(0), "{line}");
        assert_eq!(terminal.wait_for(r"\z").await?.before, expected, "{line}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{line}: {:?}", begun.elapsed());
    }
    // Then the terminal is hung up, as ever, and nothing of ours stays.
    sb.wait_until_succeeds("! pgrep -x sleep && test $(pgrep -fc '^@quicksand-agent') = 1").await.map(drop)
}

#[sandbox_test(image = "debian")]
async fn a_filter_that_takes_its_time_is_waited_for(sb: Sandbox) -> quicksand::Result<()> {
    for (line, last) in [
        ("exec > >(while read -r l; do sleep 0.4; echo $l; done); seq 7", "7"),
        ("exec > >(while read -r l; do sleep 1.6; echo $l; done); seq 2", "2"),
        ("exec > >(sleep 1; cat); echo one", "one"),
        ("exec > >(sleep 0.5; sort -rn; sleep 0.5; echo end); seq 50000", "end"),
        ("exec > >(gzip -9 | base64 -w0 | wc -c; echo end); seq 300000", "end"),
        // A pipe with a name, as scripts for any shell have it.
        ("mkfifo /tmp/p; while read -r l; do sleep 0.3; echo $l; done </tmp/p & exec >/tmp/p; seq 7", "7"),
        // The filter's input stays open, as what runs in the background may write there.
        ("exec > >(while read -r l; do sleep 0.2; echo $l; done | tee /tmp/log); sleep 1000 & seq 7", "7"),
    ] {
        let output = sb.command("bash").args(["-c", line]).output().await?;
        assert_eq!(output.stdout.lines().last(), Some(last), "{line}: {output}");
    }
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn what_is_left_behind_is_not_waited_for(sb: Sandbox) -> quicksand::Result<()> {
    let ticks = "while :; do echo tick; sleep 0.1; done";
    let of_its_input = format!("{{ {ticks}; }} <&0 & echo started");
    let of_a_document = format!("{{ {ticks}; }} <<END & echo started\nyes\nEND");
    for line in [
        "sleep 1000 & echo started",
        "true | sleep 1000 & echo started",
        "echo yes | sleep 1000 & echo started",
        "setsid sleep 1000 & echo started",
        "nohup sleep 1000 & echo started",
        "(sleep 1000 &); echo started",
        "coproc sleep 1000; echo started",
        "tail -f /dev/null | grep x & echo started",
        "yes >&2 & echo started",
        "yes | cat -n >&2 & echo started",
        "sh -c 'while :; do :; done' & echo started",
        // A filter of what does not come here.
        "sleep 1000 & true | sh -c 'while :; do :; done' >/dev/null 2>&1 & echo started",
        &of_its_input,
        &of_a_document,
        TICKS,
    ] {
        let begun = Instant::now();
        let output = sb.command("bash").args(["-c", line]).stdin("an answer\n").output().await?;
        assert!(output.success() && output.stdout.contains("started\n"), "{line}: {output}");
        // It was there for a moment; nobody waited for its end, which does not come.
        assert!(begun.elapsed() < Duration::from_secs(20), "{line}: {:?}", begun.elapsed());
        // What works without end is not to hold up the next.
        let _ = sb.command("pkill").args(["-9", "-f", "^(bash|sh|yes|cat|sleep|tail|grep) ?"]).output().await?;
    }
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_flood_from_the_background_leaves_the_processor_to_others(sb: Sandbox) -> quicksand::Result<()> {
    sb.execute("yes & yes | cat & echo started").await?.check()?;
    let twin = sb.fork().await?;
    // Of a second of the clock, what all of them had of the processor, in hundredths.
    let measure =
        "t() { cat $(pgrep -x 'yes|cat' | sed 's|.*|/proc/&/stat|') | awk '{ s += $14 + $15 } END { print s }'; }
                   a=$(t); sleep 5; echo $((($(t) - a) / 5))";
    for sb in [&sb, &twin] {
        let line = format!("test \"$({measure})\" -lt 30");
        sb.wait_until_succeeds(line).timeout(Duration::from_secs(90)).await?;
        assert_eq!(sb.execute("pgrep -xc 'yes|cat'").await?.stdout, "3\n", "none was killed");
    }
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_program_in_the_background_lives_on(sb: Sandbox) -> quicksand::Result<()> {
    sb.execute(TICKS).await?.check()?;
    goes_on(&sb).await?;
    // In all that is made of its machine.
    sb.checkpoint("ticking").await?;
    let twin = sb.fork().await?;
    goes_on(&twin).await?;
    twin.stop().await?;
    sb.revert("ticking").await?;
    goes_on(&sb).await?;
    let _ = sb.execute("pkill -f ticks").await?;
    // On a terminal, which the program that began it has left.
    let mut terminal = sb.command("bash").args(["-c", &format!("trap '' HUP; {TICKS}")]).pty(24, 80).spawn().await?;
    assert_eq!(terminal.wait().await?, ExitStatus::Code(0));
    drop(terminal);
    goes_on(&sb).await
}

#[tokio::test]
async fn a_program_in_the_background_lives_on_in_a_save() -> quicksand::Result<()> {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let first = Sandbox::builder("debian").saves_dir(saves.path()).save("ticking").start().await?;
    first.execute(TICKS).await?.check()?;
    goes_on(&first).await?;
    first.stop().await?;
    let second = Sandbox::builder("ticking").saves_dir(saves.path()).start().await?;
    goes_on(&second).await?;
    second.checkpoint("x").await?;
    goes_on(&second).await?;
    second.revert("x").await?;
    goes_on(&second).await
}

#[sandbox_test(image = "debian")]
async fn a_server_in_the_background_serves(sb: Sandbox) -> quicksand::Result<()> {
    let server = r#"
use IO::Socket::INET;
my $s = IO::Socket::INET->new(Listen => 5, LocalPort => 8080, ReuseAddr => 1) or die;
$| = 1;
while (my $c = $s->accept) {
    my $l = <$c>;
    print STDERR "access: $l";
    print $c "HTTP/1.0 200 OK\r\n\r\nhi\n";
    close $c;
}
"#;
    sb.write_file("/tmp/server.pl", server).await?;
    sb.execute("cd /srv && perl /tmp/server.pl &").await?.check()?;
    sb.wait_for_port(8080).await?;
    for _ in 0..3 {
        let page = sb.execute("curl --no-progress-meter http://127.0.0.1:8080/f").await?;
        assert_eq!(page.stdout, "hi\n", "{page}");
    }
    let forward = sb.forward_port(PortForward::new(0, 8080)).await?;
    let mut connection = TcpStream::connect(("127.0.0.1", forward.host())).expect("the port is forwarded");
    connection.write_all(b"GET /f HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    connection.read_to_string(&mut page).unwrap();
    assert!(page.ends_with("hi\n"), "{page:?}");
    Ok(())
}

/// What leaves its process group, its terminal and its parent, but belongs to the command all the same; and one that left on purpose.
const SPREAD: &str = "set -m; sleep 1001 & set +m; timeout 1002 sleep 1003 & (setsid sleep 1004 &) ; \
                      script -qc 'sleep 1005' /dev/null & ";

async fn sleepers(sb: &Sandbox) -> quicksand::Result<String> {
    Ok(sb.execute("pgrep -a 'sleep|timeout|script' | cut -d' ' -f2- | sort").await?.stdout)
}

#[sandbox_test(image = "debian")]
async fn a_command_is_ended_as_a_whole(sb: Sandbox) -> quicksand::Result<()> {
    let line = format!("{SPREAD} touch /tmp/up; wait");
    let spread = || sb.command("bash").args(["-c", &line]);
    let error = spread().timeout(Duration::from_secs(3)).output().await.unwrap_err();
    assert!(matches!(error, Error::CommandTimeout { .. }), "{error}");
    assert_eq!(sleepers(&sb).await?, "sleep 1004\n");

    for (way, pty) in [("dropped", false), ("killed", false), ("dropped", true), ("killed", true)] {
        sb.execute("pkill sleep; rm -f /tmp/up").await?.check()?;
        let mut child = if pty { spread().pty(24, 80).spawn().await?.into_child() } else { spread().spawn().await? };
        sb.wait_for_file("/tmp/up").await?;
        sb.wait_until_succeeds("pgrep -f 'sleep 1005' && pgrep -f 'sleep 1003'").await?;
        if way == "killed" {
            child.kill();
            let status = child.wait().await?;
            assert_eq!(status, ExitStatus::Signal(9), "{pty}");
            assert_eq!(sleepers(&sb).await?, "sleep 1004\n", "{way} {pty}");
        }
        drop(child);
        sb.wait_until_succeeds("test \"$(pgrep -a 'sleep|timeout|script' | cut -d' ' -f2- | sort)\" = 'sleep 1004'")
            .await?;
    }
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn what_forks_all_the_time_is_ended_all_the_same(sb: Sandbox) -> quicksand::Result<()> {
    // Each process starts the next one and ends; in a group of its own.
    let line = "set -m; perl -e 'while (1) { exit if fork }' & touch /tmp/up; sleep 1000";
    for _ in 0..5 {
        let child = sb.command("bash").args(["-c", line]).spawn().await?;
        sb.wait_until_succeeds("test -e /tmp/up && pgrep -x perl").await?;
        drop(child);
        sb.wait_until_succeeds("! pgrep -x 'sleep|bash'").await?;
        // Those that have ended may wait for init to take note of it.
        sb.wait_until_succeeds("! ps -C perl -o stat= | grep -v Z").timeout(Duration::from_secs(20)).await?;
        sb.execute("rm /tmp/up").await?.check()?;
    }
    Ok(())
}

#[sandbox_test(image = "debian", network = "full", timeout = "10m")]
async fn what_sudo_started_ends_with_the_command(sb: Sandbox) -> quicksand::Result<()> {
    let install = sb.command("sh").args(["-c", "apt-get update && apt-get install -y sudo"]);
    install.timeout(Duration::from_secs(400)).output().await?.check()?;
    let line = "sudo sleep 1006 & sudo script -qc 'sleep 1007' /dev/null & touch /tmp/up; wait";
    let child = sb.command("bash").args(["-c", line]).spawn().await?;
    sb.wait_until_succeeds("pgrep -f '^sleep 1006' && pgrep -f '^sleep 1007'").await?;
    drop(child);
    sb.wait_until_succeeds("! pgrep -a 'sudo|sleep|script'").await.map(drop)
}

#[sandbox_test(image = "debian")]
async fn a_killed_program_dies_of_the_kill(sb: Sandbox) -> quicksand::Result<()> {
    // One that writes without end, and one that reads until its input ends: neither finds that out before it is killed.
    for line in ["yes", "cat", "seq 10000000; cat"] {
        let mut child = sb.command("sh").args(["-c", line]).piped_stdin().spawn().await?;
        child.kill();
        assert_eq!(child.wait().await?, ExitStatus::Signal(9), "{line}");
    }
    Ok(())
}
