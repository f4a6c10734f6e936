//! The shell of a session, which its commands have in common: directories, variables and functions stay from one to the next.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    ops::Range,
    time::Duration,
};

use quicksand_core::harness::ChildExt;
use quicksand_core::{
    Child, ExitStatus, Sandbox,
    guest::{GuestReader, GuestWriter},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

use super::{front_matter::FrontMatter, verdict::Ended};
use crate::describe::error_text;

/// What a command may print.
const MOST_OUTPUT: usize = 1 << 20;
/// How much is read at once.
const PIECE: usize = 16 << 10;
/// What runs commands, as those of `Sandbox::execute`.
const DEFAULT_SHELL: &str = "/bin/sh";
/// How long output is still waited for when the shell has ended and a program in the background has not.
const REST: Duration = Duration::from_secs(1);

/// What the shell runs: commands, each after the number of its lines, which it reads from descriptor 9. After each comes its mark.
///
/// A command gets neither descriptor 8 nor 9, and `exec >file` is over when it ends. `command` has a shell survive commands that make no
/// sense. What the shell itself does is not in a trace of `set -x`.
const DRIVER: &str = r#"exec 9<&0 8>&1 </dev/null >/dev/null 2>&1; _qs_status=0; _qs_return() { return "$1"; }
while IFS= read -r _qs_lines <&9; do _qs_command=
while [ "$_qs_lines" -gt 0 ]; do IFS= read -r _qs_line <&9; _qs_command="$_qs_command$_qs_line
"; _qs_lines=$((_qs_lines-1)); done
_qs_return "$_qs_status"
command eval "$_qs_command" >&8 2>&1 8>&- 9<&-
_qs_status=$?; printf 'MARK%d\n' "$_qs_status" >&8; done"#;

/// The shell of a session.
pub(super) struct Shell<'a> {
    sandbox: &'a Sandbox,
    front: &'a FrontMatter,
    /// What comes after a command, and in no output.
    mark: String,
    running: Option<Running>,
}

struct Running {
    child: Child,
    input: GuestWriter,
    output: GuestReader,
}

/// How a command came to its end.
enum Outcome {
    /// With the shell.
    Ended(u8),
    /// With the mark.
    Marked(u8),
}

/// Why there is no telling how a command ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShellError {
    /// It still ran when its time was over.
    #[error(
        "it still ran when the session's {limit:?} were over, having printed {printed:?}; a longer time is given with timeout = \"..\" in \
         the front matter"
    )]
    TimedOut {
        /// How long the session may take.
        limit: Duration,
        /// The last of what it printed.
        printed: String,
    },
    /// It printed very much.
    #[error("it printed more than {} KiB", MOST_OUTPUT >> 10)]
    TooLong,
    /// The machine failed.
    #[error("failed to {0}")]
    Machine(String),
}

impl<'a> Shell<'a> {
    pub(super) fn new(sandbox: &'a Sandbox, front: &'a FrontMatter) -> Shell<'a> {
        let random = || RandomState::new().build_hasher().finish();
        let mark = format!("\u{1e}{:016x}{:016x} ", random(), random());
        Shell { sandbox, front, mark, running: None }
    }

    /// Runs a command to its end. Where it ends the shell, the next one gets a new shell.
    ///
    /// # Errors
    ///
    /// [`ShellError`]: the shell is of no use any more.
    pub(super) async fn run(&mut self, command: &str, deadline: Instant) -> Result<Ended, ShellError> {
        let mut output = Vec::new();
        match timeout_at(deadline, self.run_into(command, &mut output)).await {
            Ok(Ok(code)) => Ok(Ended { code, output }),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let printed = String::from_utf8_lossy(&output[output.len().saturating_sub(2000)..]).into_owned();
                Err(ShellError::TimedOut { limit: self.front.timeout(), printed })
            }
        }
    }

    async fn run_into(&mut self, command: &str, output: &mut Vec<u8>) -> Result<u8, ShellError> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.start().await?,
        };
        let code = match self.give(&mut running, command, output).await? {
            Outcome::Ended(code) => return Ok(code),
            Outcome::Marked(code) => code,
        };
        // Where the command's output went through a filter, the last of that comes before a second mark.
        if running.child.await_filters().await.map_err(machine)?
            && let Outcome::Ended(code) = self.give(&mut running, &format!("_qs_return {code}"), output).await?
        {
            return Ok(code);
        }
        self.running = Some(running);
        Ok(code)
    }

    /// Has the shell run a command, and reads its output up to the mark.
    async fn give(&self, running: &mut Running, command: &str, output: &mut Vec<u8>) -> Result<Outcome, ShellError> {
        let script = format!("{}\n{command}\n", command.split('\n').count());
        // A shell that has ended meanwhile, as by a trap, tells so by its end.
        let _ = running.input.write_all(script.as_bytes()).await;
        let begin = output.len();
        let mut piece = [0; PIECE];
        loop {
            tokio::select! {
                biased;
                count = running.output.read(&mut piece) => match count.unwrap_or(0) {
                    0 => return running.child.wait().await.map(code).map(Outcome::Ended).map_err(machine),
                    count => output.extend_from_slice(&piece[..count]),
                },
                status = running.child.wait() => {
                    // A program in the background may keep the output open for ever.
                    let rest = (&mut running.output).take(MOST_OUTPUT as u64);
                    let _ = timeout(REST, { rest }.read_to_end(output)).await;
                    return status.map(code).map(Outcome::Ended).map_err(machine);
                }
            }
            if let Some((mark, code)) = self.mark(output, begin) {
                output.drain(mark);
                return Ok(Outcome::Marked(code));
            }
            if output.len() > MOST_OUTPUT {
                return Err(ShellError::TooLong);
            }
        }
    }

    /// Where the mark is in the output from `begin` on, and the exit code in it.
    fn mark(&self, output: &[u8], begin: usize) -> Option<(Range<usize>, u8)> {
        // Nothing comes after it but what filters and programs in the background print.
        let from = begin.max(output.len().saturating_sub(self.mark.len() + PIECE));
        let at = from + output[from..].windows(self.mark.len()).position(|window| window == self.mark.as_bytes())?;
        let number = output[at + self.mark.len()..].split(|byte| *byte == b'\n').next()?;
        let end = at + self.mark.len() + number.len();
        let code = str::from_utf8(number).ok().filter(|_| output.len() > end)?.parse().ok()?;
        Some((at..end + 1, code))
    }

    async fn start(&self) -> Result<Running, ShellError> {
        let program = self.front.shell.as_deref().unwrap_or(DEFAULT_SHELL);
        let name = program.rsplit('/').next().unwrap_or(program);
        let driver = DRIVER.replace("MARK", &self.mark);
        let mut command = self.sandbox.command(program).args(["-c", &driver, name]).piped_stdin();
        for (name, value) in &self.front.env {
            command = command.env(name, value);
        }
        if let Some(user) = &self.front.user {
            command = command.user(user);
        }
        if let Some(directory) = &self.front.directory {
            command = command.current_dir(directory);
        }
        let mut child = command.spawn().await.map_err(machine)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).ok_or_else(|| ShellError::Machine("talk to the shell".to_owned()))?;
        Ok(Running { child, input, output })
    }
}

fn machine(error: quicksand_core::Error) -> ShellError {
    ShellError::Machine(error_text(&error))
}

/// The exit code as shells have it.
fn code(status: ExitStatus) -> u8 {
    let code = match status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => 128 + signal,
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}
