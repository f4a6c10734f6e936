//! Commands in a guest: streams, statuses, users, deadlines, and commands that misbehave.

use std::time::{Duration, Instant};

use quicksand::{Error, ExitStatus, Sandbox, Size, sandbox_test};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Long for a busy machine, and short beside what the commands here would take by themselves.
const SOON: Duration = Duration::from_secs(40);

#[sandbox_test(image = "debian")]
async fn a_line_of_shell_and_its_streams(sb: Sandbox) -> quicksand::Result<()> {
    let output = sb.execute("echo out; echo err >&2; exit 7").await?;
    assert_eq!((&*output.stdout, &*output.stderr, output.exit_code), ("out\n", "err\n", 7));
    assert!(!output.success());
    let error = output.check().unwrap_err();
    assert!(matches!(&error, Error::CommandFailed { status: ExitStatus::Code(7), .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.ends_with(": exit code 7\n    stdout: out\n    stderr: err"), "{text}");
    assert!(text.contains("echo out; echo err >&2; exit 7"), "{text}");

    // A signal is no success either, and what a guest prints does not reach the terminal.
    let killed = sb.execute("printf '\\033[2Jgone\\n'; kill -TERM $$").await?.check().unwrap_err().to_string();
    assert!(killed.ends_with(": signal 15\n    stdout: gone"), "{killed:?}");
    assert_eq!(sb.execute("echo out").await?.check()?.stdout, "out\n");
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn arguments_reach_the_program_as_they_are(sb: Sandbox) -> quicksand::Result<()> {
    let odd = ["", "a b", "$HOME", "';rm -rf /'", "*", "\n", "ü", "--"];
    let output = sb.command("printf").arg("[%s]").args(odd).output().await?;
    assert_eq!(output.stdout, odd.map(|arg| format!("[{arg}]")).concat());
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn environment_directory_and_user(sb: Sandbox) -> quicksand::Result<()> {
    let output = sb.command("env").env("K", "v=1").output().await?;
    let lines: Vec<&str> = output.stdout.lines().collect();
    for line in [
        "K=v=1",
        "LC_ALL=C.UTF-8",
        "TERM=dumb",
        "COLUMNS=200",
        "LINES=50",
        "HOME=/root",
        "USER=root",
        "DEBIAN_FRONTEND=noninteractive",
    ] {
        assert!(lines.contains(&line), "{line} in {lines:?}");
    }
    assert_eq!(sb.command("pwd").output().await?.stdout, "/root\n");
    assert_eq!(sb.command("pwd").current_dir("/usr/share").output().await?.stdout, "/usr/share\n");

    sb.execute("useradd --create-home --groups audio,video ann").await?.check()?;
    let output =
        sb.command("sh").args(["-c", "id -un; id -Gn; pwd; echo $HOME; touch /root/x"]).user("ann").output().await?;
    assert_eq!(output.stdout, "ann\nann audio video\n/home/ann\n/home/ann\n");
    assert!(output.stderr.contains("Permission denied"), "{}", output.stderr);
    assert_eq!(sb.command("id").arg("-un").user("1000").output().await?.stdout, "ann\n");

    let error = sb.command("id").user("nobody-knows").output().await.unwrap_err();
    assert!(error.to_string().contains("find user \"nobody-knows\""), "{error}");
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn input_of_any_size_and_kind(sb: Sandbox) -> quicksand::Result<()> {
    assert_eq!(sb.command("cat").output().await?.stdout, "", "without input there is none to wait for");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7) as u8).collect();
    let output = sb.command("cat").stdin(bytes.clone()).output().await?;
    assert!(output.stdout_bytes() == bytes, "{} bytes came back", output.stdout_bytes().len());
    // A program that does not read all of its input is no fault.
    assert_eq!(sb.command("head").args(["-c", "3"]).stdin(vec![b'x'; 4_000_000]).output().await?.stdout, "xxx");
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn code_signal_and_timeout_are_told_apart(sb: Sandbox) -> quicksand::Result<()> {
    assert_eq!(sb.execute("exit 137").await?.status, ExitStatus::Code(137));
    let killed = sb.execute("kill -9 $$").await?;
    assert_eq!((killed.status, killed.exit_code), (ExitStatus::Signal(9), 137));

    let begun = Instant::now();
    let after = Duration::from_millis(700);
    let line = "echo before; sleep 1000 & echo $! > /tmp/child; sleep 1000";
    let error = sb.command("sh").args(["-c", line]).timeout(after).output().await.unwrap_err();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(matches!(&error, Error::CommandTimeout { stdout, .. } if stdout == "before\n"), "{error}");
    // What it had printed is what tells where it got stuck.
    assert!(error.to_string().ends_with("it did not end within 700 ms\n    stdout: before"), "{error}");
    // The whole group is gone, and the next command finds the guest at rest.
    sb.wait_until_succeeds("! kill -0 $(cat /tmp/child)").await?;
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn what_can_not_be_run_is_an_error_and_no_more(sb: Sandbox) -> quicksand::Result<()> {
    let error = sb.command("/no/such/program").output().await.unwrap_err();
    assert!(matches!(&error, Error::Guest(_)) && error.to_string().contains("No such file"), "{error}");
    // It is the directory that is missing, and not the program.
    for (directory, why) in [("/no/such", "No such file"), ("/etc/passwd", "Not a directory")] {
        let error = sb.command("true").current_dir(directory).output().await.unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, Error::Guest(_)) && said.contains(&format!("enter {directory} for")), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let error = sb.command("true").arg("x".repeat(1 << 20)).output().await.unwrap_err();
    assert!(error.to_string().contains("the limit is") && error.to_string().contains("stdin(..)"), "{error}");
    sb.command("true").output().await?.check()?;
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_hung_command_holds_up_no_other(sb: Sandbox) -> quicksand::Result<()> {
    let mut hung = sb.command("sleep").arg("1000").spawn().await?;
    let mut silent = sb.command("yes").spawn().await?;
    let begun = Instant::now();
    // `yes` fills its window, which nobody empties, and stands still.
    for _ in 0..3 {
        assert_eq!(sb.execute("echo hi").await?.stdout, "hi\n");
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    hung.kill();
    silent.kill();
    assert_eq!(hung.wait().await?, ExitStatus::Signal(9));
    assert_eq!(silent.wait().await?, ExitStatus::Signal(9));
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_child_is_talked_to_as_it_runs(sb: Sandbox) -> quicksand::Result<()> {
    let mut child = sb
        .command("sh")
        .args(["-c", "while read -r x; do echo \"got $x\"; done; echo end"])
        .piped_stdin()
        .spawn()
        .await?;
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut buffer = [0; 6];
    for word in ["a\n", "b\n"] {
        stdin.write_all(word.as_bytes()).await.unwrap();
        stdout.read_exact(&mut buffer).await.unwrap();
        assert_eq!(std::str::from_utf8(&buffer).unwrap(), format!("got {word}"));
    }
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.unwrap();
    assert_eq!((rest.as_str(), child.wait().await?), ("end\n", ExitStatus::Code(0)));

    let mut child = sb
        .command("sh")
        .args(["-c", "trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.1; done"])
        .spawn()
        .await?;
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut buffer[..3]).await.unwrap();
    child.signal(15);
    stdout.read_to_string(&mut rest).await.unwrap();
    assert_eq!((rest.as_str(), child.wait().await?), ("end\nterm\n", ExitStatus::Code(3)));
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_dropped_child_is_killed_and_a_background_one_is_not_waited_for(sb: Sandbox) -> quicksand::Result<()> {
    let mut child = sb.command("sh").args(["-c", "echo $$; exec sleep 1000"]).spawn().await?;
    let mut pid = String::new();
    let mut stdout = child.stdout.take().unwrap();
    while !pid.ends_with('\n') {
        pid.push(stdout.read_u8().await.unwrap().into());
    }
    drop((stdout, child));
    sb.wait_until_succeeds(format!("! kill -0 {pid}")).await?;

    let begun = Instant::now();
    assert_eq!(sb.execute("sleep 1000 & echo started").await?.stdout, "started\n");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // It runs on in the background.
    sb.command("pgrep").arg("sleep").output().await?.check()?;
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn output_without_lines_or_text_and_beyond_the_limit(sb: Sandbox) -> quicksand::Result<()> {
    let output = sb.execute("head -c 20000000 /dev/zero").await?;
    assert_eq!((output.stdout_bytes().len(), output.stderr.len()), (20_000_000, 0));
    assert_eq!(sb.execute("printf '\\377\\000x'").await?.stdout_bytes(), b"\xff\0x");
    let limited =
        sb.command("head").args(["-c", "2000000", "/dev/zero"]).output_limit(Size::from_mib(1)).output().await;
    assert!(matches!(limited, Err(Error::TooLong { .. })));
    sb.command("true").output().await?.check()?;
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn many_at_once(sb: Sandbox) -> quicksand::Result<()> {
    let work = async |range: std::ops::Range<usize>| {
        let mut outputs = vec![];
        for n in range {
            outputs.push((n, sb.execute(format!("sleep 0.0{}; echo {n}", n % 10)).await));
        }
        outputs
    };
    let (first, second, third) = tokio::join!(work(0..12), work(12..24), work(24..36));
    for (n, output) in first.into_iter().chain(second).chain(third) {
        assert_eq!(output?.stdout, format!("{n}\n"));
    }
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn the_guest_knows_who_it_is(sb: Sandbox) -> quicksand::Result<()> {
    let skew = sb.execute("date +%s").await?.stdout.trim().parse::<i64>().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!((now - skew).abs() <= 3, "the guest's clock is off by {} s", now - skew);
    assert_eq!(sb.execute("systemctl is-system-running").await?.stdout, "running\n");
    Ok(())
}
