//! What a setup does to its machine.

use std::{
    fmt::Write,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Component, Path, PathBuf},
    pin::pin,
    task::Poll,
    time::Duration,
};

use quicksand_core::harness::SandboxExt;
use quicksand_core::{Output, Sandbox};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::registry::Layer;
use crate::{body::panic_message, describe::error_text, meta::Work};

/// Where commands find what they depend on.
const INPUTS: &str = "/tmp/quicksand-inputs";
/// How many of the last lines of a command's output a failure shows.
const SHOWN_LINES: usize = 60;
/// How many of their bytes.
const SHOWN_BYTES: usize = 16 * 1024;

/// Does the work within `limit`. A failure comes as text, a panic as well.
pub(super) async fn work(layer: &Layer, sandbox: &Sandbox, limit: Duration) -> Result<(), String> {
    let end = Instant::now() + limit;
    let work = async {
        match layer.work {
            None => Ok(()),
            Some(Work::Function { setup, .. }) => caught(setup(sandbox)).await,
            Some(Work::Commands(lines)) => commands(layer, lines, sandbox, end).await,
        }
    };
    match timeout_at(end, work).await {
        Ok(Ok(())) => Ok(()),
        // Commands tell themselves which of them failed.
        Ok(Err(said)) if matches!(layer.work, Some(Work::Commands(_))) => Err(said),
        Ok(Err(said)) => Err(said + &last_command(sandbox)),
        Err(_) => {
            let said = format!("it took longer than {limit:?}; a longer time is given with timeout = \"..\"");
            Err(said + &last_command(sandbox))
        }
    }
}

/// The last command that a function ran, as the log of the sandbox has it: most likely the one that failed.
fn last_command(sandbox: &Sandbox) -> String {
    let Ok(evidence) = sandbox.evidence() else { return String::new() };
    let last = evidence.commands.lines().rev().find_map(|line| serde_json::from_str::<Logged>(line).ok());
    let Some(Logged { command, end, stdout, stderr }) = last else { return String::new() };
    let end = end.map_or("did not end".to_owned(), |end| format!("ended: {end}"));
    let mut text = format!("\nits last command, {command:?}, {end}");
    add_outputs(&mut text, &text_of(stdout), &text_of(stderr));
    text
}

/// A command in the log.
#[derive(Debug, Deserialize)]
struct Logged {
    command: String,
    end: Option<String>,
    stdout: Option<Clip>,
    stderr: Option<Clip>,
}

/// An output in the log, or the end of it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Clip {
    Whole(String),
    Ends { end: String },
}

fn text_of(clip: Option<Clip>) -> String {
    match clip {
        None => String::new(),
        Some(Clip::Whole(text) | Clip::Ends { end: text }) => text,
    }
}

/// The outcome of a setup function, of which a panic is one as well.
async fn caught(setup: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let mut setup = pin!(setup);
    poll_fn(|context| {
        // After a panic it is not polled again, and what it had of the machine is thrown away.
        match catch_unwind(AssertUnwindSafe(|| setup.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(panic) => Poll::Ready(Err(format!("it panicked: {}", panic_message(&*panic)))),
        }
    })
    .await
}

async fn commands(layer: &Layer, lines: &[&str], sandbox: &Sandbox, end: Instant) -> Result<(), String> {
    upload(layer, sandbox).await?;
    for (number, line) in (1..).zip(lines) {
        let mut command = sandbox.command("/bin/sh").arg("-c").arg(*line).timeout(end - Instant::now());
        if !layer.inputs.is_empty() {
            command = command.current_dir(INPUTS);
        }
        let count = lines.len();
        let output = command
            .output()
            .await
            .map_err(|error| format!("command {number} of {count}: failed to {}", error_text(&error)))?;
        if !output.success() {
            return Err(format!("command {number} of {count}, {line:?}, {}", ending(&output)));
        }
    }
    if !layer.inputs.is_empty() {
        run(sandbox, ["rm", "-rf", INPUTS]).await?;
    }
    Ok(())
}

/// Puts what the commands depend on where they start, under the paths by which the setup names it.
async fn upload(layer: &Layer, sandbox: &Sandbox) -> Result<(), String> {
    for input in layer.inputs {
        let target = Path::new(INPUTS).join(inside(Path::new(input)));
        if let Some(parent) = target.parent() {
            run(sandbox, ["mkdir", "-p", &parent.to_string_lossy()]).await?;
        }
        let sent = sandbox.upload(layer.package.join(input), target).await;
        sent.map_err(|error| format!("failed to {}", error_text(&error)))?;
    }
    Ok(())
}

async fn run(sandbox: &Sandbox, words: [&str; 3]) -> Result<(), String> {
    let output = sandbox.command(words[0]).args(&words[1..]).output().await;
    let output = output.map_err(|error| format!("failed to {}", error_text(&error)))?;
    if output.success() { Ok(()) } else { Err(format!("{} {}", words.join(" "), ending(&output))) }
}

/// A path without the steps that lead out of the package.
fn inside(path: &Path) -> PathBuf {
    path.components().filter(|component| matches!(component, Component::Normal(_))).collect()
}

/// How a command ended, and the last of what it printed.
fn ending(output: &Output) -> String {
    let mut text = format!("ended with exit code {}", output.exit_code);
    add_outputs(&mut text, &output.stdout, &output.stderr);
    text
}

fn add_outputs(text: &mut String, stdout: &str, stderr: &str) {
    for (stream, printed) in [("stdout", stdout), ("stderr", stderr)] {
        if !printed.trim().is_empty() {
            let _ = write!(text, "\n--- {stream} ---\n{}", tail(printed.trim_end()));
        }
    }
}

/// The last lines of a text.
fn tail(text: &str) -> &str {
    let lines_at = text.rmatch_indices('\n').nth(SHOWN_LINES - 1).map_or(0, |(at, _)| at + 1);
    let mut at = lines_at.max(text.len().saturating_sub(SHOWN_BYTES));
    while !text.is_char_boundary(at) {
        at += 1;
    }
    &text[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_outcome() {
        let said = |panic: fn()| async move {
            caught(async {
                tokio::task::yield_now().await;
                panic();
                Ok(())
            })
            .await
        };
        assert_eq!(said(|| {}).await, Ok(()));
        assert_eq!(said(|| panic!("one {}", 1)).await, Err("it panicked: one 1".to_owned()));
        assert_eq!(said(|| panic!("two")).await, Err("it panicked: two".to_owned()));
    }

    #[test]
    fn only_the_end_of_a_long_output_is_shown() {
        assert_eq!(tail("a\nb"), "a\nb");
        let lines: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(tail(&lines.join("\n")).lines().next(), Some("40"));
        assert_eq!(tail(&lines.join("\n")).lines().count(), SHOWN_LINES);
        let wide = "ü".repeat(SHOWN_BYTES);
        assert!(tail(&wide).len() <= SHOWN_BYTES && tail(&wide).len() > SHOWN_BYTES - 2);
    }

    #[test]
    fn inputs_stay_inside() {
        assert_eq!(inside(Path::new("../a/./b/../c.sh")), Path::new("a/b/c.sh"));
    }
}
