//! Reboots that nobody asked for: how many in a row are lived through, and who in the guest is behind them.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{
    base::printed::printable,
    error::{Error, start::StartCause},
};

/// So many in a row are a loop. A system may well reboot once or twice before it is up, as one that gives its files labels or takes up a
/// new kernel.
pub(crate) const LOOP: u32 = 3;
/// How what the agent says of it on the console begins; see `quicksand-agent/guest/rebooter.rs`.
const SAID: &str = "quicksand: rebooted by ";
/// What it calls a command of the host's.
const COMMAND: &str = "a command: ";
/// Most that is shown of it, in characters.
const SHOWN: usize = 200;

/// Who in the guest has it reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rebooter {
    words: String,
}

impl Rebooter {
    /// The last of whom a console tells.
    pub(crate) fn find(console: &str) -> Option<Rebooter> {
        let words = console.lines().rev().find_map(|line| line.split_once(SAID))?.1;
        Some(Rebooter { words: printable(words).chars().take(SHOWN).collect() })
    }

    /// Whether a command that the host has run is behind it.
    pub(crate) fn is_a_command(&self) -> bool {
        self.words.starts_with(COMMAND)
    }
}

impl fmt::Display for Rebooter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// A machine's life, as far as it matters for who is behind its reboot.
#[derive(Debug)]
pub(crate) struct Life {
    began: Instant,
    used: AtomicBool,
    counted: AtomicBool,
}

impl Default for Life {
    fn default() -> Life {
        Life { began: Instant::now(), used: AtomicBool::new(false), counted: AtomicBool::new(false) }
    }
}

impl Life {
    /// Takes note that somebody has a command run in it.
    pub(crate) fn mark_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Whether anybody had a command run in it.
    pub(crate) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes note that its reboot is counted. Tells whether it was before.
    pub(crate) fn mark_counted(&self) -> bool {
        self.counted.swap(true, Ordering::Relaxed)
    }

    /// For how long the machine runs or has run.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }
}

/// The reboots in a row that nobody asked for.
#[derive(Debug, Default, Clone)]
pub(crate) struct Restarts {
    count: u32,
    by: Option<Rebooter>,
}

impl Restarts {
    /// Counts one.
    pub(crate) fn add(&mut self, by: Option<Rebooter>) {
        self.count += 1;
        self.by = by.or(self.by.take());
    }

    /// Begins anew: somebody has asked for the last one.
    pub(crate) fn clear(&mut self) {
        *self = Restarts::default();
    }

    /// Counts the reboot that an error of a boot tells of, after which it is worth to boot again. Any other error ends that, and tells of
    /// the reboots before it.
    pub(super) fn go_on_after(&mut self, error: Error) -> Result<(), Error> {
        let Error::Start(mut error) = error else { return Err(error) };
        match &error.cause {
            StartCause::GuestRebooted => {
                self.add(Rebooter::find(&error.console));
                if !self.is_loop() {
                    return Ok(());
                }
                error.cause = self.cause();
            }
            // Its time was used up by the boots before this one.
            StartCause::AgentSilent(_) | StartCause::TooLong(_) if self.count > 0 => error.cause = self.cause(),
            _ => {}
        }
        Err(error.into())
    }

    /// How many there were.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Whether that is enough.
    pub(crate) fn is_loop(&self) -> bool {
        self.count >= LOOP
    }

    pub(crate) fn cause(&self) -> StartCause {
        StartCause::RebootLoop { times: self.count, by: self.by.as_ref().map(Rebooter::to_string) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::start::{Stage, StartError};

    fn error(cause: StartCause, console: &str) -> Error {
        let (qemu_said, console) = (String::new(), console.to_owned());
        Box::new(StartError { stage: Stage::Boot, cause, qemu_said, console }).into()
    }

    fn told(restarts: &mut Restarts, cause: StartCause, console: &str) -> Option<String> {
        restarts.go_on_after(error(cause, console)).err().map(|error| error.to_string())
    }

    #[test]
    fn the_third_reboot_in_a_row_is_a_loop_and_says_whose() {
        let mut restarts = Restarts::default();
        let said = "a\nquicksand: rebooted by x.service: reboot\nquicksand: rebooted by loop.service: \x1b[1mreboot\nb";
        assert_eq!(told(&mut restarts, StartCause::GuestRebooted, said), None);
        assert_eq!(told(&mut restarts, StartCause::GuestRebooted, "nothing"), None);
        let words = told(&mut restarts, StartCause::GuestRebooted, "nothing").unwrap();
        assert!(words.contains("3 times in a row, the last time by loop.service: reboot"), "{words}");
        restarts.clear();
        assert_eq!(told(&mut restarts, StartCause::GuestRebooted, "nothing"), None);
        let words = told(&mut restarts, StartCause::AgentSilent(std::time::Duration::ZERO), "").unwrap();
        assert!(words.contains("once"), "{words}");
        let words = told(&mut restarts, StartCause::GuestEnded, "").unwrap();
        assert!(words.contains("switched itself off"), "{words}");
    }

    #[test]
    fn a_command_is_told_from_a_unit() {
        let find = |words: &str| Rebooter::find(&format!("[ 1.0] quicksand: rebooted by {words}\nReached x"));
        assert!(find("a command: systemctl reboot").unwrap().is_a_command());
        assert!(!find("loop.service: systemctl reboot").unwrap().is_a_command());
        assert_eq!(find(&"x".repeat(9000)).unwrap().to_string().len(), SHOWN);
        assert_eq!(Rebooter::find("quicksand: probe"), None);
    }
}
