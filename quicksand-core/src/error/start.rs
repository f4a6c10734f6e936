//! Why a machine did not start, at which stage, and what to do.

use std::{fmt, process::ExitStatus, time::Duration};

use crate::{guest::ChannelError, qemu::qmp::QmpError};

/// A step of a machine's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// QEMU takes its arguments and answers on its control channel.
    Launch,
    /// QEMU loads a frozen state.
    Load,
    /// The guest's kernel boots until the agent answers.
    Boot,
    /// The guest's init starts what it is to start.
    Settle,
    /// A clone's agent answers and takes up a life of its own.
    Wake,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Launch => "launch QEMU",
            Stage::Load => "load the frozen state",
            Stage::Boot => "boot the guest",
            Stage::Settle => "wait until the guest is up",
            Stage::Wake => "wake the guest",
        })
    }
}

/// What went wrong at that stage.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StartCause {
    /// QEMU ended.
    QemuExited(ExitStatus),
    /// The host has not enough memory for the guest.
    OutOfMemory,
    /// The guest's kernel gave up; with its words.
    KernelPanic(String),
    /// The guest switched itself off.
    GuestEnded,
    /// The guest rebooted. One that boots is booted again, until it is a [loop](StartCause::RebootLoop).
    GuestRebooted,
    /// The guest reboots again and again.
    RebootLoop {
        /// How many times in a row it did so without being asked to.
        times: u32,
        /// The unit and the program in the guest that had it do so the last time, where that could be seen.
        by: Option<String>,
    },
    /// Somebody on the host had QEMU end, with the reason that QEMU gave: `host-signal`, `host-qmp-quit`.
    EndedFromOutside(String),
    /// The agent did not answer in time.
    AgentSilent(Duration),
    /// The stage took too long.
    TooLong(Duration),
    /// The guest's init does not come to an end with what it is to start; with the units that it waits for. After a reboot the
    /// machine is still of use.
    Unfinished {
        /// How long was waited.
        waited: Duration,
        /// The units whose jobs run.
        jobs: String,
    },
    /// The conversation with the guest failed.
    Channel(ChannelError),
    /// QEMU refused a command.
    Qmp(QmpError),
    /// QEMU could not make sense of the frozen state.
    BadState(String),
}

/// A machine did not start.
#[derive(Debug, Clone)]
pub struct StartError {
    /// The stage that failed.
    pub stage: Stage,
    /// Why.
    pub cause: StartCause,
    /// What QEMU said on its standard error.
    pub qemu_said: String,
    /// The last lines of the guest's console.
    pub console: String,
}

impl StartCause {
    /// What QEMU's end means, with the reason that it gave on its control channel.
    pub(crate) fn of_end(status: ExitStatus, reason: Option<&str>) -> StartCause {
        match reason {
            Some("guest-shutdown") => StartCause::GuestEnded,
            Some("guest-reset") => StartCause::GuestRebooted,
            Some(reason) if reason.starts_with("host-") && status.success() => {
                StartCause::EndedFromOutside(reason.to_owned())
            }
            _ => StartCause::QemuExited(status),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.stage)?;
        let hint = match &self.cause {
            StartCause::QemuExited(status) => {
                write!(f, "QEMU ended with {status}")?;
                "QEMU's own words say more; extra arguments are the first suspects"
            }
            StartCause::OutOfMemory => {
                f.write_str("the host has not enough memory for the guest")?;
                "ask for less with memory(..), or run fewer tests at once"
            }
            StartCause::KernelPanic(line) => {
                write!(f, "the guest's kernel gave up: {}", line.trim())?;
                "the console says more; too little memory(..) is a common cause"
            }
            StartCause::GuestEnded => {
                f.write_str("the guest switched itself off")?;
                "the console says more"
            }
            StartCause::GuestRebooted => {
                f.write_str("the guest rebooted")?;
                "the console says more"
            }
            StartCause::RebootLoop { times, by } => {
                f.write_str("the guest reboots again and again: ")?;
                match times {
                    1 => f.write_str("once before the time for a boot was over")?,
                    times => write!(f, "{times} times in a row")?,
                }
                if let Some(by) = by {
                    write!(f, ", the last time by {by}")?;
                }
                "reboot() tries once more, revert(..) goes back to before that"
            }
            StartCause::EndedFromOutside(reason) => {
                write!(f, "somebody on the host had QEMU end ({reason})")?;
                "look for who ends processes here: the harness of the tests, a limit of a control group"
            }
            StartCause::AgentSilent(waited) => {
                write!(f, "no answer from the guest's agent for {} s", waited.as_secs())?;
                "a slow host needs a longer boot_timeout(..); the console shows how far the guest came"
            }
            StartCause::TooLong(waited) => {
                write!(f, "not done after {} s", waited.as_secs())?;
                "a slow host needs a longer boot_timeout(..); the console shows how far the guest came"
            }
            StartCause::Unfinished { waited, jobs } => {
                write!(f, "not done after {} s: its systemd waits for {jobs}", waited.as_secs())?;
                "systemctl status of that unit says more; one that needs its time needs a longer boot_timeout(..)"
            }
            StartCause::Channel(error) => {
                write!(f, "failed to {error}")?;
                "the console may say more"
            }
            StartCause::Qmp(error) => {
                write!(f, "failed to {error}")?;
                "QEMU's own words may say more"
            }
            StartCause::BadState(said) => {
                write!(f, "QEMU can't use it: {said}")?;
                "the state is made again where its image is known"
            }
        };
        write!(f, "\n  what to do: {hint}")?;
        section(f, "QEMU said", &self.qemu_said)?;
        section(f, "last lines of the console", &self.console)
    }
}

impl std::error::Error for StartError {}

fn section(f: &mut fmt::Formatter<'_>, title: &str, text: &str) -> fmt::Result {
    if text.is_empty() {
        return write!(f, "\n  {title}: nothing");
    }
    write!(f, "\n  {title}:")?;
    text.lines().try_for_each(|line| write!(f, "\n    {line}"))
}
