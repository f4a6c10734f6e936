//! A guest's console: what it printed last, kept in memory within a bound.
//!
//! Not a file: a guest that prints for ever would fill the host's disk. Read by a thread of its own, so that the guest does not
//! wait for a test that is busy with something else.

use std::{
    collections::VecDeque,
    io::Read,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// How much is kept, in bytes.
const KEPT: usize = 256 * 1024;

/// A guest's console.
#[derive(Debug, Clone, Default)]
pub(super) struct Console(Arc<Mutex<VecDeque<u8>>>);

impl Console {
    /// Reads our end of the console's socket until QEMU closes the other.
    pub(super) fn follow(mut socket: UnixStream) -> std::io::Result<Console> {
        let console = Console::default();
        let kept = Arc::clone(&console.0);
        let follow = move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = socket.read(&mut buffer) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&buffer[..len]);
                let excess = kept.len().saturating_sub(KEPT);
                kept.drain(..excess);
            }
        };
        thread::Builder::new().name("quicksand-console".into()).spawn(follow)?;
        Ok(console)
    }

    /// What is kept, as printable text: what a guest writes must not move the cursor of whoever reads it.
    pub(super) fn text(&self) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(kept.make_contiguous()).into_owned();
        drop(kept);
        let lines: Vec<String> = text.lines().map(printable).filter(|line| !line.is_empty()).collect();
        lines.join("\n")
    }

    /// The last lines of that.
    pub(super) fn tail(&self, lines: usize) -> String {
        last_lines(&self.text(), lines)
    }
}

/// The last lines of a text.
pub(super) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A line without control characters and the escape sequences that they begin.
pub(super) fn printable(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            if chars.next_if_eq(&'[').is_some() {
                // A control sequence ends with its first letter or the like.
                while chars.next().is_some_and(|c| !('\x40'..='\x7e').contains(&c)) {}
            } else {
                chars.next();
            }
        } else if !c.is_control() || c == '\t' {
            out.push(c);
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn it_can_not_reach_the_terminal() {
        assert_eq!(printable("\x1b[2J\x1b]0;title\x07a\x1b[0;1;31mb\x1b[0m\r\tc\x08"), "0;titleab\tc");
    }

    #[test]
    fn the_last_is_kept_and_no_more_than_that() {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let console = Console::follow(ours).unwrap();
        for n in 0..40_000 {
            writeln!(guest, "line number {n}").unwrap();
        }
        drop(guest);
        let begun = std::time::Instant::now();
        while !console.tail(1).ends_with("39999") {
            assert!(begun.elapsed().as_secs() < 5);
            std::thread::yield_now();
        }
        assert_eq!(console.tail(2), "line number 39998\nline number 39999");
        assert!(console.text().len() <= KEPT);
    }
}
