//! How a program of the guest ended.

use std::fmt;

use quicksand_protocol::message::{Done, Exit};

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

impl ExitStatus {
    /// Whether it ended by itself with code 0.
    pub fn success(self) -> bool {
        self == ExitStatus::Code(0)
    }

    /// As shells have it: 128 and the signal's number where a signal killed it.
    pub(crate) fn exit_code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128 + signal,
        }
    }

    /// As the agent tells it at the end of a program.
    pub(crate) fn of(done: &Done) -> ExitStatus {
        match *done {
            Done::Exited(Exit::Code(code)) => ExitStatus::Code(code),
            Done::Exited(Exit::Signal(signal)) => ExitStatus::Signal(signal),
            Done::Nothing | Done::Filtered | Done::ButFor(_) | Done::NotYet { .. } => ExitStatus::Code(0),
        }
    }
}

/// In words: `exit code 3` or `signal 9`.
impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(f, "exit code {code}"),
            ExitStatus::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}
