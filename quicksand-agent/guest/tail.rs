//! Whether a program that has ended still has output on its way.
//!
//! Its streams stay open for as long as anything that it started has them. A script that sends its own output through a filter, as by
//! `exec > >(tee log)`, ends before the filter has written the last lines, and these belong to its output. A server in the background
//! writes on for ever, and nobody is to wait for that. The two differ in what they read: nobody writes to the filter any more.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use nix::unistd::Pid;

use crate::process::{Pipe, Process};

/// Between two looks.
pub(crate) const STEP: Duration = Duration::from_millis(20);
/// How long what was left behind may write where it is no filter.
const LEFT_BEHIND: Duration = Duration::from_millis(250);
/// How long it may do nothing.
const SILENCE: Duration = Duration::from_millis(50);
/// How long a filter may do nothing: one that does not read what has ended never will.
const FILTER_SILENCE: Duration = Duration::from_millis(200);
/// How long a filter may work without writing anything.
const FILTER_WORK: Duration = Duration::from_secs(3);
/// How long a filter may take in all.
const FILTER: Duration = Duration::from_secs(30);

/// What is known of a program's output since its end.
#[derive(Debug)]
pub(crate) struct Tail {
    session: i32,
    ended: Instant,
    written: (u64, Instant),
    seen: (Vec<Process>, Instant),
}

impl Tail {
    /// Begins with the end of the program that led the session.
    pub(crate) fn of(leader: Pid) -> Tail {
        let now = Instant::now();
        Tail { session: leader.as_raw(), ended: now, written: (0, now), seen: (Vec::new(), now) }
    }

    /// Whether to wait for more, once so many bytes have been read of it.
    pub(crate) fn is_awaited(&mut self, written: u64) -> bool {
        let (members, filters) = self.look();
        self.weigh(Instant::now(), written, members, filters)
    }

    /// The same where the program runs on, and nothing but filters is waited for.
    pub(crate) fn has_filters(&mut self, written: u64) -> bool {
        let (members, filters) = self.look();
        filters && self.weigh(Instant::now(), written, members, true)
    }

    /// What lives of the session but the program itself, and whether a filter is among it.
    fn look(&self) -> (Vec<Process>, bool) {
        let all = Process::all();
        let belongs = |process: &&Process| process.session == self.session && process.pid != self.session;
        let members: Vec<Process> = all.iter().filter(belongs).filter(|process| process.lives()).copied().collect();
        let filters = !members.is_empty() && has_filter(&members, &all);
        (members, filters)
    }

    fn weigh(&mut self, now: Instant, written: u64, members: Vec<Process>, filters: bool) -> bool {
        if members.is_empty() {
            return false;
        }
        if written != self.written.0 {
            self.written = (written, now);
        }
        if members != self.seen.0 || members.iter().any(Process::is_busy) {
            self.seen = (members, now);
        }
        let since = |then: Instant| now.saturating_duration_since(then);
        let idle = since(self.written.1.max(self.seen.1));
        if filters {
            idle < FILTER_SILENCE && since(self.written.1) < FILTER_WORK && since(self.ended) < FILTER
        } else {
            idle < SILENCE && since(self.ended) < LEFT_BEHIND
        }
    }
}

/// Whether one of these reads a pipe that nobody writes to any more.
fn has_filter(members: &[Process], all: &[Process]) -> bool {
    let ends = members.iter().flat_map(Process::pipe_ends);
    let mut inputs: HashSet<Pipe> = ends.filter(|end| end.reads && !end.writes).map(|end| end.pipe).collect();
    for process in all {
        if inputs.is_empty() {
            return false;
        }
        process.pipe_ends().iter().filter(|end| end.writes).for_each(|end| {
            inputs.remove(&end.pipe);
        });
    }
    !inputs.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_waited_for_and_a_server_is_not() {
        let server = || vec![Process::example(7, 1, 5)];
        let at = |tail: &Tail, ms: u64| tail.ended + Duration::from_millis(ms);
        let begin = || Tail::of(Pid::from_raw(5));

        assert!(!begin().weigh(Instant::now(), 0, Vec::new(), true), "nobody is left");
        let mut idle = begin();
        assert!(idle.weigh(at(&idle, 1), 9, server(), false));
        assert!(!idle.weigh(at(&idle, 60), 9, server(), false));
        let mut writes_on = begin();
        assert!((0..12).all(|step| writes_on.weigh(at(&writes_on, step * 20), step, server(), false)));
        assert!(!writes_on.weigh(at(&writes_on, 260), 99, server(), false));
        let mut filter = begin();
        assert!((0..1_000).all(|step| filter.weigh(at(&filter, step * 29), step, server(), true)));
        assert!(!filter.weigh(at(&filter, 30_000), 9_999, server(), true), "for ever");
        let mut does_not_read = begin();
        assert!(does_not_read.weigh(at(&does_not_read, 100), 1, server(), true));
        assert!(!does_not_read.weigh(at(&does_not_read, 310), 1, server(), true));
    }

    #[test]
    fn a_reader_of_what_has_ended_is_a_filter() {
        let (reader, writer) = std::io::pipe().unwrap();
        let us = Process::find(std::process::id() as i32).unwrap();
        let of = |pipe| [us].iter().flat_map(Process::pipe_ends).filter(|end| end.pipe == pipe).count();
        assert_eq!(of(Pipe::of(&reader).unwrap()), 2);
        // Other tests of this process have pipes of their own: this one alone is looked at.
        let mut child =
            std::process::Command::new("cat").stdin(reader).stdout(std::process::Stdio::null()).spawn().unwrap();
        let cat = Process::find(child.id() as i32).unwrap();
        assert!(!has_filter(&[cat], &[cat, us]), "we may write still");
        assert!(has_filter(&[cat], &[cat]), "nobody may");
        drop(writer);
        assert!(child.wait().unwrap().success());
    }
}
