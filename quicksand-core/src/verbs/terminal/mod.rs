//! Programs on a terminal of their own: typed to, read, waited for, in the manner of `expect`.
//!
//! - [`Terminal`]: a program that runs on one;
//! - `screen`: what it wrote, as text and as a screen.

mod screen;

use std::{
    ffi::OsString,
    fmt,
    num::NonZeroU16,
    os::unix::ffi::OsStringExt,
    time::{Duration, Instant},
};

use quicksand_protocol::message::Window;
use regex_lite::Regex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    command::{Child, Command},
    pattern,
    wait::{Deadline, Wait},
};
use crate::{
    error::{Error, Result},
    guest::{ChannelError, GuestReader, exit_status::ExitStatus},
};
use screen::Transcript;

/// How long a program may leave what is typed unread.
const SEND_PATIENCE: Duration = Duration::from_secs(60);
/// How long the end of a program may take whose terminal it has closed already.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// How much is read before patterns are looked for again, where more than that stands ready.
const PIECE: usize = 128 * 1024;

impl<'a> Command<'a> {
    /// Gives it a terminal of that many rows and columns, for programs that talk to a person. Its environment then has
    /// `TERM=xterm-256color` (see [`kind`](TerminalCommand::kind)) and none of `COLUMNS`, `LINES` and `DEBIAN_FRONTEND`; what was set for its standard input is left out, and no timeout applies.
    ///
    /// ```no_run
    /// # async fn f(sb: quicksand_core::Sandbox) -> quicksand_core::Result<()> {
    /// let mut terminal = sb.command("passwd").arg("ann").pty(24, 80).spawn().await?;
    /// for prompt in ["New password: ", "Retype new password: "] {
    ///     terminal.wait_for(prompt).await?;
    ///     terminal.send_line("correct horse").await?;
    /// }
    /// assert!(terminal.wait().await?.success());
    /// # Ok(())
    /// # }
    /// ```
    pub fn pty(self, rows: u16, cols: u16) -> TerminalCommand<'a> {
        TerminalCommand { command: self, rows, cols }
    }
}

/// A program that is to run on a terminal. Made by [`Command::pty`].
#[derive(Debug)]
#[must_use = "a command does nothing by itself: add `.spawn().await?`"]
pub struct TerminalCommand<'a> {
    command: Command<'a>,
    rows: u16,
    cols: u16,
}

impl<'a> TerminalCommand<'a> {
    /// Names the kind of terminal, as `TERM` has it: that on which a person looks at what the program shows. Default:
    /// `xterm-256color`. Where the guest has no description of it, in `/etc`, `/lib` or `/usr/share/terminfo` or the user's
    /// `.terminfo`, the program gets the nearest kind that the guest knows. A `TERM` by [`Command::env`] is left as it is.
    pub fn kind(mut self, kind: impl Into<OsString>) -> TerminalCommand<'a> {
        self.command.exec.terminal_kind = Some(kind.into().into_vec());
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]; [`Error::BadOption`] where the terminal has no rows or no columns; [`Error::Guest`] where the command
    /// line is too long. That the guest has no such program is told by whatever is waited for.
    pub async fn spawn(self) -> Result<Terminal> {
        let (rows, cols) = size(self.rows, self.cols)?;
        let mut command = self.command.piped_stdin();
        command.exec.terminal = Some(Window { rows: self.rows, cols: self.cols });
        Ok(Terminal { child: command.spawn().await?, transcript: Transcript::new(rows, cols) })
    }
}

/// A program that runs on a terminal. Dropping it kills the program and all that it started on its terminal.
///
/// What the program writes is taken while something is waited for. [`into_child`](Terminal::into_child) leads to the bytes
/// themselves.
#[must_use = "dropping a terminal kills its program: keep it in a variable, or `.wait()` for the program's end"]
pub struct Terminal {
    child: Child,
    transcript: Transcript,
}

