//! Faults that a sandbox survives: of the guest's kernel, its agent, its disk, of QEMU, of the host's disk, and of too much at once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quicksand::{ChannelError, Error, Sandbox, Size};
use quicksand_core::harness::{KeepNote, SandboxExt};
use tokio::io::AsyncReadExt;

/// How soon a fault must be told, on a host that is busy with other things as well.
const SOON: Duration = Duration::from_secs(60);
/// Runs a program with mounts of its own, which go with it. That takes no privilege.
const OWN_MOUNTS: [&str; 3] = ["unshare", "--map-root-user", "--mount"];

async fn start() -> Sandbox {
    Sandbox::builder("debian").start().await.unwrap()
}

async fn shell(sb: &Sandbox, line: &str) -> String {
    sb.execute(line).await.unwrap().check().unwrap().stdout
}

fn signal_qemu(sb: &Sandbox, signal: Signal) {
    kill(Pid::from_raw(sb.qemu_pid().unwrap() as i32), signal).unwrap();
}

/// The directory of a machine: its QEMU's output goes there.
fn run_dir(sb: &Sandbox) -> PathBuf {
    fs::read_link(format!("/proc/{}/fd/2", sb.qemu_pid().unwrap())).unwrap().parent().unwrap().to_owned()
}

fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Makes a file that leaves so many bytes of its file system.
fn fill_up(path: &Path, left: u64) {
    let fill = fs::File::create(path).unwrap();
    let free = nix::sys::statvfs::statvfs(path).unwrap();
    let free = free.blocks_available() * free.fragment_size();
    nix::fcntl::fallocate(&fill, nix::fcntl::FallocateFlags::empty(), 0, (free - left) as i64).unwrap();
}

/// Puts an empty file system in memory over a directory.
fn mount_tmpfs(at: &Path, options: &str) {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status().unwrap();
    assert!(mounted.success());
}

/// Runs one of the ignored tests below in a process of its own, by way of `wrapper`.
fn alone(wrapper: &[&str], test: &str, variables: &[(&str, &Path)]) {
    let exe = std::env::current_exe().unwrap();
    let words: Vec<_> = wrapper.iter().map(Path::new).chain([exe.as_path()]).collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .args([test, "--exact", "--ignored", "--nocapture"])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", output.status);
}

#[tokio::test]
async fn a_panic_mid_command_is_told_at_once_and_can_be_undone() {
    let sb = start().await;
    shell(&sb, "echo kept > /dev/shm/f; echo 1 > /proc/sys/kernel/sysrq").await;
    sb.checkpoint("well").await.unwrap();
    let mut other = sb.command("sleep").arg("1000").spawn().await.unwrap();
    let begun = Instant::now();
    let error = sb.execute("echo c > /proc/sysrq-trigger; sleep 1000").await.unwrap_err();
    assert!(matches!(&error, Error::Ended { console, .. } if console.contains("Kernel panic")), "{error}");
    assert!(matches!(other.wait().await.unwrap_err(), Error::Ended { .. }));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(!sb.is_running());
    sb.revert("well").await.unwrap();
    assert_eq!(shell(&sb, "cat /dev/shm/f").await, "kept\n");
}

#[tokio::test]
async fn a_guest_that_hangs_costs_a_command_its_time_alone() {
    let sb = start().await;
    shell(&sb, "echo kept > /dev/shm/f").await;
    sb.checkpoint("well").await.unwrap();
    let limited = async |line: &str| {
        let begun = Instant::now();
        let error = sb.command("sh").args(["-c", line]).timeout(Duration::from_secs(2)).output().await.unwrap_err();
        assert!(matches!(error, Error::CommandTimeout { .. }), "{error}");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    };
    // Its machine stands still, and goes on later as if nothing had been.
    signal_qemu(&sb, Signal::SIGSTOP);
    limited("true").await;
    assert!(sb.is_running());
    signal_qemu(&sb, Signal::SIGCONT);
    assert_eq!(shell(&sb, "cat /dev/shm/f").await, "kept\n");

    // Its only processor is taken from everything else, the agent as well, and never given back.
    limited("echo -1 > /proc/sys/kernel/sched_rt_runtime_us; exec chrt -f 99 sh -c 'while :; do :; done'").await;
    limited("true").await;
    sb.revert("well").await.unwrap();
    assert_eq!(shell(&sb, "cat /dev/shm/f").await, "kept\n");
}

