//! Whether a program that has ended still has output on its way.
//!
//! Its streams stay open for as long as anything that it started has them. A script that sends its own output through a filter, as by
//! `exec > >(tee log)`, ends before the filter has written the last lines, and these belong to its output. A server in the background
//! writes on for ever, and nobody is to wait for that. The two differ in what they [read](crate::filters): a filter has something left
//! to read, or nobody can write to it any more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    filters::{Input, Writers},
    output::Progress,
    process::Process,
    session::{Family, Program},
};

/// Between two looks, at least, and before the first.
pub(crate) const STEP: Duration = Duration::from_millis(20);
/// How much longer than a look the rest after it is: looking around takes a processor, of which filters may have just one.
const REST: u32 = 4;
/// How long what was left behind may write where it is no filter.
const LEFT_BEHIND: Duration = Duration::from_millis(250);
/// How long it may do nothing.
const SILENCE: Duration = Duration::from_millis(50);
/// How long a filter may do nothing that has read all of its input.
const FILTER_SILENCE: Duration = Duration::from_millis(1500);
/// How long a filter may do nothing while there is something to be read: most that wait so long do not read it at all.
const UNREAD: Duration = Duration::from_secs(3);
/// How long a filter may take whose input is not at its end, as something that was left behind may write there, too.
const OPEN_FILTER: Duration = Duration::from_secs(15);
/// How long a filter may take in all.
const FILTER: Duration = Duration::from_secs(30);
/// What is carried, at most, of those that may write for ever: more than can have been on its way when the program ended.
const BACKLOG: u64 = 1 << 20;

/// What is known of a program's output since its end.
#[derive(Debug)]
pub(crate) struct Tail {
    program: i32,
    family: Family,
    progress: Arc<Progress>,
    looked: Instant,
    /// How long the last look took.
    cost: Duration,
    record: Record,
}

/// How those who write have been getting on.
#[derive(Debug, Default)]
struct Record {
    /// What had been carried when the program ended.
    carried: u64,
    unread: u64,
    /// Whether they have once read all there was.
    drained: bool,
    /// For how long they have been looked at.
    spent: Duration,
    /// For how long of that they did nothing since they last read something.
    idle: Duration,
    /// The longest time that they took to read something.
    longest: Duration,
}

impl Tail {
    /// Begins with the end of the program.
    pub(crate) fn of(program: Program, progress: &Arc<Progress>) -> Tail {
        let record = Record { carried: progress.read(), ..Record::default() };
        let (program, family) = (program.pid.as_raw(), Family::of(program.leader));
        Tail { program, family, progress: Arc::clone(progress), looked: Instant::now(), cost: Duration::ZERO, record }
    }

    /// Whether to wait for more.
    pub(crate) fn is_awaited(&mut self) -> bool {
        let writers = self.look();
        self.weigh(writers)
    }

    /// The same where the program runs on, and nothing but filters is waited for. What is waited for in vain is not the next time.
    pub(crate) fn has_filters(&mut self) -> bool {
        let writers = self.look();
        if writers.input == Input::None {
            return false;
        }
        let processes = writers.processes.clone();
        let awaited = self.weigh(writers);
        if !awaited {
            self.progress.give_up(processes);
        }
        awaited
    }

    /// How long to rest until the next look.
    pub(crate) fn rest(&self) -> Duration {
        STEP.max(self.cost * REST)
    }

    fn look(&mut self) -> Writers {
        let begun = Instant::now();
        let mut members = self.family.members(&Process::all());
        members.retain(|process| process.pid != self.program && !self.progress.is_given_up(process));
        let writers = Writers::find(self.progress.streams(), &members);
        self.cost = begun.elapsed();
        writers
    }

    fn weigh(&mut self, writers: Writers) -> bool {
        let now = Instant::now();
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.looked, now));
        self.record.weigh(passed, self.progress.read(), self.progress.is_sending(), writers)
    }
}