/// What a pattern found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// What came since the last find, up to this one.
    pub before: String,
    /// What fits the pattern.
    pub text: String,
    /// What fits the pattern's groups, from the first on. One that took no part is empty.
    pub groups: Vec<String>,
}

impl Terminal {
    /// Types a text as it is. Enter is `"\r"`, Ctrl-C is `"\x03"`, Escape is `"\x1b"`, cursor up is `"\x1b[A"`.
    ///
    /// # Errors
    ///
    /// [`Error::TerminalEnded`] where the program has ended; [`Error::Guest`] where it reads nothing for a minute.
    pub async fn send(&mut self, text: impl AsRef<[u8]>) -> Result<()> {
        let mut rest = text.as_ref();
        let begun = Instant::now();
        let mut piece = Vec::with_capacity(PIECE);
        while !rest.is_empty() {
            let Some(mut stdin) = self.child.stdin.take() else {
                return Err(self.ended("a reader of what is typed").await);
            };
            // What is typed comes back as an echo: where nobody takes that, the program stands still.
            let step = async {
                tokio::select! {
                    biased;
                    written = stdin.write(rest) => Step::Written(written.unwrap_or(0)),
                    read = read(&mut self.child.stdout, &mut piece) => Step::Read(read),
                }
            };
            let left = SEND_PATIENCE.saturating_sub(begun.elapsed());
            let step = timeout(left, step).await.map_err(|_| ChannelError::NoAnswer(SEND_PATIENCE))?;
            match step {
                Step::Written(0) | Step::Read(false) => return Err(self.ended("a reader of what is typed").await),
                Step::Written(len) => rest = &rest[len..],
                Step::Read(true) => self.transcript.push(&piece),
            }
            self.child.stdin = Some(stdin);
            piece.clear();
        }
        Ok(())
    }

    /// Types a text and Enter.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Terminal::send).
    pub async fn send_line(&mut self, text: impl AsRef<[u8]>) -> Result<()> {
        self.send([text.as_ref(), b"\r"].concat()).await
    }

