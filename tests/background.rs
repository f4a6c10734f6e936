//! Programs that outlive the command that started them: what they still print, and how a command is ended with all that belongs to it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use quicksand::{Error, ExitStatus, PortForward, Sandbox, sandbox_test};

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
    for run in 0..12 {
        sb.execute("rm -f /var/log/i.log").await?;
        let output = sb.command("bash").arg("/tmp/i.sh").output().await?;
        assert_eq!(output.exit_code, 3);
        let printed = &output.stdout;
        assert_eq!(printed.lines().count(), 26, "run {run}: {printed}");
        assert!(printed.ends_with("installation complete\n"), "run {run}: {printed}");
        assert_eq!(*printed, sb.execute("cat /var/log/i.log").await?.stdout, "run {run}");
    }
    // More than a pipe holds, through two filters.
    let much = "exec > >(sed s/^/x/ | sed s/^/y/); seq 200000";
    let output = sb.command("bash").args(["-c", much]).output().await?;
    assert_eq!(output.stdout.lines().count(), 200_000);
    assert!(output.stdout.ends_with("\nyx200000\n"));
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn what_is_left_behind_is_not_waited_for(sb: Sandbox) -> quicksand::Result<()> {
    for line in [
        "sleep 1000 & echo started",
        "true | sleep 1000 & echo started",
        "setsid sleep 1000 & echo started",
        "yes >&2 & echo started",
        "sh -c 'while :; do :; done' & echo started",
        TICKS,
    ] {
        let begun = Instant::now();
        let output = sb.execute(line).await?;
        assert!(output.success() && output.stdout.starts_with("started\n") || line == TICKS, "{line}: {output}");
        // It was there for a moment; nobody waited for its end, which does not come.
        assert!(begun.elapsed() < Duration::from_secs(60), "{line}: {:?}", begun.elapsed());
    }
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_program_in_the_background_lives_on(sb: Sandbox) -> quicksand::Result<()> {
    sb.execute(TICKS).await?;
    goes_on(&sb).await?;
    // In all that is made of its machine.
    sb.checkpoint("ticking").await?;
    let twin = sb.fork().await?;
    goes_on(&twin).await?;
    twin.stop().await?;
    sb.revert("ticking").await?;
    goes_on(&sb).await?;
    sb.execute("pkill -f ticks").await?;
    // On a terminal, which the program that began it has left.
    let mut terminal = sb.command("bash").args(["-c", &format!("trap '' HUP; {TICKS}")]).pty(24, 80).spawn().await?;
    assert_eq!(terminal.wait().await?, ExitStatus::Code(0));
    drop(terminal);
    goes_on(&sb).await
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
    sb.execute("cd /srv && perl /tmp/server.pl &").await?;
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
        sb.execute("pkill sleep; rm -f /tmp/up").await?;
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
async fn a_killed_program_dies_of_the_kill(sb: Sandbox) -> quicksand::Result<()> {
    // One that writes without end, and one that reads until its input ends: neither finds that out before it is killed.
    for line in ["yes", "cat", "seq 10000000; cat"] {
        let mut child = sb.command("sh").args(["-c", line]).piped_stdin().spawn().await?;
        child.kill();
        assert_eq!(child.wait().await?, ExitStatus::Signal(9), "{line}");
    }
    Ok(())
}
