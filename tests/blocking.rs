//! The sandbox whose methods block, in tests that are plain functions and in programs without a runtime.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use quicksand::{Error, ExitStatus, Sandbox, StartKind, blocking, sandbox_setup, sandbox_test};

#[sandbox_test(image = "debian")]
fn a_plain_function_gets_it(sb: blocking::Sandbox) -> quicksand::Result<()> {
    assert_eq!(sb.execute("uname -s")?.stdout, "Linux\n");
    let out = sb.command("sh").args(["-c", "cat; echo $K"]).env("K", "v").stdin("in ").output()?;
    assert_eq!(out.stdout, "in v\n");
    assert_eq!(sb.execute("cat /etc/no-such-file || echo none")?.check()?.stdout, "none\n");
    assert!(matches!(sb.execute("exit 3")?.check(), Err(Error::CommandFailed { .. })));
    sb.write_file("/root/x", "content")?;
    assert_eq!(sb.read_file("/root/x")?, b"content");

    let mut child = sb.command("cat").piped_stdin().spawn()?;
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(b"line\n").unwrap();
    let mut line = [0; 5];
    stdout.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"line\n");
    drop(stdin);
    assert_eq!(child.wait()?, ExitStatus::Code(0));

    let mut terminal = sb.command("sh").args(["-c", "read x; echo got $x"]).pty(24, 80).spawn()?;
    terminal.send_line("typed")?;
    assert_eq!(terminal.wait_for(r"got (\w+)").done()?.groups, ["typed"]);
    assert!(terminal.wait().done()?.success());

    let error = sb.wait_for_port(7).timeout(Duration::from_millis(300)).done().unwrap_err();
    assert!(matches!(error, Error::WaitTimeout { .. }), "{error}");
    sb.wait_for_unit("dbus").done()
}

async fn marked(sb: &Sandbox) -> quicksand::Result<()> {
    sb.write_file("/etc/mark", "made once\n").await
}

#[sandbox_test(image = "debian", save = "marked-for-blocking", setup = marked)]
fn its_save_may_be_made_by_an_async_setup(sb: blocking::Sandbox) {
    assert_eq!(sb.read_file("/etc/mark").unwrap(), b"made once\n");
}

#[sandbox_setup(image = "debian", save = "made-by-blocking")]
fn registered(sb: &blocking::Sandbox) -> quicksand::Result<()> {
    sb.write_file("/etc/mark", "by a plain function\n")
}

#[sandbox_test(save = "made-by-blocking")]
fn a_setup_may_be_a_plain_function(sb: blocking::Sandbox) {
    assert_eq!(sb.read_file("/etc/mark").unwrap(), b"by a plain function\n");
}

fn named(sb: &blocking::Sandbox) {
    std::thread::scope(|scope| {
        scope.spawn(|| sb.write_file("/etc/mark", "by a named function\n").unwrap());
    });
}

#[sandbox_test(image = "debian", save = "named-and-blocking", setup = named, flavor = "current_thread")]
async fn a_plain_setup_may_be_named(sb: Sandbox) {
    assert_eq!(sb.read_file("/etc/mark").await.unwrap(), b"by a named function\n");
}

#[sandbox_setup(image = "debian", save = "too-slow-and-blocking", timeout = "1s")]
fn too_slow(sb: &blocking::Sandbox) {
    let _ = sb.command("sleep").arg("600").output();
}

#[sandbox_test(save = "too-slow-and-blocking")]
#[should_panic(expected = "it took longer than 1s")]
fn a_plain_setup_has_its_time(_sb: blocking::Sandbox) {}

#[sandbox_setup(image = "debian", save = "panics-and-blocks")]
fn panics(sb: &blocking::Sandbox) -> quicksand::Result<()> {
    assert_eq!(sb.execute("true")?.exit_code, 7, "the words of a panic");
    Ok(())
}

#[sandbox_test(save = "panics-and-blocks")]
#[should_panic(expected = "it panicked: assertion `left == right` failed: the words of a panic")]
fn a_plain_setup_may_fail(_sb: blocking::Sandbox) {}

#[sandbox_test(image = "debian", timeout = "700ms")]
#[should_panic(expected = "the test's body took longer than 700ms")]
fn a_plain_function_has_its_time(sb: blocking::Sandbox) {
    let _ = sb.command("sleep").arg("60").output().unwrap();
}

/// In a program of its own, without any runtime: threads share one sandbox.
#[test]
fn threads_share_a_sandbox_without_a_runtime() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sb = blocking::Sandbox::builder("debian").saves_dir(directory.path()).start().unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let work = |n: usize| sb.execute(format!("sleep 1; echo {n}")).unwrap().stdout;
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || work(n))).collect();
        for (n, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), format!("{n}\n"));
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());

    // What puts another machine in the place of the first.
    sb.checkpoint("before").unwrap();
    sb.execute("echo later > /root/later").unwrap().check().unwrap();
    let twin = sb.fork().unwrap();
    sb.revert("before").unwrap();
    assert_eq!(sb.execute("ls /root").unwrap().stdout, "");
    assert_eq!(twin.execute("ls /root").unwrap().stdout, "later\n");

    twin.save("kept").unwrap();
    drop((sb, twin));
    let sb = blocking::Sandbox::builder("kept").saves_dir(directory.path()).start().unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
    assert_eq!(sb.execute("cat /root/later").unwrap().stdout, "later\n");
    sb.stop().unwrap();
    assert!(!sb.is_running());
    assert!(matches!(sb.execute("true"), Err(Error::NotRunning)));
}
