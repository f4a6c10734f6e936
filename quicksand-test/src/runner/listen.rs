//! What a test tells while it runs: words for its failure, and where it stands.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use quicksand_core::{Progress, harness::Activity};

use super::screen::Line;
use crate::current::{Listener, listener};

/// A test that runs, and what it told so far.
#[derive(Debug)]
pub(super) struct Told {
    line: Line,
    words: Mutex<Words>,
}

/// What it told.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// For its failure, should it fail.
    pub(super) text: String,
    /// Why it is skipped.
    pub(super) skipped: Option<String>,
    /// Where what is known of its failure is.
    pub(super) directory: Option<PathBuf>,
}

impl Told {
    pub(super) fn new(line: Line) -> Told {
        Told { line, words: Mutex::default() }
    }

    /// What it told by now.
    pub(super) fn take(&self) -> Words {
        std::mem::take(&mut *self.words())
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Told {
    fn says(&self, text: &str) {
        let mut words = self.words();
        words.text.push_str(text.trim_end_matches('\n'));
        words.text.push('\n');
    }

    fn is_skipped(&self, reason: &str) {
        self.words().skipped = Some(reason.to_owned());
    }

    fn waits_for(&self, progress: &Progress) {
        self.line.waits_for(progress);
    }

    fn has_machine(&self, activity: Option<Activity>) {
        self.line.has_machine(activity);
    }

    fn left(&self, directory: &Path) {
        self.words().directory = Some(directory.to_owned());
    }
}

/// Has what a panic says belong to the test on whose threads it comes. The others say it as ever.
pub(super) fn catch_panics() {
    let ever = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let Some(listener) = listener() else { return ever(panic) };
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => listener.says(&format!("{panic}\n{}", of_test(&backtrace.to_string()))),
            _ => listener.says(&panic.to_string()),
        }
    }));
}

/// Of the frames of a backtrace those of the test, which are between the library's and ours. Each is a line, maybe with its place below.
fn of_test(backtrace: &str) -> String {
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value == "full") {
        return backtrace.to_owned();
    }
    let is_frame = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let lines: Vec<&str> = backtrace.lines().collect();
    let frames: Vec<&[&str]> = lines.chunk_by(|_, next| !is_frame(next)).collect();
    let names = |words: &'static [&str]| move |frame: &&[&str]| words.iter().any(|word| frame[0].contains(word));
    let begin = frames.iter().position(names(&["__rust_end_short_backtrace"])).map_or(0, |at| at + 1);
    let count = frames[begin..].iter().position(names(&["__rust_begin_short_backtrace", ": quicksand_test::"]));
    let shown = &frames[begin..begin + count.unwrap_or(frames.len() - begin)];
    shown.concat().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtrace_is_that_of_the_test() {
        let text = "   0: hook\n             at a.rs:1\n   1: __rust_end_short_backtrace\n             at b.rs:2\n   2: boots\n             \
            at tests/t.rs:3\n   3: quicksand_test::body::watch\n             at c.rs:4\n   4: main\n";
        assert_eq!(of_test(text), "   2: boots\n             at tests/t.rs:3");
        assert_eq!(of_test("   0: a\n   1: b"), "   0: a\n   1: b");
        assert_eq!(of_test(""), "");
    }
}
