//! Waiting until the image's init has started what it is to start.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use quicksand_protocol::message::{Done, Failure};

use crate::{inittab, reaper};

const STEP: Duration = Duration::from_millis(200);
/// An init that says nothing has settled when it has started no process for so long.
const QUIET: Duration = Duration::from_millis(1500);
/// A system that is never quiet, because some service keeps starting processes, is taken as it is after this time.
const QUIET_PATIENCE: Duration = Duration::from_secs(20);

/// Returns once the init has settled. The host has the deadline.
pub(crate) fn wait() -> Result<Done, Failure> {
    // Process 1 is our own program until it becomes the image's init, or for good where there is none.
    if std::env::args().nth(1).as_deref() == Some(reaper::WORD) {
        return Ok(Done::Nothing);
    }
    while same_program("/proc/1/exe", "/proc/self/exe") {
        thread::sleep(STEP / 10);
    }
    let init = fs::read_link("/proc/1/exe").unwrap_or_default();
    if init.file_name().is_some_and(|name| name == "systemd") {
        wait_for_systemd();
    } else {
        wait_for_quiet();
    }
    Ok(Done::Nothing)
}

fn same_program(one: &str, other: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// systemd says when it is done, but answers only once it listens.
fn wait_for_systemd() {
    loop {
        let mut ask = Command::new("systemctl");
        ask.args(["is-system-running", "--wait"]).stdin(Stdio::null()).stderr(Stdio::null());
        match ask.output() {
            Ok(output) => match String::from_utf8_lossy(&output.stdout).trim() {
                "running" | "degraded" | "maintenance" => return,
                _ => thread::sleep(STEP),
            },
            // An image without systemctl, of which quiet must tell.
            Err(_) => return wait_for_quiet(),
        }
    }
}

/// Of OpenRC, busybox and others: none of the init's own start scripts runs any more, OpenRC is in no change of its runlevel, and
/// no process is started.
fn wait_for_quiet() {
    let awaited: HashSet<String> = inittab::awaited().into_iter().collect();
    let begun = Instant::now();
    let (mut last, mut since) = (processes(), Instant::now());
    loop {
        thread::sleep(STEP);
        let now = processes();
        let starting = is_starting(&awaited);
        if now != last || starting {
            (last, since) = (now, Instant::now());
        }
        // A start script that waits for something is waited for, however long; a busy system is not.
        if !starting && (since.elapsed() >= QUIET || begun.elapsed() >= QUIET_PATIENCE) {
            return;
        }
    }
}

fn is_starting(awaited: &HashSet<String>) -> bool {
    Path::new("/run/openrc/rc.starting").exists()
        || children_of_init().iter().any(|line| {
            // A script is run by its interpreter, which is then the first word.
            let without_interpreter = line.split_once(' ').map(|(_, rest)| rest.trim());
            awaited.contains(line) || without_interpreter.is_some_and(|line| awaited.contains(line))
        })
}

/// The command lines of process 1's children.
fn children_of_init() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let is_child = |path: &Path| {
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        // After the name, which is in parentheses and may hold any: the state, then the parent.
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)) == Some("1")
    };
    let processes = entries.flatten().map(|entry| entry.path());
    let lines = processes.filter(|path| is_child(path)).filter_map(|path| fs::read(path.join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ").trim().to_owned())
        .collect()
}

/// How many processes and threads were ever started.
fn processes() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let count = stat.lines().find_map(|line| line.strip_prefix("processes "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
