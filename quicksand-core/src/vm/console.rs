//! A guest's console: what it printed last, kept in memory within a bound.
//!
//! Not a file: a guest that prints for ever would fill the host's disk. Read by a thread of its own, so that the guest does not
//! wait for a test that is busy with something else.

use std::{
    collections::VecDeque,
    io::Read,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use crate::base::printed::printable;

/// How much is kept, in bytes.
const KEPT: usize = 256 * 1024;

/// Most of a line that is told on its own, in characters.
const SHOWN: usize = 300;

/// Least time between two looks at all that is kept, while a line is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// A guest's console.
#[derive(Debug, Clone, Default)]
pub(super) struct Console(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    bytes: Mutex<VecDeque<u8>>,
    grown: Notify,
    /// Told when a kernel says that it gives up.
    gave_up: Notify,
    ended: AtomicBool,
}

impl Console {
    /// Reads our end of the console's socket until QEMU closes the other.
    pub(super) fn follow(mut socket: UnixStream) -> std::io::Result<Console> {
        let console = Console::default();
        let kept = Arc::clone(&console.0);
        let follow = move || {
            let mut buffer = [0; 4096];
            let mut seen = Vec::new();
            while let Ok(len @ 1..) = socket.read(&mut buffer) {
                let mut bytes = kept.bytes.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend(&buffer[..len]);
                let excess = bytes.len().saturating_sub(KEPT);
                bytes.drain(..excess);
                drop(bytes);
                kept.grown.notify_waiters();
                if has_panic(&mut seen, &buffer[..len]) {
                    kept.gave_up.notify_one();
                }
            }
            kept.ended.store(true, Ordering::SeqCst);
        };
        thread::Builder::new().name("quicksand-console".into()).spawn(follow)?;
        Ok(console)
    }

    /// What is kept, as printable text: what a guest writes must not move the cursor of whoever reads it.
    pub(super) fn text(&self) -> String {
        let mut bytes = self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(bytes.make_contiguous()).into_owned();
        drop(bytes);
        let lines: Vec<String> = text.lines().map(printable).filter(|line| !line.is_empty()).collect();
        lines.join("\n")
    }

    /// The first line of that which fits, once there is one.
    pub(super) async fn line(&self, fits: impl Fn(&str) -> bool) -> String {
        loop {
            // From before the look, so that nothing comes unseen between the two.
            let mut grown = std::pin::pin!(self.0.grown.notified());
            grown.as_mut().enable();
            if let Some(line) = self.text().lines().find(|line| fits(line)) {
                return line.to_owned();
            }
            grown.await;
            sleep(LOOK).await;
        }
    }

    /// Waits until the kernel says that it gives up, or somebody else in its words.
    pub(super) async fn gives_up(&self) {
        self.0.gave_up.notified().await;
    }

    /// What the kernel said when it gave up last.
    pub(super) fn panic(&self) -> Option<String> {
        self.text().lines().rfind(|line| line.contains(PANIC)).map(|line| line.trim().chars().take(SHOWN).collect())
    }

    /// Whether all is there that will ever be.
    pub(super) fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::SeqCst)
    }

    /// The last lines of that. Where the kernel gave up, those around the line that says so: what follows it may be longer.
    pub(super) fn tail(&self, lines: usize) -> String {
        last_words(&self.text(), lines)
    }
}

/// What a kernel says first when it gives up.
pub(super) const PANIC: &str = "Kernel panic - ";

/// Whether that ends in what came now. `seen` is the end of what came before.
fn has_panic(seen: &mut Vec<u8>, bytes: &[u8]) -> bool {
    seen.extend_from_slice(bytes);
    let found = seen.windows(PANIC.len()).any(|window| window == PANIC.as_bytes());
    seen.drain(..seen.len().saturating_sub(PANIC.len() - 1));
    found
}

fn last_words(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(count);
    let panic = lines.iter().position(|line| line.contains(PANIC));
    // Some lines before it, as the complaint that it came of.
    let start = panic.map_or(last, |panic| last.min(panic.saturating_sub(count / 4)));
    lines[start..].iter().take(count).copied().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_panic_is_shown_however_long_its_trace_is() {
        let lines = |range: std::ops::Range<u32>| range.map(|n| format!("{n}\n")).collect::<String>();
        assert_eq!(last_words(&lines(0..9), 3), "6\n7\n8");
        let text = lines(0..50) + "[ 1.0] Kernel panic - not syncing: x\n" + &lines(50..90);
        assert_eq!(last_words(&text, 8), "48\n49\n[ 1.0] Kernel panic - not syncing: x\n50\n51\n52\n53\n54");
        let text = lines(0..9) + "Kernel panic - not syncing: x\nRebooting";
        assert_eq!(last_words(&text, 4), "7\n8\nKernel panic - not syncing: x\nRebooting");
    }

    #[test]
    fn a_panic_is_noticed_once_wherever_it_is_cut() {
        let text = b"a\n[ 1.0] Kernel panic - not syncing: x\nend\n";
        for len in 1..text.len() {
            let mut seen = Vec::new();
            let found = text.chunks(len).filter(|chunk| has_panic(&mut seen, chunk)).count();
            assert_eq!(found, 1, "{len}");
        }
        assert!(!has_panic(&mut Vec::new(), b"Kernel panic: no"));
    }

    #[tokio::test]
    async fn a_line_is_found_when_it_comes() {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let console = Console::follow(ours).unwrap();
        guest.write_all(b"one\n").unwrap();
        let write = async {
            sleep(Duration::from_millis(100)).await;
            guest.write_all(b"t").unwrap();
            sleep(Duration::from_millis(100)).await;
            guest.write_all(b"wo\n").unwrap();
        };
        let (line, ()) = tokio::join!(console.line(|line| line == "two"), write);
        assert_eq!((line, console.line(|line| line.starts_with('o')).await), ("two".to_owned(), "one".to_owned()));
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