    /// Waits until what the program wrote fits a pattern, and takes it: the next wait looks at what comes behind it.
    ///
    /// The pattern is a regular expression in the syntax of the crate `regex`, without its classes of Unicode. It sees text
    /// without escape sequences, whose lines end with `\n`; `^` and `$` mean the beginning and the end of all of that text,
    /// unless `(?m)` makes them mean those of a line.
    ///
    /// Errors: [`Error::WaitTimeout`] and [`Error::TerminalEnded`], which show the screen; [`Error::BadPattern`].
    pub fn wait_for(&mut self, pattern: impl Into<String>) -> Wait<'_, Found> {
        let pattern = pattern.into();
        Wait::new(async move |deadline: Deadline| {
            let regex = pattern::compile(&pattern)?;
            self.until(&pattern, deadline, |transcript| find(transcript, &regex)).await
        })
    }

    /// Waits until the screen, as a person would see it, fits a pattern, and returns the screen. For programs that paint all of it,
    /// where the order in which they write says little. Takes nothing of what [`wait_for`](Terminal::wait_for) sees.
    pub fn wait_for_screen(&mut self, pattern: impl Into<String>) -> Wait<'_, String> {
        let pattern = pattern.into();
        Wait::new(async move |deadline: Deadline| {
            let regex = pattern::compile(&pattern)?;
            let look = |transcript: &mut Transcript| Some(transcript.screen()).filter(|screen| regex.is_match(screen));
            self.until(&pattern, deadline, look).await
        })
    }

    /// Waits for the program's end. What it writes until then is taken.
    pub fn wait(&mut self) -> Wait<'_, ExitStatus> {
        Wait::new(async move |deadline: Deadline| {
            let mut piece = Vec::with_capacity(PIECE);
            let end = async {
                while read(&mut self.child.stdout, &mut piece).await {
                    self.transcript.push(&piece);
                    piece.clear();
                }
                self.child.wait().await
            };
            match deadline.cut(end).await {
                Some(status) => status,
                None => Err(deadline.missed(format!("the end of {}", self.child.command()), self.screen())),
            }
        })
    }

    /// The screen as a person would see it, as far as what the program wrote has been taken: without colours, and without what is
    /// blank at the ends of lines and of the screen.
    pub fn screen(&self) -> String {
        self.transcript.screen()
    }

    /// What the program wrote since the last find of [`wait_for`](Terminal::wait_for), as far as it has been taken, as that sees it:
    /// the last 128 KiB of it.
    pub fn text(&self) -> &str {
        self.transcript.text()
    }

    /// Changes the terminal's size, of which its programs are told.
    ///
    /// # Errors
    ///
    /// [`Error::BadOption`] where it has no rows or no columns.
    pub fn resize(&mut self, rows: u16, cols: u16) -> Result<()> {
        let (some_rows, some_cols) = size(rows, cols)?;
        self.transcript.resize(some_rows, some_cols);
        self.child.resize(rows, cols);
        Ok(())
    }

    /// Sends a signal, by number, to the process group of the program itself. A key such as Ctrl-C, which is
    /// [typed](Terminal::send), goes to the group in the foreground.
    pub fn signal(&self, signal: i32) {
        self.child.signal(signal);
    }

    /// Kills the program and all that it started on its terminal.
    pub fn kill(&self) {
        self.child.kill();
    }

    /// The program with its terminal's bytes as streams: what it writes in [`Child::stdout`], what is typed in [`Child::stdin`].
    /// What has been taken for a wait is not in them.
    pub fn into_child(self) -> Child {
        self.child
    }

    /// Reads until `look` finds what it wants.
    async fn until<T>(
        &mut self,
        pattern: &str,
        deadline: Deadline,
        mut look: impl FnMut(&mut Transcript) -> Option<T>,
    ) -> Result<T> {
        let what = || format!("{pattern:?} on the terminal of {}", self.child.command());
        let what = what();
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            if let Some(found) = look(&mut self.transcript) {
                return Ok(found);
            }
            let next = async {
                // A program that writes without end has always written more: the deadline must come between.
                tokio::task::yield_now().await;
                read(&mut self.child.stdout, &mut piece).await
            };
            match deadline.cut(next).await {
                Some(true) => self.transcript.push(&piece),
                Some(false) => return Err(self.ended(&what).await),
                None => return Err(deadline.missed(what, self.screen())),
            }
            piece.clear();
        }
    }

    /// That the program has ended before what was waited for came.
    async fn ended(&mut self, what: &str) -> Error {
        match timeout(END_PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) => Error::TerminalEnded { what: what.to_owned(), status, seen: self.screen() },
            Ok(Err(error)) => error,
            Err(_) => ChannelError::NoAnswer(END_PATIENCE).into(),
        }
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").field("command", &self.child.command()).finish_non_exhaustive()
    }
}

/// What a step of [`Terminal::send`] did.
enum Step {
    Written(usize),
    Read(bool),
}

/// Reads what stands ready, up to a piece. `false` at the end.
async fn read(stream: &mut Option<GuestReader>, piece: &mut Vec<u8>) -> bool {
    let Some(stream) = stream else { return false };
    matches!(stream.read_buf(piece).await, Ok(1..))
}

fn find(transcript: &mut Transcript, regex: &Regex) -> Option<Found> {
    let captures = regex.captures(transcript.text())?;
    let whole = captures.get(0)?;
    let group =
        |group: Option<regex_lite::Match<'_>>| group.map_or_else(String::new, |found| found.as_str().to_owned());
    let groups = captures.iter().skip(1).map(group).collect();
    let (text, range) = (whole.as_str().to_owned(), whole.range());
    Some(Found { before: transcript.take(range), text, groups })
}

fn size(rows: u16, cols: u16) -> Result<(NonZeroU16, NonZeroU16)> {
    NonZeroU16::new(rows).zip(NonZeroU16::new(cols)).ok_or_else(|| Error::BadOption {
        option: "pty",
        why: format!("a terminal has at least one row and one column, not {rows} and {cols}"),
    })
}