impl Record {
    /// Takes note of what was seen after that time, and of all that was carried by then. Returns whether to wait for more.
    fn weigh(&mut self, passed: Duration, carried: u64, sending: bool, writers: Writers) -> bool {
        if writers.processes.is_empty() {
            return false;
        }
        // Who can't write because the host takes nothing loses no time by it.
        if !sending {
            self.spent += passed;
            let busy = writers.processes.iter().any(Process::is_busy);
            self.idle += if busy { Duration::ZERO } else { passed };
        }
        if writers.unread < self.unread {
            self.longest = self.longest.max(self.idle);
            self.idle = Duration::ZERO;
        }
        self.unread = writers.unread;
        self.drained |= writers.unread == 0;
        // One that takes its time over each line does so over the last.
        let patience = |least: Duration| least.max(self.longest * 2);
        let (silence, longest, most) = match writers.input {
            Input::None => (SILENCE, LEFT_BEHIND, BACKLOG),
            Input::Open if self.drained => (patience(SILENCE * 2), OPEN_FILTER, BACKLOG),
            Input::Open => (patience(UNREAD), OPEN_FILTER, BACKLOG),
            Input::Ended if writers.unread > 0 => (patience(UNREAD), FILTER, u64::MAX),
            Input::Ended => (patience(FILTER_SILENCE), FILTER, u64::MAX),
        };
        self.idle < silence && self.spent < longest && carried - self.carried < most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(20);

    fn writers(input: Input, unread: u64) -> Writers {
        Writers { processes: vec![Process::example(7, 1, 5)], input, unread }
    }

    /// Of what is seen at one look after the other, how long it is waited for: at most `most`.
    fn waited(most: Duration, mut look: impl FnMut(u32) -> Writers) -> Duration {
        let mut record = Record::default();
        let looks = (0..).take_while(|number| LOOK * *number < most);
        LOOK * looks.take_while(|number| record.weigh(LOOK, 0, false, look(*number))).count() as u32
    }

    #[test]
    fn a_filter_is_waited_for_and_a_server_is_not() {
        let minute = Duration::from_secs(60);
        assert_eq!(waited(minute, |_| Writers::default()), Duration::ZERO, "nobody is left");
        assert!(waited(minute, |_| writers(Input::None, 0)) <= SILENCE + LOOK);
        let busy = |input| {
            let mut writers = writers(input, 0);
            writers.processes[0].state = b'R';
            writers
        };
        let near = |time: Duration, expected: Duration| time <= expected && time + LOOK * 2 >= expected;
        assert!(near(waited(minute, |_| busy(Input::None)), LEFT_BEHIND));
        assert!(near(waited(minute, |_| busy(Input::Open)), OPEN_FILTER));
        assert!(near(waited(minute, |_| busy(Input::Ended)), FILTER), "it may sort");
        assert!(near(waited(minute, |_| writers(Input::Ended, 0)), FILTER_SILENCE + LOOK));
        assert!(near(waited(minute, |_| writers(Input::Ended, 9)), UNREAD + LOOK), "it does not read");
    }

    #[test]
    fn one_that_takes_its_time_gets_it() {
        // A line every two seconds, of ten: the last is read long before it is written.
        let slow = |number: u32| writers(Input::Ended, 10_u64.saturating_sub(u64::from(number / 100)));
        assert!(waited(Duration::from_secs(22), slow) >= Duration::from_secs(22));
        // What does nothing but wake from time to time is not at work.
        let ticks = |number: u32| {
            let mut writers = writers(Input::Ended, 0);
            writers.processes[0].state = if number.is_multiple_of(10) { b'R' } else { b'S' };
            writers
        };
        assert!(waited(Duration::from_secs(60), ticks) < Duration::from_secs(2));
    }

    #[test]
    fn a_host_that_takes_nothing_is_waited_for_and_a_flood_is_not() {
        let mut record = Record::default();
        assert!((0..9_000).all(|_| record.weigh(LOOK, 0, true, writers(Input::None, 0))));
        assert!(!record.weigh(LOOK, BACKLOG, true, writers(Input::None, 0)));
        assert!(record.weigh(LOOK, BACKLOG, true, writers(Input::Ended, 0)));
    }
}
