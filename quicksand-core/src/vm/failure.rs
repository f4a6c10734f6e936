//! Why a machine did not start: the stage, the cause, QEMU's own words, the last lines of the console, what to do.

use std::{
    fmt, fs,
    io::{Read, Seek, SeekFrom},
    path::Path,
    process::ExitStatus,
    time::Duration,
};

use super::console::Console;
use crate::{
    base::printed::{last_lines, printable},
    guest::ChannelError,
    qemu::qmp::QmpError,
};

/// Lines of the console, and of QEMU's own words, that an error shows.
const LINES: usize = 40;
/// How much of the end of QEMU's log is looked at, in bytes.
const TAIL: u64 = 64 * 1024;

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
    pub(super) fn of_end(status: ExitStatus, reason: Option<&str>) -> StartCause {
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

impl StartError {
    /// Puts together what is known once a stage has failed.
    pub(super) fn gather(stage: Stage, cause: StartCause, qemu_log: &Path, console: &Console) -> Box<StartError> {
        let qemu_said = last_lines(&qemu_words(qemu_log), LINES);
        let console = console.text();
        let lines: Vec<&str> = console.lines().collect();
        let panic = lines.iter().position(|line| line.contains("Kernel panic - "));
        // A panic is followed by a trace that can be longer than what is shown, and what led to it stands before it.
        let end = panic.map_or(lines.len(), |at| lines.len().min(at + LINES / 2));
        let shown = lines[end.saturating_sub(LINES)..end].join("\n");
        let panic = panic.map(|at| lines[at].to_owned());
        let cause = match (cause, panic) {
            // Whatever was noticed first, a panic explains it.
            (_, Some(line)) => StartCause::KernelPanic(line),
            (StartCause::QemuExited(_), None) if qemu_said.contains("Cannot allocate memory") => {
                StartCause::OutOfMemory
            }
            (cause, None) => cause,
        };
        Box::new(StartError { stage, cause, qemu_said, console: shown })
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

/// The last of what QEMU said. It is trusted more than a guest, but a guest may move it to many words.
pub(super) fn qemu_words(log: &Path) -> String {
    let read = || {
        let mut file = fs::File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<String> = text.lines().map(printable).filter(|line| !line.is_empty() && !is_remark(line)).collect();
    lines.join("\n")
}

/// Whether a line of QEMU's explains nothing that goes wrong: each machine whose card leads nowhere has the first two said of it, as
/// it is meant to, and what a version calls deprecated works all the same.
fn is_remark(line: &str) -> bool {
    ["has no peer", "is not connected to host network", "is deprecated"].iter().any(|remark| line.contains(remark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        os::unix::{net::UnixStream, process::ExitStatusExt},
    };

    fn gather(status: i32, qemu: &str, console: &str) -> Box<StartError> {
        let log = tempfile::NamedTempFile::new().unwrap();
        fs::write(&log, qemu).unwrap();
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let kept = Console::follow(ours).unwrap();
        guest.write_all(console.as_bytes()).unwrap();
        drop(guest);
        while kept.text().len() < console.len() {
            std::thread::yield_now();
        }
        let cause = StartCause::of_end(ExitStatus::from_raw(status), None);
        StartError::gather(Stage::Boot, cause, log.path(), &kept)
    }

    #[test]
    fn the_cause_is_found_in_the_logs() {
        let panic = gather(0, "", "a\n[    1.0] Kernel panic - not syncing: no init\nb");
        assert!(matches!(&panic.cause, StartCause::KernelPanic(line) if line.contains("no init")));
        let trace: Vec<String> = (0..100).map(|n| format!("trace {n}")).collect();
        let panic = gather(0, "", &format!("why\n[    1.0] Kernel panic - not syncing: no init\n{}", trace.join("\n")));
        assert!(matches!(&panic.cause, StartCause::KernelPanic(line) if line.contains("no init")));
        assert!(panic.console.starts_with("why\n") && panic.console.ends_with("trace 18"), "{}", panic.console);
        let memory = gather(256, "qemu: cannot set up guest memory 'memory': Cannot allocate memory", "");
        assert!(matches!(memory.cause, StartCause::OutOfMemory));
        assert!(matches!(gather(0, "", "bye").cause, StartCause::QemuExited(_)));
        assert!(matches!(gather(256, "no such option", "").cause, StartCause::QemuExited(_)));
    }

    #[test]
    fn an_end_is_what_qemu_says_that_it_is() {
        let of = |status, reason| StartCause::of_end(ExitStatus::from_raw(status), reason);
        assert!(matches!(of(0, Some("guest-shutdown")), StartCause::GuestEnded));
        assert!(matches!(of(0, Some("guest-reset")), StartCause::GuestRebooted));
        for reason in ["host-signal", "host-qmp-quit"] {
            assert!(matches!(of(0, Some(reason)), StartCause::EndedFromOutside(told) if told == reason));
        }
        // Killed, failed, or of a reason that is not known here.
        for (status, reason) in [(9, None), (256, Some("host-error")), (0, None), (0, Some("guest-panic"))] {
            assert!(matches!(of(status, reason), StartCause::QemuExited(_)));
        }
    }

    #[test]
    fn remarks_are_no_cause() {
        let remarks = "qemu: warning: hub port plug0 has no peer\n\
                       qemu: -mon chardev=qmp,mode=control: warning: '-mon' is deprecated, use '-object' instead\n";
        assert_eq!(gather(256, remarks, "").qemu_said, "");
        assert_eq!(
            gather(256, &format!("{remarks}qemu: no such option\n{remarks}"), "").qemu_said,
            "qemu: no such option"
        );
    }

    #[test]
    fn the_message_has_all_its_parts() {
        let lines: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
        let text = gather(256, "bad option", &lines.join("\n")).to_string();
        assert!(text.starts_with("boot the guest: QEMU ended with exit status: 1\n  what to do: "), "{text}");
        assert!(text.contains("\n  QEMU said:\n    bad option\n"), "{text}");
        assert!(text.contains("line 60") && text.ends_with("line 99") && !text.contains("line 59"), "{text}");
    }
}
