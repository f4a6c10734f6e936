//! The session that each program of the host's leads, and its end as a whole.
//!
//! A program may give what it starts process groups of their own, as shells do with jobs and `timeout` with its command, or even
//! sessions, as `sudo` and `script` do with what they run on a terminal of theirs. All of that belongs to it, and ends with it. What
//! left it on purpose does not: a daemon has a session of its own, and its parent has ended.

use std::{
    collections::HashSet,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, setsid},
};

use rustix::{
    io::{Errno, retry_on_intr},
    process::{WaitId, WaitIdOptions, WaitOptions, waitid, waitpid},
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

/// A program of the host's. It leads a process group, and is a child of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) pid: Pid,
    /// Who leads its session: the program itself, or on a terminal a [keeper](crate::keeper).
    pub(crate) leader: Pid,
}

impl Program {
    fn keeper(&self) -> Option<Pid> {
        (self.leader != self.pid).then_some(self.leader)
    }

    /// Waits for its end. It stays unreaped, so that its number stays its own.
    pub(crate) fn await_end(&self) -> io::Result<()> {
        await_end(self.pid)
    }

    /// Lets the kernel tell what is left in the foreground of its terminal, where it has one, that the session is over.
    pub(crate) fn hang_up(&self) {
        if let Some(keeper) = self.keeper() {
            let _ = kill(keeper, Signal::SIGKILL);
            let _ = await_end(keeper);
        }
    }

    /// Waits for its end, and takes leave of it and of its keeper.
    pub(crate) fn reap(self) -> io::Result<ExitStatus> {
        let status = reap(self.pid);
        if let Some(keeper) = self.keeper() {
            put_away(keeper);
        }
        status
    }
}

/// Kills a child of ours, and nothing is left of it.
pub(crate) fn put_away(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
    let _ = reap(pid);
}

fn await_end(pid: Pid) -> io::Result<()> {
    let wait = || waitid(WaitId::Pid(child(pid)?), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    Ok(retry_on_intr(wait).map(drop)?)
}

fn reap(pid: Pid) -> io::Result<ExitStatus> {
    let (_, status) = retry_on_intr(|| waitpid(Some(child(pid)?), WaitOptions::empty()))?.ok_or(Errno::CHILD)?;
    Ok(ExitStatus::from_raw(status.as_raw()))
}

fn child(pid: Pid) -> Result<rustix::process::Pid, Errno> {
    rustix::process::Pid::from_raw(pid.as_raw()).ok_or(Errno::CHILD)
}

/// Kills all that belongs to a program's session but its keeper, and returns when it is gone. The program must not have been reaped.
pub(crate) fn end(program: Program) {
    let mut family = Family::of(program.leader);
    let deadline = Instant::now() + PATIENCE;
    let mut unseen = 0;
    for look in 1.. {
        // Before anything is killed: whose parent is gone can't be told from a daemon.
        let mut members = family.found(&Process::all());
        // It ends later: the hang-up would come before the kill.
        members.retain(|member| Some(member.pid) != program.keeper().map(Pid::as_raw));
        // Whole groups: the kernel lets none of a group fork while it kills them, so one that starts another and ends at once does
        // not get away. The dead have groups, too, until they are reaped: of a chain that grows faster than a look takes, they are all
        // that is seen. The program's own in any case, should there be no /proc to look at.
        let groups: HashSet<i32> = members.iter().map(|member| member.group).chain([program.pid.as_raw()]).collect();
        for group in groups.into_iter().filter(|group| *group > 1) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        // One look may miss a process that began while it was taken.
        unseen = if members.iter().any(Process::lives) { 0 } else { unseen + 1 };
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

    /// Its living processes, among all that there are.
    pub(crate) fn members(&mut self, all: &[Process]) -> Vec<Process> {
        self.found(all).into_iter().filter(Process::lives).collect()
    }

    /// The same with those that have ended and are not reaped yet. What is found below one of them belongs to it from now on, also where
    /// that one ends.
    fn found(&mut self, all: &[Process]) -> Vec<Process> {
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
        all.iter().filter(|process| found.contains(&process.pid)).copied().collect()
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
        // One that has ended tells the group of the one that it started.
        let mut dead = process(108, 1, 100);
        dead.state = b'Z';
        assert_eq!(numbers(&family.members(&[dead])), []);
        assert_eq!(numbers(&family.found(&[dead])), [108]);
    }
}
