//! Waiting until the image's init has started what it is to start.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use quicksand_protocol::message::{Done, Failure, Settle};

use crate::{cgroup, inittab, limits, process::Process, reaper, rebooter};

const STEP: Duration = Duration::from_millis(200);
/// An init that says nothing has settled when for so long it has started no process and the processors had little to do.
const QUIET: Duration = Duration::from_millis(1500);
/// A system that is never quiet, because some service keeps starting processes, is taken as it is so long after its init started
/// the last thing that it waits for.
const QUIET_PATIENCE: Duration = Duration::from_secs(20);
/// Where OpenRC writes down what it is at.
const OPENRC: &str = "/run/openrc";

/// Returns once the init has settled. The host has the deadline.
pub(crate) fn wait(settle: Settle) -> Result<Done, Failure> {
    if settle.after_reboot {
        rebooter::watch();
    }
    // Process 1 is our own program until it becomes the image's init, or for good where there is none.
    if std::env::args().nth(1).as_deref() == Some(reaper::WORD) {
        limits::of_a_container();
        return Ok(Done::Nothing);
    }
    while same_program("/proc/1/exe", "/proc/self/exe") {
        thread::sleep(STEP / 10);
    }
    let init = fs::read_link("/proc/1/exe").unwrap_or_default();
    if init.file_name().is_some_and(|name| name == "systemd") {
        limits::of_systemd();
        cgroup::leave_inits();
        wait_for_systemd();
        limits::ask_systemd();
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

/// Of OpenRC, busybox and others: none of the init's own start scripts runs any more, OpenRC is in the last of its runlevels, no
/// process is started, and there is little to do.
fn wait_for_quiet() {
    let awaited: HashSet<String> = inittab::awaited().into_iter().collect();
    let (mut begun, mut since) = (Instant::now(), Instant::now());
    let mut last = Activity::now();
    loop {
        thread::sleep(STEP);
        let now = Activity::now();
        let starting = is_starting(&awaited);
        if starting {
            begun = Instant::now();
        }
        if starting || now.is_more_than(last) {
            since = Instant::now();
        }
        last = now;
        // A start script that waits for something is waited for, however long; a busy system is not. Between two scripts there is
        // a moment when none runs, which is not quiet.
        if !starting && (since.elapsed() >= QUIET || begun.elapsed() >= QUIET_PATIENCE) {
            return;
        }
    }
}

fn is_starting(awaited: &HashSet<String>) -> bool {
    Path::new(OPENRC).join("rc.starting").exists()
        || children_of_init().iter().any(|line| {
            // A script is run by its interpreter, which is then the first word.
            let without_interpreter = line.split_once(' ').map(|(_, rest)| rest.trim());
            awaited.contains(line) || without_interpreter.is_some_and(|line| awaited.contains(line))
        })
}

/// The command lines of process 1's children.
fn children_of_init() -> Vec<String> {
    let children = Process::all().into_iter().filter(|process| process.parent == 1);
    let lines = children.filter_map(|child| fs::read(format!("/proc/{}/cmdline", child.pid)).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ").trim().to_owned())
        .collect()
}

/// What the kernel says of what was done since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Activity {
    /// Processes and threads that were started.
    processes: u64,
    /// Time of processors at work or waiting for a disk, and idle, in ticks.
    busy: u64,
    idle: u64,
    /// Whether OpenRC is in a runlevel that another one follows.
    on_its_way: bool,
}

impl Activity {
    fn now() -> Activity {
        let runlevel = fs::read_to_string(Path::new(OPENRC).join("softlevel")).unwrap_or_default();
        Activity::read(&fs::read_to_string("/proc/stat").unwrap_or_default(), &runlevel)
    }

    fn read(stat: &str, runlevel: &str) -> Activity {
        let numbers = |name: &str| -> Vec<u64> {
            let line = stat.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_ascii_whitespace().map_while(|number| number.parse().ok()).collect()
        };
        let (times, processes) = (numbers("cpu "), numbers("processes "));
        // user, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen; then guests', which are in user.
        let all: u64 = times.iter().take(8).sum();
        let idle = times.get(3).copied().unwrap_or(0);
        let on_its_way = matches!(runlevel.trim(), "sysinit" | "boot");
        Activity { processes: processes.first().copied().unwrap_or(0), busy: all - idle, idle, on_its_way }
    }

    /// Whether anything was going on since `earlier`: our own looking around is not much.
    fn is_more_than(self, earlier: Activity) -> bool {
        let (busy, idle) = (self.busy.saturating_sub(earlier.busy), self.idle.saturating_sub(earlier.idle));
        self.on_its_way || self.processes != earlier.processes || busy > idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_is_no_new_process_and_idle_processors() {
        let at = |busy: u64, idle: u64, processes: u64| {
            let stat = format!("cpu  {busy} 0 0 {idle} 0 0 0 0 9 9\ncpu0 1 2 3 4\nctxt 7\nprocesses {processes}\n");
            Activity::read(&stat, "default\n")
        };
        let earlier = at(100, 100, 50);
        assert_eq!((earlier.busy, earlier.idle, earlier.processes), (100, 100, 50));
        assert!(!at(105, 115, 50).is_more_than(earlier));
        assert!(at(105, 115, 51).is_more_than(earlier));
        assert!(at(120, 100, 50).is_more_than(earlier));
        assert!(Activity { on_its_way: true, ..at(105, 115, 50) }.is_more_than(earlier));
        assert!(Activity::read("", "boot\n").on_its_way && !Activity::read("", "").on_its_way);
    }
}
