//! However a process ends, nothing of it stays: no QEMU, no directory, no half-written save. And QEMU is confined while it runs.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use quicksand::{NetworkMode, Sandbox};

/// How soon after its owner's end a QEMU must be gone.
const SOON: Duration = Duration::from_secs(30);

/// What this program does when it is run as a child of one of the tests.
#[tokio::test]
#[ignore = "run by the other tests in a process of its own, which they kill"]
async fn child() {
    let saves = std::env::var("LEAKS_SAVES").unwrap();
    let sb = Sandbox::builder("debian").saves_dir(&saves).start().await.unwrap();
    println!("qemu {}", sb.qemu_pid().unwrap());
    match std::env::var("LEAKS_THEN").unwrap().as_str() {
        "panic" => panic!("as asked"),
        "save" => loop {
            sb.execute("date >> /root/dates; head -c 3000000 /dev/urandom > /root/data")
                .await
                .unwrap()
                .check()
                .unwrap();
            println!("saving");
            sb.save("s").await.unwrap();
            println!("saved");
        },
        _ => tokio::time::sleep(Duration::from_secs(600)).await,
    }
}

struct Owner {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    qemu: u32,
}

impl Owner {
    fn start(then: &str, saves: &Path) -> Owner {
        // A run of tests in the background of a shell ignores what Ctrl-C sends, and so would this.
        let mut process = Command::new("env")
            .arg("--default-signal=INT")
            .arg(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env("LEAKS_THEN", then)
            .env("LEAKS_SAVES", saves)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut owner = Owner { process, output, qemu: 0 };
        owner.qemu = owner.wait_for("qemu ").parse().unwrap();
        // That of a child which panics at once may be gone by now.
        assert!(then == "panic" || is_qemu(owner.qemu));
        owner
    }

    /// The rest of the first line that begins so. The test runner may have put its own words before it.
    fn wait_for(&mut self, start: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the child ended before it said {start:?}");
            if let Some(at) = line.find(start) {
                return line[at + start.len()..].trim().to_owned();
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    fn check_gone(mut self) {
        let begun = Instant::now();
        self.process.wait().unwrap();
        while is_qemu(self.qemu) {
            assert!(begun.elapsed() < SOON, "QEMU {} survives its owner", self.qemu);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn is_qemu(pid: u32) -> bool {
    // A zombie has no command line.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.windows(4).any(|word| word == b"qemu"))
}

fn saves() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn no_qemu_survives_however_its_owner_dies() {
    let saves = saves();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let owner = Owner::start("sleep", saves.path());
        kill(owner.pid(), signal).unwrap();
        owner.check_gone();
    }
    // Ctrl-C reaches all of the terminal's foreground group.
    let owner = Owner::start("sleep", saves.path());
    killpg(owner.pid(), Signal::SIGINT).unwrap();
    owner.check_gone();

    Owner::start("panic", saves.path()).check_gone();
}

#[tokio::test]
async fn what_a_killed_process_left_is_swept_by_the_next_start() {
    let saves = saves();
    let owner = Owner::start("sleep", saves.path());
    let directory = run_dir(owner.qemu);
    assert!(directory.join("qemu.log").exists());
    kill(owner.pid(), Signal::SIGKILL).unwrap();
    owner.check_gone();
    let sb = Sandbox::builder("debian").saves_dir(saves.path()).start().await.unwrap();
    assert!(!directory.exists(), "{}", directory.display());
    let own = run_dir(sb.qemu_pid().unwrap());
    assert!(own.exists());
    let pid = sb.qemu_pid().unwrap();
    sb.stop().await.unwrap();
    drop(sb);
    assert!(!own.exists() && !is_qemu(pid));
}

/// The directory of a machine: its QEMU's output goes there.
fn run_dir(qemu: u32) -> PathBuf {
    fs::read_link(format!("/proc/{qemu}/fd/2")).unwrap().parent().unwrap().to_owned()
}

/// Killed at many moments of it, a save is the last whole one, or not there.
#[tokio::test]
async fn an_interrupted_save_is_whole_or_absent() {
    let saves = saves();
    for attempt in 0..8u32 {
        let mut owner = Owner::start("save", saves.path());
        owner.wait_for("saving");
        if attempt >= 4 {
            // The next one has an old save to replace.
            owner.wait_for("saved");
            owner.wait_for("saving");
        }
        std::thread::sleep(Duration::from_millis(u64::from(attempt % 4) * 90));
        kill(owner.pid(), Signal::SIGKILL).unwrap();
        owner.check_gone();
        if saves.path().join("s").exists() {
            let sb = Sandbox::builder("s").saves_dir(saves.path()).start().await.unwrap();
            assert_eq!(sb.start_report().unwrap().kind, quicksand::StartKind::Warm, "{:?}", sb.start_report());
            sb.execute("test $(stat -c %s /root/data) = 3000000").await.unwrap().check().unwrap();
        } else {
            assert!(attempt < 4, "an old save was lost");
        }
    }
}

#[tokio::test]
async fn qemu_is_confined() {
    let saves = saves();
    let builder = Sandbox::builder("debian").saves_dir(saves.path()).network_mode(NetworkMode::Full);
    let sb = builder.start().await.unwrap();
    let pid = sb.qemu_pid().unwrap();

    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.lines().any(|line| line.trim() == "Seccomp:\t2"), "the seccomp filter is on");

    // Its sockets: the two pairs that lead to us, and none that listens.
    let mut inodes = vec![];
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let path = entry.unwrap().path();
        // QEMU opens and closes files while we look.
        let Ok(link) = fs::read_link(&path) else { continue };
        let target = link.to_string_lossy().into_owned();
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            inodes.push(inode.to_owned());
        } else {
            let allowed = ["/dev/null", "anon_inode:", "pipe:", "/dev/kvm", "/memfd:"];
            let ours = target.contains(sb_cache().to_str().unwrap()) || target.starts_with("/usr/");
            assert!(ours || allowed.iter().any(|start| target.starts_with(start)), "QEMU holds {target}");
        }
    }
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            assert!(!inodes.iter().any(|inode| inode == fields[9]), "QEMU has a {table} socket: {line}");
        }
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(run_dir(pid)).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}

fn sb_cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let caches = || variable("XDG_CACHE_HOME").unwrap_or_else(|| variable("HOME").unwrap().join(".cache"));
    variable("QUICKSAND_CACHE_DIR").unwrap_or_else(|| caches().join("quicksand"))
}

#[tokio::test]
async fn ten_sandboxes_see_nothing_of_each_other() {
    let saves = saves();
    let mut all = vec![];
    for n in 0..10 {
        let sb = Sandbox::builder("debian").saves_dir(saves.path()).start().await.unwrap();
        let line = format!("echo {n} > /root/own; echo {n} > /dev/shm/own; hostname guest{n}");
        sb.execute(line).await.unwrap().check().unwrap();
        all.push(sb);
    }
    for (n, sb) in all.iter().enumerate() {
        let output = sb.execute("cat /root/own /dev/shm/own; hostname").await.unwrap();
        assert_eq!(output.stdout, format!("{n}\n{n}\nguest{n}\n"));
    }
}