#[tokio::test]
async fn a_full_disk_of_the_guest() {
    let saves = tempfile::tempdir_in(target()).unwrap();
    let sb = Sandbox::builder("debian").saves_dir(saves.path()).start().await.unwrap();
    // Most of it is only claimed, which is full just as well.
    shell(&sb, "free=$(df --output=avail -m / | tail -1); fallocate -l $((free - 16))M /root/most").await;
    let output = sb.execute("dd if=/dev/zero of=/root/rest bs=64k; sync").await.unwrap();
    assert!(output.stderr.contains("No space left on device"), "{output:?}");
    assert!(matches!(
        sb.write_file("/root/more", vec![1; 1 << 20]).await,
        Err(Error::Guest(ChannelError::Guest { .. }))
    ));
    assert_eq!(shell(&sb, "echo works; df --output=avail / | tail -1 | tr -d ' '").await, "works\n0\n");

    sb.save("full").await.unwrap();
    shell(&sb, "rm /root/rest /root/most && echo room > /root/room && sync").await;
    assert_eq!(sb.read_file("/root/room").await.unwrap(), b"room\n");
    drop(sb);
    let sb = Sandbox::builder("full").saves_dir(saves.path()).start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, quicksand::StartKind::Warm);
    assert_eq!(
        shell(&sb, "df --output=avail / | tail -1 | tr -d ' '; rm /root/most; ls /root/rest").await,
        "0\n/root/rest\n"
    );
}

