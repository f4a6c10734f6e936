//! The session that each program of the host's leads, and its end as a whole.
//!
//! A program may give what it starts process groups of their own, as shells do with jobs and `timeout` with its command, or even
//! sessions, as `sudo` and `script` do with what they run on a terminal of theirs. All of that belongs to it, and ends with it. What
//! left it on purpose does not: a daemon has a session of its own, and its parent has ended.

use std::{
    collections::HashSet,
    io,
    os::unix::process::CommandExt,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, setsid},
};

use crate::process::Process;

/// How long processes may take to be gone, and to be found where they start others meanwhile.
const PATIENCE: Duration = Duration::from_secs(3);
/// The least number of looks at them, however long one takes: beside thousands of processes that init has yet to reap, and on a busy
/// host, that may be seconds. What changes its group while it is looked at is missed by one look, and not by the next.
const LEAST_LOOKS: u32 = 8;
/// Between two looks at them.
const STEP: Duration = Duration::from_millis(5);
/// How many looks in a row are to find none.
const ENOUGH_LOOKS: u32 = 2;

/// Has the program lead a session, without a terminal.
#[allow(unsafe_code)]
pub(crate) fn lead(command: &mut Command) {
    let enter = || setsid().map(drop).map_err(io::Error::from);
    // SAFETY: runs in the child between fork and exec: one system call, and nothing is allocated or locked.
    unsafe {
        command.pre_exec(enter);
    }
}

/// Kills all that belongs to a session, and returns when it is gone. The leader must not have been reaped.
pub(crate) fn end(leader: Pid) {
    let mut family = Family::of(leader);
    let deadline = Instant::now() + PATIENCE;
    let mut unseen = 0;
    for look in 1.. {
        // Before anything is killed: whose parent is gone can't be told from a daemon.
        let members = family.members(&Process::all());
        // Whole groups: the kernel lets none of a group fork while it kills them, so one that starts another and ends at once does
        // not get away. The leader's own in any case, should there be no /proc to look at.
        let groups: HashSet<i32> = members.iter().map(|member| member.group).chain([leader.as_raw()]).collect();
        for group in groups.into_iter().filter(|group| *group > 1) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        // One look may miss a process that began while it was taken.
        unseen = if members.is_empty() { unseen + 1 } else { 0 };
        if unseen == ENOUGH_LOOKS || look >= LEAST_LOOKS && Instant::now() >= deadline {
            return;
        }
        thread::sleep(STEP);
    }
}

/// The sessions whose processes belong together: that of a program, and those that began below it.
#[derive(Debug)]
pub(crate) struct Family {
    sessions: HashSet<i32>,
}

impl Family {
    pub(crate) fn of(leader: Pid) -> Family {
        Family { sessions: HashSet::from([leader.as_raw()]) }
    }

    /// Its living processes, among all that there are. What is found below one of them belongs to it from now on, also where that one
    /// ends.
    pub(crate) fn members(&mut self, all: &[Process]) -> Vec<Process> {
        let mut found: HashSet<i32> = HashSet::new();
        loop {
            let before = found.len();
            for process in all {
                if self.sessions.contains(&process.session) || found.contains(&process.parent) {
                    found.insert(process.pid);
                    self.sessions.insert(process.session);
                }
            }
            if found.len() == before {
                break;
            }
        }
        all.iter().filter(|process| process.lives() && found.contains(&process.pid)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(members: &[Process]) -> Vec<i32> {
        members.iter().map(|process| process.pid).collect()
    }

    #[test]
    fn what_began_below_a_program_is_its_own_and_what_left_is_not() {
        let process = Process::example;
        let all = [
            process(1, 0, 1),
            process(20, 1, 20),
            // The program, its child, and one that its child left behind.
            process(100, 20, 100),
            process(101, 100, 100),
            process(102, 1, 100),
            // What it runs by `sudo`: a monitor with a session of its own, and a program of that.
            process(104, 103, 104),
            process(105, 104, 104),
            process(103, 100, 100),
            // A daemon.
            process(106, 1, 106),
        ];
        let mut family = Family::of(Pid::from_raw(100));
        assert_eq!(numbers(&family.members(&all)), [100, 101, 102, 104, 105, 103]);
        // The monitor was killed, and what it had just started was not.
        assert_eq!(numbers(&family.members(&[process(1, 0, 1), process(107, 1, 104)])), [107]);
        assert_eq!(numbers(&Family::of(Pid::from_raw(7)).members(&all)), []);
    }
}
