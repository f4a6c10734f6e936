//! A line for each test that runs, so that who waits knows for what: bars on a terminal, elsewhere a line as something long begins.
//! Always on standard error.

use std::{
    env,
    io::{self, IsTerminal, PipeReader, Read, Write},
    os::fd::AsRawFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use libtest_mimic::{Arguments, ColorSetting, FormatSetting};
use quicksand_core::{Progress, harness::Activity};

use crate::{failure::print_past_capture, progress::is_long};

/// How often the lines are looked at.
const TICK: Duration = Duration::from_millis(120);

/// Where the lines of tests are.
#[derive(Debug)]
pub(super) struct Screen {
    /// `None` where there is no terminal.
    bars: Option<MultiProgress>,
    lines: Arc<Mutex<Vec<Weak<State>>>>,
}

/// The line of a test. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Line {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    test: String,
    bar: Option<ProgressBar>,
    stage: Mutex<Stage>,
}

/// Where a test stands.
#[derive(Debug)]
enum Stage {
    /// It waits, or something is done for it.
    Before { stage: &'static str, percent: Option<u64> },
    /// It runs, and maybe a command in its machine.
    Running(Option<Activity>),
}

impl Screen {
    /// Bars where both streams are a terminal's, or would be in nobody's way, and results come in lines.
    pub(super) fn new(arguments: &Arguments) -> Screen {
        let in_lines = !arguments.quiet && arguments.format.is_none_or(|format| format == FormatSetting::Pretty);
        let wanted = !arguments.list && in_lines && io::stderr().is_terminal();
        let screen = Screen { bars: wanted.then(MultiProgress::new), lines: Arc::default() };
        if wanted {
            let lines = Arc::downgrade(&screen.lines);
            let _ = thread::Builder::new().name("quicksand-screen".into()).spawn(move || look_after(&lines));
        }
        screen
    }

    /// A line for a test that begins.
    pub(super) fn line(&self, test: &str, number: usize) -> Line {
        let bar = self.bars.as_ref().map(|bars| {
            let style = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}");
            bars.add(ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner())))
        });
        let test = if number > 1 { format!("{test} (try {number})") } else { test.to_owned() };
        let stage = Mutex::new(Stage::Before { stage: "starting", percent: None });
        let state = Arc::new(State { test, bar, stage });
        state.show();
        if state.bar.is_some() {
            let mut lines = lock(&self.lines);
            lines.retain(|line| line.strong_count() > 0);
            lines.push(Arc::downgrade(&state));
        }
        Line { state }
    }

    /// Prints to standard error, above the lines.
    pub(super) fn print(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| print_past_capture(text)),
            None => print_past_capture(text),
        }
    }

    /// Carries out what prints results to standard output. Where that is the terminal of the lines, it prints into a pipe, out of which
    /// the results go above the lines.
    pub(super) fn with_output<T>(&self, arguments: &mut Arguments, work: impl FnOnce(&Arguments) -> T) -> T {
        let Some(bars) = self.bars.as_ref().filter(|_| arguments.logfile.is_none() && io::stdout().is_terminal())
        else {
            return work(arguments);
        };
        let Ok((reader, writer)) = io::pipe() else { return work(arguments) };
        arguments.logfile = Some(format!("/dev/fd/{}", writer.as_raw_fd()));
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if matches!(arguments.color, None | Some(ColorSetting::Auto)) && !plain {
            arguments.color = Some(ColorSetting::Always);
        }
        thread::scope(|scope| {
            scope.spawn(|| forward(reader, bars));
            let outcome = work(arguments);
            // The last one that writes.
            drop(writer);
            outcome
        })
    }
}

/// Prints what comes, line by line.
fn forward(mut reader: PipeReader, bars: &MultiProgress) {
    let mut waiting = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = reader.read(&mut piece) {
        waiting.extend_from_slice(&piece[..count]);
        if let Some(end) = waiting.iter().rposition(|byte| *byte == b'\n') {
            let lines: Vec<u8> = waiting.drain(..=end).collect();
            bars.suspend(|| print(&lines));
        }
    }
    bars.suspend(|| print(&waiting));
}

fn print(bytes: &[u8]) {
    // Nothing is lost where standard output is closed.
    let mut stdout = io::stdout();
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}

/// Keeps the lines up to date while there may be any.
fn look_after(lines: &Weak<Mutex<Vec<Weak<State>>>>) {
    while let Some(lines) = lines.upgrade() {
        let all: Vec<_> = lock(&lines).iter().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|line| line.show());
        drop((all, lines));
        thread::sleep(TICK);
    }
}

impl Line {
    pub(super) fn waits_for(&self, progress: &Progress) {
        let percent = (progress.total > 1).then(|| progress.current.min(progress.total) * 100 / progress.total);
        let mut stage = lock(&self.state.stage);
        let is_new = !matches!(&*stage, Stage::Before { stage, .. } if *stage == progress.stage);
        // The machine that is made ready for another test tells of itself, too.
        if matches!(&*stage, Stage::Running(_)) {
            return;
        }
        *stage = Stage::Before { stage: progress.stage, percent };
        drop(stage);
        match &self.state.bar {
            // Some stages are over before the next tick.
            Some(_) if is_new => self.state.show(),
            None if is_new && is_long(progress.stage) => {
                print_past_capture(&format!("quicksand: {}: {}\n", self.state.test, words(progress.stage)));
            }
            _ => {}
        }
    }

    pub(super) fn has_machine(&self, activity: Option<Activity>) {
        *lock(&self.state.stage) = Stage::Running(activity);
        self.state.show();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(bar) = &self.state.bar {
            bar.finish_and_clear();
        }
    }
}

impl State {
    fn show(&self) {
        let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) else { return };
        bar.set_message(format!("{}: {}", self.test, lock(&self.stage).text()));
        bar.tick();
    }
}

impl Stage {
    fn text(&self) -> String {
        match self {
            Stage::Before { stage, percent: None } => words(stage).to_owned(),
            Stage::Before { stage, percent: Some(percent) } => format!("{} {percent}%", words(stage)),
            Stage::Running(activity) => match activity.as_ref().and_then(Activity::command) {
                Some(command) => format!("running {}", one_line(&command)),
                None => "running".to_owned(),
            },
        }
    }
}

/// A stage as what is done for a test.
fn words(stage: &'static str) -> &'static str {
    match stage {
        "wait for other machines to end" => "waiting for other machines to end",
        "boot" => "starting",
        "clone" => "restoring",
        other => other,
    }
}

/// A command in one line, without what would move the terminal's cursor.
fn one_line(command: &str) -> String {
    command.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(stage: &'static str, current: u64, total: u64) -> String {
        let screen = Screen { bars: None, lines: Arc::default() };
        let line = screen.line("a::b", 2);
        assert_eq!(line.state.test, "a::b (try 2)");
        line.waits_for(&Progress { stage, current, total });
        lock(&line.state.stage).text()
    }

    #[test]
    fn stages_are_told() {
        assert_eq!(text("wait for other machines to end", 0, 1), "waiting for other machines to end");
        assert_eq!(text("clone", 0, 1), "restoring");
        assert_eq!(text("boot", 0, 1), "starting");
        assert_eq!(text("download", 34, 100), "download 34%");
        assert_eq!(one_line("\techo \x1b[2J\necho b\n"), "echo  [2J echo b");
    }
}
