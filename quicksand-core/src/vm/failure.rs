//! Why a machine did not start: the stage, the cause, QEMU's own words, the last lines of the console, what to do.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use super::console::Console;
use crate::{
    base::printed::{last_lines, printable},
    error::start::{Stage, StartCause, StartError},
};

/// Lines of the console, and of QEMU's own words, that an error shows.
const LINES: usize = 40;
/// How much of the end of QEMU's log is looked at, in bytes.
const TAIL: u64 = 64 * 1024;

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
    use std::process::ExitStatus;
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
