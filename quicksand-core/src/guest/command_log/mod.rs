//! What was run in a sandbox, with its output and time, for whoever looks into a failure.
//!
//! Kept within a bound: of a long output the first and the last, of many commands the last. A file may follow it, so that something is
//! left where the process is killed.

mod record;

use std::{
    collections::VecDeque,
    fmt::Write,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::guest::exit_status::ExitStatus;
use record::Record;

/// How much is kept of the start of an output, and of its end, in bytes.
const START: usize = 4 * 1024;
const END: usize = 12 * 1024;
/// How much is kept of a command line, in bytes.
const LINE: usize = 4 * 1024;
/// How much is kept in all, in bytes.
const ALL: usize = 2 << 20;
/// How long the file that follows may become before it is written anew with what is kept, in bytes.
const FILE: usize = 2 * ALL;

/// What was run in a sandbox.
#[derive(Debug)]
pub(crate) struct CommandLog {
    begun: Instant,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    commands: VecDeque<Logged>,
    bytes: usize,
    last_id: u64,
    forgotten: u64,
    /// The file that follows, if one does.
    record: Option<Record>,
}

/// A command, as a line of JSON has it.
#[derive(Debug, Serialize)]
struct Logged {
    /// By which the lines of one command are found.
    id: u64,
    /// When it began, in seconds since the sandbox started.
    at_s: f64,
    /// How long it took, once it ended.
    took_s: Option<f64>,
    command: String,
    /// How it ended.
    end: Option<String>,
    stdout: Option<Clip>,
    stderr: Option<Clip>,
}

/// An output, or its start and end.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Clip {
    Whole(String),
    Ends { start: String, end: String, bytes: usize },
}

/// The entry of one command.
#[derive(Debug, Clone)]
pub(crate) struct LogEntry {
    log: Arc<CommandLog>,
    id: u64,
}

impl Default for CommandLog {
    fn default() -> CommandLog {
        CommandLog { begun: Instant::now(), kept: Mutex::default() }
    }
}

impl CommandLog {
    /// Enters a command that begins.
    pub(crate) fn enter(self: &Arc<Self>, command: &str) -> LogEntry {
        let mut kept = self.kept();
        kept.last_id += 1;
        let id = kept.last_id;
        let (at_s, command) = (self.begun.elapsed().as_secs_f64(), clipped(command.as_bytes(), LINE));
        kept.push(Logged { id, at_s, took_s: None, command, end: None, stdout: None, stderr: None });
        kept.write_down(id);
        LogEntry { log: Arc::clone(self), id }
    }

    /// The command that began last of those that run.
    pub(crate) fn running(&self) -> Option<String> {
        let kept = self.kept();
        kept.commands.iter().rev().find(|command| command.took_s.is_none()).map(|command| command.command.clone())
    }

    /// All that is kept, one JSON object a line.
    pub(crate) fn json_lines(&self) -> String {
        self.kept().json_lines()
    }

    /// Has a file follow, made with the next command: a line as a command begins, and another as it ends.
    pub(crate) fn record(&self, file: &Path) {
        self.kept().record = Some(Record::new(file));
    }

    /// Has none follow any more.
    pub(crate) fn stop_recording(&self) {
        self.kept().record = None;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn push(&mut self, command: Logged) {
        self.bytes += command.len();
        self.commands.push_back(command);
        self.shrink();
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut Logged)) {
        // Most are the last one.
        let Some(command) = self.commands.iter_mut().rev().find(|command| command.id == id) else { return };
        let before = command.len();
        change(command);
        self.bytes += command.len() - before;
        self.shrink();
    }

    fn json_lines(&self) -> String {
        let mut text = String::new();
        if self.forgotten > 0 {
            let _ = writeln!(text, r#"{{"forgotten":{}}}"#, self.forgotten);
        }
        for command in &self.commands {
            text.push_str(&command.json_line());
        }
        text
    }

    /// Writes a command as it is now into the file that follows.
    fn write_down(&mut self, id: u64) {
        let Some(mut record) = self.record.take() else { return };
        let command = self.commands.iter().rev().find(|command| command.id == id);
        let line = command.map(Logged::json_line).unwrap_or_default();
        let fits = record.length() + line.len() <= FILE;
        match if fits { record.add(&line) } else { record.replace(&self.json_lines()) } {
            Ok(()) => self.record = Some(record),
            Err(error) => {
                let path = record.path().display();
                tracing::warn!(%path, %error, "what is run is no longer written down as it comes");
            }
        }
    }

    fn shrink(&mut self) {
        while self.bytes > ALL
            && let Some(oldest) = self.commands.pop_front()
        {
            self.bytes -= oldest.len();
            self.forgotten += 1;
        }
    }
}

impl Logged {
    fn json_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// What it takes, about. Never less than before.
    fn len(&self) -> usize {
        let clip = |clip: &Option<Clip>| match clip {
            None => 0,
            Some(Clip::Whole(text)) => text.len(),
            Some(Clip::Ends { start, end, .. }) => start.len() + end.len(),
        };
        200 + self.command.len() + self.end.as_ref().map_or(0, String::len) + clip(&self.stdout) + clip(&self.stderr)
    }
}

impl Clip {
    fn of(bytes: &[u8]) -> Clip {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if bytes.len() <= START + END {
            return Clip::Whole(text(bytes));
        }
        let (start, end) = (text(&bytes[..START]), text(&bytes[bytes.len() - END..]));
        Clip::Ends { start, end, bytes: bytes.len() }
    }
}

impl LogEntry {
    /// Enters what the command printed.
    pub(crate) fn printed(&self, stdout: &[u8], stderr: &[u8]) {
        let (stdout, stderr) = (Some(Clip::of(stdout)), Some(Clip::of(stderr)));
        self.log.kept().change(self.id, |command| (command.stdout, command.stderr) = (stdout, stderr));
    }

