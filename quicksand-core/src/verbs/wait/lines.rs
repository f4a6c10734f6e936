//! Lines of the console and of files.

use std::{collections::VecDeque, os::unix::ffi::OsStrExt, path::PathBuf};

use quicksand_protocol::message::Request;
use regex_lite::Regex;
use tokio::io::AsyncReadExt;

use super::{Deadline, Wait};
use crate::{base::printed::printable, error::Result, guest::ChannelError, sandbox::Sandbox, verbs::pattern};

/// How much of a line is looked at, in bytes; what goes beyond is taken for another.
const LONGEST_LINE: usize = 64 * 1024;
/// Lines that an error shows.
const LINES: usize = 10;

impl Sandbox {
    /// Waits until a line of the guest's console fits a pattern, and returns it. Lines since the start count, as far back as the
    /// last 256 KiB.
    ///
    /// The pattern is a regular expression as in [`Terminal::wait_for`](crate::Terminal::wait_for).
    pub fn wait_for_console(&self, pattern: impl Into<String>) -> Wait<'_, String> {
        let pattern = pattern.into();
        Wait::new(move |deadline| in_console(self, pattern, deadline))
    }

    /// Waits until a line of a file in the guest, an absolute path, fits a pattern, and returns it. Lines that are there count; the
    /// file may still come, be cut off or be replaced by another. Of a line that is still being written counts what is there.
    ///
    /// The pattern is a regular expression as in [`Terminal::wait_for`](crate::Terminal::wait_for).
    pub fn wait_for_line(&self, path: impl Into<PathBuf>, pattern: impl Into<String>) -> Wait<'_, String> {
        let (path, pattern) = (path.into(), pattern.into());
        Wait::new(move |deadline| in_file(self, path, pattern, deadline))
    }
}

async fn in_console(sandbox: &Sandbox, pattern: String, deadline: Deadline) -> Result<String> {
    let (vm, regex) = (deadline.machine(sandbox).await?, pattern::compile(&pattern)?);
    match deadline.cut(vm.console_line(|line| regex.is_match(line))).await {
        Some(found) => found,
        None => {
            let what = format!("a line of the console that fits {pattern:?}");
            Err(deadline.missed(what, vm.console_tail(LINES)))
        }
    }
}

async fn in_file(sandbox: &Sandbox, path: PathBuf, pattern: String, deadline: Deadline) -> Result<String> {
    let mut lines = Lines::new(pattern::compile(&pattern)?);
    let vm = deadline.machine(sandbox).await?;
    let mut operation = vm.channel().start(&Request::Follow { path: path.as_os_str().as_bytes().to_vec() })?;
    let (Some(mut content), Some(mut faults)) = (operation.stdout.take(), operation.stderr.take()) else {
        return Err(ChannelError::Closed.into());
    };
    let mut fault = Vec::new();
    let work = async {
        let (mut bytes, mut more) = (Vec::with_capacity(32 * 1024), Vec::with_capacity(1024));
        loop {
            bytes.clear();
            more.clear();
            let len = tokio::select! {
                len = content.read_buf(&mut bytes) => len,
                len = faults.read_buf(&mut more) => len,
            };
            match len {
                Ok(0) | Err(_) => return None,
                Ok(_) if bytes.is_empty() => {
                    fault.extend_from_slice(&more);
                    let excess = fault.len().saturating_sub(LONGEST_LINE);
                    fault.drain(..excess);
                }
                Ok(_) => {
                    if let Some(line) = lines.push(&bytes) {
                        return Some(line);
                    }
                    // Long lines take the pattern longer than the guest takes to send more: the deadline must come between.
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    match deadline.cut(work).await {
        Some(Some(line)) => Ok(line),
        // The guest has ended it, or has gone: its reply says which.
        Some(None) => match operation.reply().await {
            Ok(_) => Err(ChannelError::Closed.into()),
            Err(error) => Err(vm.explain(error).await),
        },
        None => {
            let what = format!("a line of {} that fits {pattern:?}", path.display());
            let fault = String::from_utf8_lossy(&fault).lines().last().map(printable).unwrap_or_default();
            let seen = if fault.is_empty() { lines.last() } else { fault };
            Err(deadline.missed(what, seen))
        }
    }
}

/// Lines as they come, and the last of them.
struct Lines {
    regex: Regex,
    unfinished: Vec<u8>,
    /// The last whole ones.
    seen: VecDeque<String>,
}

impl Lines {
    fn new(regex: Regex) -> Lines {
        Lines { regex, unfinished: Vec::new(), seen: VecDeque::new() }
    }

    /// Takes what came. Returns the first line that fits.
    fn push(&mut self, bytes: &[u8]) -> Option<String> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.unfinished.extend_from_slice(piece);
            let ended = piece.ends_with(b"\n");
            let line = String::from_utf8_lossy(&self.unfinished);
            let line = line.trim_end_matches(['\n', '\r']);
            if self.regex.is_match(line) {
                return Some(line.to_owned());
            }
            if ended || self.unfinished.len() > LONGEST_LINE {
                self.seen.push_back(line.to_owned());
                if self.seen.len() > LINES {
                    self.seen.pop_front();
                }
                self.unfinished.clear();
            }
        }
        None
    }

    /// The last lines.
    fn last(&self) -> String {
        let unfinished = String::from_utf8_lossy(&self.unfinished);
        let lines = self.seen.iter().map(String::as_str).chain([&*unfinished]).map(printable);
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_the_first_that_fits_is_taken() {
        let mut lines = Lines::new(Regex::new("^rea.*y$").unwrap());
        assert_eq!(lines.push(b"not ready\nrea"), None);
        assert_eq!(lines.push(b"ll"), None);
        assert_eq!(lines.last(), "not ready\nreall");
        assert_eq!(lines.push(b"y\r\nready\n").as_deref(), Some("really"));
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut lines = Lines::new(Regex::new("x").unwrap());
        for _ in 0..3 * LONGEST_LINE / 1000 {
            assert_eq!(lines.push(&[b'a'; 1000]), None);
        }
        assert!(lines.unfinished.len() <= LONGEST_LINE + 1000);
    }
}
