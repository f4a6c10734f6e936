//! Showing how long steps come along: bars on a terminal, lines elsewhere. Always on standard error.

use std::{
    io::{self, IsTerminal, Write},
    sync::Mutex,
};

use indicatif::{ProgressBar, ProgressStyle};
use quicksand_core::Progress;

/// Stages that are over before anybody has read of them, mostly: shown on a terminal alone, and a clone nowhere.
const BRIEF: [&str; 3] = ["save", "upload", "download"];

/// Stages that wait for a network.
const BYTES: [&str; 4] = ["download", "pull", "pull layers", "push"];

/// A function that shows [`Progress`] to whoever runs the program, for
/// [`on_progress`](quicksand_core::SandboxBuilder::on_progress): on a terminal a bar for each stage, elsewhere a line as each begins.
/// It writes to standard error itself, past the capturing of test output: what it tells is for people who wait.
pub fn show_progress() -> impl Fn(&Progress) + Send + Sync + Clone + 'static {
    let shown = std::sync::Arc::new(Mutex::new(Shown::Nothing));
    let bars = io::stderr().is_terminal();
    move |progress| {
        if progress.stage == "clone" || (!bars && !is_long(progress.stage)) {
            return;
        }
        let mut shown = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if bars { shown.bar(progress) } else { shown.line(progress) }
    }
}

/// Whether somebody who waits wants to read of a stage.
pub(crate) fn is_long(stage: &str) -> bool {
    stage != "clone" && !BRIEF.contains(&stage)
}

#[derive(Debug)]
enum Shown {
    Nothing,
    Line(&'static str),
    Bar(&'static str, ProgressBar),
}

impl Shown {
    fn line(&mut self, progress: &Progress) {
        if !matches!(self, Shown::Line(stage) if *stage == progress.stage) {
            // Nothing is lost where standard error is closed.
            let _ = writeln!(io::stderr(), "quicksand: {}", progress.stage);
            *self = Shown::Line(progress.stage);
        }
    }

    fn bar(&mut self, progress: &Progress) {
        if !matches!(self, Shown::Bar(stage, _) if *stage == progress.stage) {
            if let Shown::Bar(_, old) = self {
                old.finish_and_clear();
            }
            *self = Shown::Bar(progress.stage, new_bar(progress));
        }
        let Shown::Bar(_, bar) = self else { return };
        bar.set_length(progress.total);
        bar.set_position(progress.current);
        if progress.total > 0 && progress.current >= progress.total {
            bar.finish_and_clear();
            *self = Shown::Nothing;
        }
    }
}

fn new_bar(progress: &Progress) -> ProgressBar {
    let template = match progress.total {
        // There is no saying how far a boot has come: what moves is the time.
        0 | 1 => "quicksand: {msg} {spinner} {elapsed}",
        _ if BYTES.contains(&progress.stage) => {
            "quicksand: {msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left"
        }
        _ => "quicksand: {msg} {wide_bar} {percent}% {elapsed}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(progress.total).with_style(style).with_message(progress.stage);
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}
