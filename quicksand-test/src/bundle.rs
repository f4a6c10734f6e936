//! What a failed test leaves, so that its failure explains itself.
//!
//! ```text
//! report.json      how it ended, how long each part took, where its machine is kept
//! failure.txt      why it failed
//! commands.jsonl   what was run in the guest, with its output and time
//! console.log      what the guest printed on its console last
//! journal.log      the guest's journal, or its kernel's messages where it has none
//! screenshot.png   its display, where it has one
//! qemu.sh          the command that started QEMU
//! qemu.log         what QEMU said
//! ```
//!
//! All of it is bounded.

use std::{fs, io, path::Path, time::Duration};

use quicksand_core::harness::SandboxExt;
use quicksand_core::{Error, Sandbox};
use serde::Serialize;
use tokio::time::timeout;

/// What was run in the guest. It grows while the test runs.
pub(crate) const COMMANDS: &str = "commands.jsonl";
/// Most that a file may hold, in bytes.
const MOST: usize = 4 << 20;
/// What the guest is asked for. It writes its journal under the machine id with which it booted, not under the clone's own.
const JOURNAL: &str = "{ if command -v journalctl > /dev/null; then journalctl --merge --no-pager --output=short-precise --lines=5000; \
     else dmesg; fi; } 2>&1 | tail -c 1000000";

/// How a test ended and how long its parts took: `report.json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Raised with every change that a reader would misread.
    pub(crate) version: u32,
    pub(crate) test: String,
    pub(crate) process: u32,
    /// In seconds since 1970.
    pub(crate) began: f64,
    pub(crate) end: String,
    pub(crate) times: Times,
    /// How its machine came to run.
    pub(crate) start: Option<String>,
    /// Why it did not come to run faster.
    pub(crate) start_reasons: Vec<String>,
    /// Where its machine is kept, or why it is not.
    pub(crate) machine: Option<Result<String, String>>,
}

/// How long the parts of a test took, in seconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Times {
    /// From its beginning until its machine was there, its save made where need be.
    pub(crate) prepare_s: f64,
    /// Of that, how long it waited for its turn.
    pub(crate) waited_s: f64,
    /// Of that, how long its machine took to start.
    pub(crate) start_s: f64,
    /// The test's own code.
    pub(crate) body_s: f64,
    /// Keeping its machine.
    pub(crate) keep_s: f64,
}

/// Writes the report and the reason.
pub(crate) fn write_report(directory: &Path, report: &Report, reason: &str) {
    let mut text = serde_json::to_string_pretty(report).unwrap_or_default();
    text.push('\n');
    write(directory, "report.json", &text);
    write(directory, "failure.txt", &format!("{}: {reason}\n", report.test));
}

/// Writes what is known of a machine without asking its guest.
pub(crate) fn write_evidence(directory: &Path, sandbox: &Sandbox) {
    let Ok(evidence) = sandbox.evidence() else { return };
    write(directory, COMMANDS, &evidence.commands);
    write(directory, "console.log", &evidence.console);
    write(directory, "qemu.sh", &format!("{}\n", evidence.qemu_command));
    write(directory, "qemu.log", &evidence.qemu_log);
}

/// Asks the guest for its journal. One that does not answer is not waited for.
pub(crate) async fn write_journal(directory: &Path, sandbox: &Sandbox, patience: Duration) {
    let asked = sandbox.command("/bin/sh").args(["-c", JOURNAL]).timeout(patience).output().await;
    match asked {
        Ok(journal) => write(directory, "journal.log", &journal.stdout),
        Err(error) => write(directory, "journal.log", &format!("it could not be had: failed to {error}\n")),
    }
}

/// Takes a picture of the display, where there is one.
pub(crate) async fn write_screenshot(directory: &Path, sandbox: &Sandbox, patience: Duration) {
    let path = directory.join("screenshot.png");
    match timeout(patience, sandbox.screenshot(&path)).await {
        Ok(Ok(()) | Err(Error::NoDisplay)) => {}
        Ok(Err(error)) => tracing::warn!(path = %path.display(), %error, "there is no picture of the display"),
        Err(_) => tracing::warn!(path = %path.display(), "there is no picture of the display in time"),
    }
}

/// The files that are there.
pub(crate) fn files(directory: &Path) -> io::Result<Vec<String>> {
    let mut files: Vec<String> = fs::read_dir(directory)?
        .flatten()
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .filter(|path| {
            path.rsplit_once('.').is_some_and(|(_, kind)| ["json", "jsonl", "log", "png", "sh", "txt"].contains(&kind))
        })
        .collect();
    files.sort_unstable();
    Ok(files)
}

/// Writes a file, of a long text its end.
fn write(directory: &Path, name: &str, text: &str) {
    let mut from = text.len().saturating_sub(MOST);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    // What there is of it already is not lost by an end of this process.
    let fresh = directory.join(name.to_owned() + ".new");
    let written = fs::write(&fresh, &text[from..]).and_then(|()| fs::rename(&fresh, directory.join(name)));
    if let Err(error) = written {
        tracing::warn!(path = %directory.join(name).display(), %error, "a part of what is known of a failure is lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "x.log", &"é".repeat(MOST));
        let written = fs::read_to_string(directory.path().join("x.log")).unwrap();
        assert!(written.len() <= MOST && written.len() > MOST - 4);
        fs::write(directory.path().join("failed"), "").unwrap();
        assert_eq!(files(directory.path()).unwrap(), [directory.path().join("x.log").to_str().unwrap()]);
    }
}