#[tokio::test]
async fn a_killed_qemu_is_told_soon_and_leaves_nothing() {
    let sb = start().await;
    let directory = run_dir(&sb);
    assert!(directory.join("qemu.log").exists());
    let mut child = sb.command("sleep").arg("1000").spawn().await.unwrap();
    shell(&sb, "true").await;
    let begun = Instant::now();
    signal_qemu(&sb, Signal::SIGKILL);
    let error = child.wait().await.unwrap_err();
    assert!(matches!(&error, Error::Ended { qemu, .. } if qemu == "QEMU ended with signal: 9 (SIGKILL)"), "{error}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(!sb.is_running());
    assert!(matches!(sb.execute("true").await.unwrap_err(), Error::Ended { .. }));
    sb.stop().await.unwrap();
    drop((child, sb));
    assert!(!directory.exists());

    // Also to who writes it down at that moment, before anybody has seen its end.
    let sb = start().await;
    signal_qemu(&sb, Signal::SIGKILL);
    let error = sb.checkpoint("late").await.unwrap_err();
    assert!(matches!(error, Error::Ended { .. }), "{error}");
}

#[test]
fn a_full_disk_of_the_host_while_saving() {
    let saves = tempfile::tempdir_in(target()).unwrap();
    alone(&OWN_MOUNTS, "saving_to_a_full_disk", &[("FAULTS_SAVES", saves.path())]);
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn saving_to_a_full_disk() {
    let saves = PathBuf::from(std::env::var_os("FAULTS_SAVES").unwrap());
    mount_tmpfs(&saves, "size=3G");
    let sb = Sandbox::builder("debian").saves_dir(&saves).start().await.unwrap();
    shell(&sb, "echo old > /root/f").await;
    sb.save("s").await.unwrap();
    let listing = || {
        let mut names: Vec<_> = fs::read_dir(&saves).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = listing();

    shell(&sb, "echo new > /root/f; head -c 8000000 /dev/urandom > /dev/shm/bulk").await;
    // Room for nothing, for a part of the memory, and for that but not for the disk.
    for left in [0, 40, 200] {
        fill_up(&saves.join("fill"), left << 20);
        let error = sb.save("s").await.unwrap_err();
        println!("{left}: {error:?}");
        let mut words = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            words = format!("{words}: {next}");
            cause = next.source();
        }
        assert!(words.contains("No space left on device"), "{words}");
        assert_eq!(shell(&sb, "cat /root/f").await, "new\n", "it runs on");
        fs::remove_file(saves.join("fill")).unwrap();
        assert_eq!(listing(), before, "nothing half-made stays");
    }
    let old = Sandbox::builder("s").saves_dir(&saves).start().await.unwrap();
    assert_eq!(old.start_report().unwrap().kind, quicksand::StartKind::Warm);
    assert_eq!(shell(&old, "cat /root/f").await, "old\n");
    drop(old);

    sb.save("s").await.unwrap();
    let new = Sandbox::builder("s").saves_dir(&saves).start().await.unwrap();
    assert_eq!(shell(&new, "cat /root/f; stat -c %s /dev/shm/bulk").await, "new\n8000000\n");
}

#[test]
fn a_machine_that_is_not_kept_for_want_of_room_runs_on() {
    alone(&OWN_MOUNTS, "keeping_on_a_full_disk", &[]);
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn keeping_on_a_full_disk() {
    let sb = start().await;
    let kept = run_dir(&sb).ancestors().nth(2).unwrap().join("failed");
    mount_tmpfs(&kept, "size=1M");
    let note = KeepNote { test: "faults::full", package: target(), end: "failed", report: None };
    let error = sb.keep(note, 5).await.unwrap_err();
    assert!(format!("{error:?}").contains("StorageFull"), "{error:?}");
    let output = sb.command("echo").arg("goes on").timeout(SOON).output().await.unwrap();
    assert_eq!(output.stdout, "goes on\n");
}

#[test]
fn what_the_host_lacks_costs_no_frozen_state() {
    let saves = tempfile::tempdir_in(target()).unwrap();
    alone(&OWN_MOUNTS, "starting_without_room_for_a_file", &[("FAULTS_SAVES", saves.path())]);
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn starting_without_room_for_a_file() {
    let saves = PathBuf::from(std::env::var_os("FAULTS_SAVES").unwrap());
    let sb = Sandbox::builder("debian").saves_dir(&saves).start().await.unwrap();
    sb.save("s").await.unwrap();
    let machines = run_dir(&sb).parent().unwrap().to_owned();
    drop(sb);
    // Machines are kept on a file system with bytes enough, and files for half a machine.
    mount_tmpfs(&machines, "size=8G,nr_inodes=3");
    for source in ["debian", "s"] {
        let error = Sandbox::builder(source).saves_dir(&saves).start().await.unwrap_err();
        println!("{source}: {error:?}");
        assert!(format!("{error:?}").contains("StorageFull"), "{error:?}");
    }
    assert!(Command::new("umount").arg(&machines).status().unwrap().success());
    for source in ["debian", "s"] {
        let sb = Sandbox::builder(source).saves_dir(&saves).start().await.unwrap();
        assert_eq!(sb.start_report().unwrap().kind, quicksand::StartKind::Warm, "{:?}", sb.start_report());
    }
}

#[test]
fn a_full_disk_of_the_host_while_the_guest_writes() {
    alone(&OWN_MOUNTS, "writing_to_a_full_disk", &[]);
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn writing_to_a_full_disk() {
    let sb = start().await;
    let machines = run_dir(&sb).parent().unwrap().to_owned();
    drop(sb);
    mount_tmpfs(&machines, "size=1G");
    let sb = start().await;
    shell(&sb, "echo kept > /root/f").await;
    sb.checkpoint("before").await.unwrap();
    let mut other = sb.command("sleep").arg("1000").spawn().await.unwrap();
    let fill = machines.join("fill");
    fill_up(&fill, 32 << 20);
    let begun = Instant::now();
    let error = sb.execute("head -c 200000000 /dev/urandom > /root/bulk && sync").await.unwrap_err();
    let is_told =
        |error: &Error| matches!(error, Error::Guest(ChannelError::DiskStopped(why)) if why.contains("space"));
    assert!(is_told(&error), "{error:?}");
    assert!(is_told(&other.wait().await.unwrap_err()));
    assert!(is_told(&sb.execute("true").await.unwrap_err()));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    fs::remove_file(fill).unwrap();
    sb.revert("before").await.unwrap();
    assert_eq!(shell(&sb, "cat /root/f; ls /root/bulk 2>&1 | grep -c No").await, "kept\n1\n");
    sb.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_agent_is_told_soon_and_comes_back() {
    let sb = start().await;
    shell(&sb, "echo kept > /root/f; sync").await;
    sb.checkpoint("well").await.unwrap();
    // Its own words are not the agent's.
    let kill_agent = async || {
        let begun = Instant::now();
        let error = sb.execute("pkill -9 -f '@quicksand-agen[t]'; sleep 1000").await.unwrap_err();
        assert!(matches!(error, Error::Guest(ChannelError::AgentGone)), "{error}");
        assert!(matches!(sb.execute("true").await.unwrap_err(), Error::Guest(ChannelError::AgentGone)));
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert!(sb.is_running());
    };
    kill_agent().await;
    sb.revert("well").await.unwrap();
    assert_eq!(shell(&sb, "cat /root/f").await, "kept\n");
    kill_agent().await;
    sb.reboot().await.unwrap();
    assert_eq!(shell(&sb, "cat /root/f").await, "kept\n");
}

/// As with a sandbox in a `static` that several `#[tokio::test]`s share.
#[test]
fn a_runtime_that_has_gone_is_told_at_once() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = runtime();
    let sb = std::sync::Arc::new(first.block_on(start()));
    let other = std::sync::Arc::clone(&sb);
    let under_way = first.spawn(async move { other.execute("sleep 1000").await });
    let second = runtime();
    assert_eq!(second.block_on(shell(&sb, "echo from another runtime")), "from another runtime\n");
    let waits = second.spawn({
        let sb = std::sync::Arc::clone(&sb);
        async move { sb.execute("sleep 1000").await }
    });
    second.block_on(shell(&sb, "while [ \"$(pgrep -cx sleep)\" != 2 ]; do sleep 0.05; done"));
    drop(first);
    let begun = Instant::now();
    let told = |error: Error| assert!(matches!(error, Error::Guest(ChannelError::RuntimeGone)), "{error}");
    told(second.block_on(waits).unwrap().unwrap_err());
    told(second.block_on(sb.execute("true")).unwrap_err());
    told(second.block_on(sb.checkpoint("c")).unwrap_err());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(second.block_on(under_way).unwrap_err().is_cancelled());
    // All that does not talk to the guest works.
    assert!(sb.is_running());
    second.block_on(sb.stop()).unwrap();
    assert!(!sb.is_running());
}

fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_gigabyte_without_a_newline() {
    const LEN: u64 = 1 << 30;
    let sb = start().await;
    let limit = Size::from_mib(8);
    let error = sb.command("head").args(["-c", "1G", "/dev/zero"]).output_limit(limit).output().await.unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");

    let before = peak_memory();
    let mut child = sb.command("head").args(["-c", "1G", "/dev/zero"]).spawn().await.unwrap();
    let (mut stdout, mut len, mut buffer) = (child.stdout.take().unwrap(), 0, vec![0; 1 << 18]);
    loop {
        let read = stdout.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        assert!(buffer[..read].iter().all(|byte| *byte == 0));
        len += read as u64;
    }
    assert_eq!(len, LEN);
    assert!(child.wait().await.unwrap().success());
    let grown = peak_memory() - before;
    assert!(grown < 300 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn a_thousand_commands_at_once() {
    let sb = start().await;
    let mut all = tokio::task::JoinSet::new();
    let sb = std::sync::Arc::new(sb);
    for n in 0..1000 {
        let sb = std::sync::Arc::clone(&sb);
        all.spawn(async move {
            let output = sb.command("echo").arg(n.to_string()).output().await.unwrap();
            assert!(output.success() && output.stdout == format!("{n}\n"), "{n}: {output:?}");
        });
    }
    let mut failures = vec![];
    while let Some(done) = all.join_next().await {
        failures.extend(done.err());
    }
    assert!(failures.is_empty(), "{} of them fail", failures.len());
    assert_eq!(shell(&sb, "echo still here").await, "still here\n");
}

#[test]
fn a_hundred_starts_leave_nothing() {
    let temporary = tempfile::tempdir_in(target()).unwrap();
    alone(&["env"], "starting_a_hundred_times", &[("TMPDIR", temporary.path())]);
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn starting_a_hundred_times() {
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let children = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path().join("children"));
        tasks.map(|path| fs::read_to_string(path).unwrap_or_default()).collect::<String>()
    };
    let mut directories = vec![];
    let mut before = 0;
    for n in 0..100 {
        let sb = start().await;
        directories.push(run_dir(&sb));
        drop(sb);
        if n == 0 {
            // What is made once for the whole process is there by now.
            before = descriptors();
        }
    }
    let begun = Instant::now();
    while descriptors() > before || !children().is_empty() {
        let left = descriptors();
        assert!(begun.elapsed() < SOON, "{before} descriptors became {left}, and processes stay: {}", children());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let left: Vec<_> = directories.iter().filter(|directory| directory.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}
