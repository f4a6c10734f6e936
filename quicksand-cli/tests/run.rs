//! `quicksand run` and its neighbours, as a shell runs them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

fn quicksand(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quicksand"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    quicksand(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(command: &[&str]) -> Output {
    output(&[&["run", "debian", "--quiet", "--"], command].concat())
}

#[test]
fn streams_and_codes_are_the_commands_own() {
    let said = run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((text(&said.stdout), text(&said.stderr), said.status.code()), ("out\n".into(), "err\n".into(), Some(7)));
    assert_eq!(run(&["sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    let missing = run(&["no-such-program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(text(&missing.stderr).contains("no-such-program"), "{}", text(&missing.stderr));

    let arguments =
        ["run", "debian", "-q", "-e", "A=b c", "-u", "nobody", "-C", "/usr", "--", "sh", "-c", "echo $A; id -un; pwd"];
    assert_eq!(text(&output(&arguments).stdout), "b c\nnobody\n/usr\n");
}

#[test]
fn the_end_of_a_filtered_log_is_there() {
    let line =
        "exec > >(while IFS= read -r l; do printf '%s %s\\n' \"$(date +%T)\" \"$l\"; done | tee -a /var/log/i.log) 2>&1
                for i in $(seq 25); do echo step $i; done; echo installation complete; exit 3";
    for _ in 0..3 {
        let said = output(&["run", "debian", "--quiet", "--", "bash", "-c", line]);
        let printed = text(&said.stdout);
        assert_eq!((printed.lines().count(), said.status.code()), (26, Some(3)), "{printed}");
        assert!(printed.ends_with(" installation complete\n"), "{printed}");
    }
    // On a terminal, where the lines end as there.
    for _ in 0..3 {
        let said = output(&["shell", "debian", "--quiet", "--", "bash", "-c", line]);
        let printed = text(&said.stdout);
        assert_eq!((printed.lines().count(), said.status.code()), (26, Some(3)), "{printed}");
        assert!(printed.ends_with(" installation complete\r\n"), "{printed}");
    }
}

#[test]
fn input_goes_in_and_may_be_left_unread() {
    let mut child = quicksand(&["run", "debian", "-q", "--", "sha256sum"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = (0..2_000_000u32).map(|n| (n * 7) as u8).collect();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let said = text(&child.wait_with_output().unwrap().stdout);
    let mut sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    sum.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert_eq!(said, text(&sum.wait_with_output().unwrap().stdout));

    // Its standard input stays open, as a terminal's does: the command's end is the end of it.
    let begun = Instant::now();
    let mut child = quicksand(&["run", "debian", "-q", "--", "true"]).stdin(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take();
    assert!(child.wait().unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(60));
    drop(stdin);
}

#[test]
fn a_reader_that_has_enough_ends_nothing_badly() {
    let mut child = quicksand(&["run", "debian", "-q", "--", "seq", "200000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let said = child.wait_with_output().unwrap();
    assert_eq!((&first, said.status.code(), text(&said.stderr)), (b"1\n2\n", Some(0), String::new()));
}

#[test]
fn what_writes_on_for_a_reader_that_has_gone_is_ended() {
    let by_its_signal = "quicksand run debian -q -- yes | head -n 1; echo ${PIPESTATUS[0]}";
    let stubborn = "quicksand run debian -q -- sh -c 'trap \"\" PIPE; exec yes' | head -n 1; echo ${PIPESTATUS[0]}";
    for (line, code) in [(by_its_signal, "141"), (stubborn, "137")] {
        let line = line.replace("quicksand", env!("CARGO_BIN_EXE_quicksand"));
        let said = Command::new("timeout").args(["60", "bash", "-c", &line]).output().unwrap();
        assert_eq!(text(&said.stdout), format!("y\n{code}\n"), "{}", text(&said.stderr));
    }
}

#[test]
fn what_keeps_it_from_running_has_a_code_and_a_hint() {
    let unknown = output(&["run", "no-such-image", "--", "true"]);
    assert_eq!(unknown.status.code(), Some(125));
    let said = text(&unknown.stderr);
    assert!(said.starts_with("quicksand: failed to find \"no-such-image\"") && said.contains("\n  hint: "), "{said}");
    assert_eq!(output(&["run", "debian"]).status.code(), Some(2));
    let late = output(&["run", "debian", "-q", "--timeout", "1s", "--", "sleep", "1000"]);
    assert_eq!(late.status.code(), Some(124), "{}", text(&late.stderr));
}

#[test]
fn a_running_machine_is_listed_and_a_signal_reaches_its_command() {
    let script = "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.1; done";
    let mut child =
        quicksand(&["run", "debian", "-q", "--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");

    let listed = text(&output(&["ps"]).stdout);
    let pid = child.id().to_string();
    let line = listed.lines().find(|line| line.split_whitespace().any(|word| word == pid));
    assert!(line.is_some_and(|line| line.contains("debian") && line.contains("512 MiB")), "{listed}");
    let json: serde_json::Value = serde_json::from_slice(&output(&["ps", "--json"]).stdout).unwrap();
    let machine = json.as_array().unwrap().iter().find(|machine| machine["owner"] == child.id()).unwrap();
    assert_eq!((&machine["source"], &machine["memory"]), (&"debian".into(), &(512u64 << 20).into()));

    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "asked");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    let listed = text(&output(&["ps"]).stdout);
    assert!(!listed.lines().any(|line| line.split_whitespace().any(|word| word == pid)), "{listed}");
}

#[test]
fn the_doctor_finds_this_host_fit_and_an_empty_one_unfit() {
    let said = output(&["doctor"]);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said.stdout));
    assert!(text(&said.stdout).lines().any(|line| line.starts_with("good  QEMU: ")), "{}", text(&said.stdout));
    let unfit = quicksand(&["doctor", "--json"]).env("QUICKSAND_QEMU", "/nowhere/qemu").output().unwrap();
    assert_eq!(unfit.status.code(), Some(1));
    let findings: serde_json::Value = serde_json::from_slice(&unfit.stdout).unwrap();
    let qemu = findings.as_array().unwrap().iter().find(|finding| finding["what"] == "QEMU").unwrap();
    assert_eq!(qemu["verdict"], "bad");
    assert!(qemu["mend"].as_str().unwrap().contains("install"), "{qemu}");
    // What is no fault of QEMU's is not told as one.
    for (variable, value, what) in
        [("QUICKSAND_KEEP", "maybe", "environment"), ("QUICKSAND_CACHE_DIR", "/dev/null/x", "cache directory")]
    {
        let unfit = quicksand(&["doctor"]).env(variable, value).output().unwrap();
        let lines = text(&unfit.stdout);
        let bad: Vec<_> = lines.lines().filter(|line| line.starts_with("bad")).collect();
        assert!(matches!(bad[..], [line] if line.contains(what)), "{lines}");
    }
}

#[test]
fn completions_are_made_for_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let said = output(&["completions", shell]);
        assert!(said.status.success() && text(&said.stdout).contains("doctor"), "{shell}");
    }
}

#[test]
fn the_bench_measures_what_it_says() {
    let said = output(&["bench", "--runs", "2", "--quiet", "--json"]);
    let figures: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let figure = |name: &str| figures[name].as_f64().unwrap();
    assert!(0.0 < figure("start_s") && figure("start_s") < figure("first_command_s"), "{figures}");
    assert!(0.0 < figure("command_s"), "{figures}");
}

#[test]
fn a_mount_a_port_and_a_larger_disk() {
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("in"), "from the host").unwrap();
    let [writable, read_only] = ["/rw", "/ro:ro"].map(|guest| format!("{}:{guest}", shared.path().display()));
    let line =
        "cat /ro/in; touch /ro/x 2>/dev/null || echo ' refused'; echo out > /rw/out; df --output=size -BG / | tail -1";
    let arguments =
        ["run", "debian", "-q", "--mount", &writable, "--mount", &read_only, "--disk", "9G", "--", "sh", "-c", line];
    let said = output(&arguments);
    assert!(text(&said.stdout).starts_with("from the host refused\n"), "{} {}", text(&said.stdout), text(&said.stderr));
    let size: u32 = text(&said.stdout).lines().last().unwrap().trim().trim_end_matches('G').parse().unwrap();
    assert!((8..=9).contains(&size), "{size}");
    assert_eq!(std::fs::read(shared.path().join("out")).unwrap(), b"out\n");

    let serve = format!(
        "echo ready; exec perl -MSocket -e '{}'",
        "socket(S,2,1,0); setsockopt(S,1,2,1); \
        bind(S,sockaddr_in(7000,INADDR_LOOPBACK)); listen(S,5); accept(C,S); $_=<C>; syswrite(C,\"got $_\")"
    );
    let mut child = quicksand(&["run", "debian", "--port", "0:7000", "--", "sh", "-c", &serve])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let told =
        errors.find_map(|line| line.unwrap().split_once(" leads to port 7000").map(|(before, _)| before.to_owned()));
    let address = told.unwrap().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(BufReader::new(child.stdout.as_mut().unwrap()).lines().next().unwrap().unwrap(), "ready");
    let mut answer = String::new();
    // The server may take a moment from its word to its port.
    for _ in 0..600 {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let asked = stream.write_all(b"it\n").and_then(|()| stream.read_to_string(&mut answer));
        if asked.is_ok() && !answer.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(answer, "got it\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_picture_of_what_a_machine_shows() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.png");
    let said =
        output(&["screenshot", "debian", file.to_str().unwrap(), "-q", "--", "sh", "-c", "echo hello > /dev/tty1"]);
    assert!(said.status.success(), "{}", text(&said.stderr));
    let picture = std::fs::read(&file).unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n"), "{} bytes", picture.len());
}
