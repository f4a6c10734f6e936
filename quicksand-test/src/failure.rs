//! Why a test failed, and the last words on it.

use std::{
    any::Any,
    env,
    fmt::Write,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use crate::{body::panic_message, bundle};

/// Why a test failed.
#[derive(Debug)]
pub(crate) enum Cause {
    /// Its machine could not be had.
    NoMachine(String),
    /// Its body panicked.
    Panicked(Box<dyn Any + Send>),
    /// Its body returned a failure, of which this is told.
    Returned(String),
    /// Its body was to panic.
    DidNotPanic,
    /// Its body took longer than that.
    TimedOut(Duration),
    /// The process was told to end.
    Terminated {
        /// Whether the test had its machine by then.
        has_machine: bool,
    },
}

impl Cause {
    /// Whether the runner sees a panic.
    pub(crate) fn is_panic(&self) -> bool {
        matches!(self, Cause::NoMachine(_) | Cause::Panicked(_) | Cause::TimedOut(_))
    }

    /// What is told of it.
    pub(crate) fn reason(&self) -> String {
        match self {
            Cause::NoMachine(why) => why.clone(),
            Cause::Panicked(panic) => format!("panicked: {}", panic_message(&**panic)),
            Cause::Returned(failure) => failure.clone(),
            Cause::DidNotPanic => "the test did not panic as it should".to_owned(),
            Cause::TimedOut(limit) => {
                format!("the test's body took longer than {limit:?}; a longer time is given with timeout = \"..\"")
            }
            Cause::Terminated { has_machine } => {
                let what = if *has_machine { "the test still ran" } else { "the test still waited for its machine" };
                format!("{what} when its process was told to end by SIGTERM")
            }
        }
    }
}

/// The last words on a failed test: where what is known of it is, why its machine is not kept if that went wrong, and the command to
/// run next.
pub(crate) fn last_words(
    test: &str,
    cause: &Cause,
    directory: &Path,
    machine: Option<&Result<String, String>>,
) -> String {
    let mut words = String::new();
    // What runners of continuous integration take for attachments of a test in nextest's JUnit report.
    if env::var_os("NEXTEST").is_some() {
        for file in bundle::files(directory).unwrap_or_default() {
            let _ = writeln!(words, "[[ATTACHMENT|{file}]]");
        }
    }
    let directory = shell_word(&directory.to_string_lossy());
    if let Some(Err(why)) = machine {
        let _ = writeln!(words, "its machine is not kept: {why}");
    }
    let next = match cause {
        Cause::NoMachine(_) => "quicksand doctor".to_owned(),
        _ if matches!(machine, Some(Ok(_))) => format!("quicksand shell {}", shell_word(test)),
        Cause::Terminated { has_machine: false } => format!("cat {directory}/report.json"),
        _ => format!("cat {directory}/{}", bundle::COMMANDS),
    };
    let _ = write!(words, "what is known of it: {directory}\nto look into it: {next}");
    words
}

/// Prints to standard error itself, past the capturing of test output.
pub(crate) fn print_past_capture(text: &str) {
    // Nothing is lost where standard error is closed.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// A word as a shell takes it.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./,:=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_end_with_a_command() {
        let directory = Path::new("/a b/target/quicksand/run/test");
        let words = |cause: &Cause, machine| last_words("m::t", cause, directory, machine);
        let last = |cause: &Cause, machine| words(cause, machine).lines().last().unwrap().to_owned();
        let returned = Cause::Returned(String::new());
        let (kept, full) = (Ok("/kept".to_owned()), Err("failed to write: no space left".to_owned()));
        assert_eq!(last(&returned, Some(&kept)), "to look into it: quicksand shell m::t");
        assert_eq!(last(&returned, None), "to look into it: cat '/a b/target/quicksand/run/test'/commands.jsonl");
        let told = |has_machine| last(&Cause::Terminated { has_machine }, None);
        assert!(told(true).ends_with("/commands.jsonl") && told(false).ends_with("/report.json"));
        assert_eq!(last(&Cause::NoMachine(String::new()), None), "to look into it: quicksand doctor");
        assert_eq!(last(&returned, Some(&full)), last(&returned, None));
        assert!(words(&returned, Some(&full)).contains("its machine is not kept: failed to write: no space left\n"));
    }
}