    /// Enters that it ended by itself.
    pub(crate) fn ended(&self, status: ExitStatus) {
        self.end(match status {
            ExitStatus::Code(code) => format!("code {code}"),
            ExitStatus::Signal(signal) => format!("signal {signal}"),
        });
    }

    /// Enters that it could not be run, or not to its end.
    pub(crate) fn failed(&self, why: &dyn std::fmt::Display) {
        self.end(format!("failed to {}", clipped(why.to_string().as_bytes(), LINE)));
    }

    /// Enters that it was killed after its time.
    pub(crate) fn timed_out(&self, after: Duration) {
        self.end(format!("killed after {} ms", after.as_millis()));
    }

    fn end(&self, how: String) {
        let now = self.log.begun.elapsed().as_secs_f64();
        let mut kept = self.log.kept();
        let mut is_new = false;
        kept.change(self.id, |command| {
            // A killed one also ends by a signal.
            if command.end.is_none() {
                (command.took_s, command.end) = (Some(now - command.at_s), Some(how));
                is_new = true;
            }
        });
        if is_new {
            kept.write_down(self.id);
        }
    }
}

/// A text that may be long, without its end.
fn clipped(bytes: &[u8], limit: usize) -> String {
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]).into_owned();
    if bytes.len() > limit {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn lines(log: &CommandLog) -> Vec<Value> {
        log.json_lines().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn commands_are_told_in_order_with_output_and_end() {
        let log = Arc::new(CommandLog::default());
        let (first, second) = (log.enter("echo \"a\nb\""), log.enter("sleep 9"));
        assert_eq!(log.running().as_deref(), Some("sleep 9"));
        first.printed(b"a\nb\n", b"\xff");
        first.ended(ExitStatus::Code(3));
        second.timed_out(Duration::from_secs(1));
        second.ended(ExitStatus::Signal(9));
        assert_eq!(log.running(), None);
        log.enter("still running");
        let lines = lines(&log);
        assert_eq!((&lines[0]["command"], &lines[0]["stdout"]), (&"echo \"a\nb\"".into(), &"a\nb\n".into()));
        assert_eq!((&lines[0]["end"], &lines[0]["stderr"]), (&"code 3".into(), &"\u{fffd}".into()));
        assert!(lines[0]["took_s"].as_f64().is_some_and(|took| took >= 0.0));
        assert_eq!(lines[1]["end"], "killed after 1000 ms");
        assert_eq!((&lines[2]["end"], &lines[2]["took_s"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn long_outputs_and_many_commands_stay_within_the_bound() {
        let log = Arc::new(CommandLog::default());
        let long = [vec![b'a'; START], vec![b'-'; 1 << 20], vec![b'z'; END]].concat();
        let entry = log.enter(&"x".repeat(1 << 20));
        entry.printed(&long, b"");
        let line = &lines(&log)[0];
        assert_eq!(line["stdout"]["start"], "a".repeat(START));
        assert_eq!(line["stdout"]["end"], "z".repeat(END));
        assert_eq!(line["stdout"]["bytes"], long.len());
        assert!(line["command"].as_str().unwrap().len() < 2 * LINE);

        for n in 0..1000 {
            log.enter(&n.to_string()).printed(&long, &long);
        }
        let lines = lines(&log);
        assert!(log.json_lines().len() < 2 * ALL);
        assert_eq!(lines.last().unwrap()["command"], "999");
        assert_eq!(lines[0]["forgotten"].as_u64().unwrap() as usize + lines.len() - 1, 1001);
        entry.ended(ExitStatus::Code(0));
    }

    #[test]
    fn a_file_follows_within_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.jsonl");
        let lines = || -> Vec<Value> {
            let text = std::fs::read_to_string(&path).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let log = Arc::new(CommandLog::default());
        log.record(&path);
        assert!(!path.exists(), "nothing was run");
        let first = log.enter("first");
        assert_eq!((&lines()[0]["command"], &lines()[0]["end"]), (&"first".into(), &Value::Null));
        first.printed(b"said", b"");
        first.timed_out(Duration::from_secs(1));
        first.ended(ExitStatus::Signal(9));
        let told = lines();
        assert_eq!((told.len(), &told[1]["id"], &told[1]["stdout"]), (2, &told[0]["id"], &"said".into()));
        assert_eq!(told[1]["end"], "killed after 1000 ms");

        for n in 0..1000 {
            let entry = log.enter(&n.to_string());
            entry.printed(&[b'x'; START + END], b"");
            entry.ended(ExitStatus::Code(0));
            assert!(std::fs::metadata(&path).unwrap().len() <= FILE as u64);
        }
        let told = lines();
        assert!(told[0]["forgotten"].as_u64().is_some_and(|forgotten| forgotten > 0), "{}", told[0]);
        assert_eq!((&told.last().unwrap()["command"], &told.last().unwrap()["end"]), (&"999".into(), &"code 0".into()));
        log.stop_recording();
        let before = told.len();
        log.enter("later");
        assert_eq!(lines().len(), before);
        // A directory that has gone is no fault of the command.
        log.record(&directory.path().join("gone/x.jsonl"));
        log.enter("nowhere").ended(ExitStatus::Code(0));
    }
}
