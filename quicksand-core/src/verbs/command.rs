//! Programs in the guest, in the manner of [`std::process::Command`].

use std::{ffi::OsString, fmt, os::unix::ffi::OsStringExt, sync::Arc, time::Duration};

use quicksand_protocol::message::{Done, Exec, Request, Window};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::users;
use crate::{
    base::size::Size,
    error::{Error, Result},
    guest::{GuestReader, GuestWriter, Operation, command_log::LogEntry, exit_status::ExitStatus},
    image::metadata::add_defaults,
    sandbox::Sandbox,
    vm::{Vm, ask},
};

/// How long a command may take unless it is told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
/// How much of a command's output is collected unless it is told otherwise.
pub const DEFAULT_OUTPUT_LIMIT: Size = Size::from_mib(256);
/// How long filters may take at the end of a command of a shell; the guest waits for half as long.
const FILTERS_PATIENCE: Duration = Duration::from_secs(60);
/// How long a killed command is given to report its end.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Sandbox {
    /// Runs a line of shell in the guest, as root. `/bin/sh` is what the guest has under that name.
    ///
    /// # Errors
    ///
    /// Those of [`Command::output`].
    pub async fn execute(&self, line: impl Into<String>) -> Result<Output> {
        self.command("/bin/sh").arg("-c").arg(line.into()).output().await
    }

    /// A program to run in the guest, without a shell.
    pub fn command(&self, program: impl Into<std::ffi::OsString>) -> Command<'_> {
        Command::new(self, program.into())
    }
}

/// What a program that has ended left.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a command that fails is no error: assert `.success()`, go on with `.check()?` or use `.exit_code`"]
#[non_exhaustive]
pub struct Output {
    /// Standard output as text. Bytes that are no UTF-8 are replaced; see [`stdout_bytes`](Output::stdout_bytes).
    pub stdout: String,
    /// Standard error as text. Bytes that are no UTF-8 are replaced; see [`stderr_bytes`](Output::stderr_bytes).
    pub stderr: String,
    /// The exit code; 128 and the signal's number where a signal killed it, as shells have it. See [`status`](Output::status).
    pub exit_code: i32,
    /// How it ended.
    pub status: ExitStatus,
    /// The command: the line of shell as it was given, or the program and its arguments joined by spaces.
    pub command: String,
    /// The image at the bottom of the machine's disk: `debian`.
    pub image: String,
    raw: Option<(Vec<u8>, Vec<u8>)>,
}

impl Output {
    fn new(command: String, image: String, stdout: Vec<u8>, stderr: Vec<u8>, status: ExitStatus) -> Output {
        let exit_code = status.exit_code();
        match (String::from_utf8(stdout), String::from_utf8(stderr)) {
            (Ok(stdout), Ok(stderr)) => Output { stdout, stderr, exit_code, status, command, image, raw: None },
            (stdout, stderr) => {
                let bytes = |text: Result<String, std::string::FromUtf8Error>| {
                    text.map_or_else(std::string::FromUtf8Error::into_bytes, String::into_bytes)
                };
                let (stdout, stderr) = (bytes(stdout), bytes(stderr));
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let (out, err) = (text(&stdout), text(&stderr));
                Output { stdout: out, stderr: err, exit_code, status, command, image, raw: Some((stdout, stderr)) }
            }
        }
    }

    /// Whether it ended by itself with code 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// What the program printed where it has succeeded, and an error that shows it where it has not:
    ///
    /// ```no_run
    /// # async fn f(sb: quicksand_core::Sandbox) -> quicksand_core::Result<()> {
    /// sb.execute("systemctl stop nginx").await?.check()?;
    /// let version = sb.execute("nginx -v 2>&1").await?.check()?.stdout;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::CommandFailed`] where the exit code is not 0, or a signal killed the program.
    pub fn check(self) -> Result<CheckedOutput> {
        let Output { stdout, stderr, status, command, image, raw, .. } = self;
        if !status.success() {
            return Err(Error::CommandFailed { command, status, stdout, stderr });
        }
        Ok(CheckedOutput { stdout, stderr, exit_code: 0, status: ExitStatus::Code(0), command, image, raw })
    }

    /// Standard output to the byte.
    pub fn stdout_bytes(&self) -> &[u8] {
        self.raw.as_ref().map_or(self.stdout.as_bytes(), |(stdout, _)| stdout)
    }

    /// Standard error to the byte.
    pub fn stderr_bytes(&self) -> &[u8] {
        self.raw.as_ref().map_or(self.stderr.as_bytes(), |(_, stderr)| stderr)
    }
}

/// The command, how it ended and what it printed, for people and for snapshots.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.command, self.status, &self.stdout, &self.stderr)
    }
}

fn show(f: &mut fmt::Formatter<'_>, command: &str, status: ExitStatus, stdout: &str, stderr: &str) -> fmt::Result {
    writeln!(f, "$ {}", command.trim_end().replace('\n', "\n> "))?;
    match status {
        ExitStatus::Code(code) => writeln!(f, "exit code: {code}")?,
        ExitStatus::Signal(signal) => writeln!(f, "signal: {signal}")?,
    }
    for (name, content) in [("stdout", stdout), ("stderr", stderr)] {
        if !content.is_empty() {
            // Whether its last line is a whole one is a part of what was printed.
            let end = if content.ends_with('\n') { "" } else { "\n(no newline at the end)\n" };
            write!(f, "----- {name} -----\n{content}{end}")?;
        }
    }
    Ok(())
}

/// What a program that has succeeded left. Made by [`Output::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckedOutput {
    /// Standard output as text, as [`Output::stdout`].
    pub stdout: String,
    /// Standard error as text, as [`Output::stderr`].
    pub stderr: String,
    /// The exit code: 0.
    pub exit_code: i32,
    /// How it ended: by itself, with code 0.
    pub status: ExitStatus,
    /// The command, as [`Output::command`].
    pub command: String,
    /// The image at the bottom of the machine's disk, as [`Output::image`].
    pub image: String,
    raw: Option<(Vec<u8>, Vec<u8>)>,
}

impl CheckedOutput {
    /// Whether it ended by itself with code 0. It did.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Standard output to the byte.
    pub fn stdout_bytes(&self) -> &[u8] {
        self.raw.as_ref().map_or(self.stdout.as_bytes(), |(stdout, _)| stdout)
    }

    /// Standard error to the byte.
    pub fn stderr_bytes(&self) -> &[u8] {
        self.raw.as_ref().map_or(self.stderr.as_bytes(), |(_, stderr)| stderr)
    }
}

/// The output of any program, as functions want it that take one.
impl From<CheckedOutput> for Output {
    fn from(checked: CheckedOutput) -> Output {
        let CheckedOutput { stdout, stderr, exit_code, status, command, image, raw } = checked;
        Output { stdout, stderr, exit_code, status, command, image, raw }
    }
}

/// As an [`Output`].
impl fmt::Display for CheckedOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.command, ExitStatus::Code(0), &self.stdout, &self.stderr)
    }
}

/// A program to run in the guest. Made by [`Sandbox::command`].
#[derive(Debug)]
#[must_use = "a command does nothing by itself: add `.output().await?`, or `.spawn().await?` for its streams"]
pub struct Command<'a> {
    sandbox: &'a Sandbox,
    pub(crate) exec: Exec,
    input: Option<Vec<u8>>,
    timeout: Duration,
    output_limit: Size,
}

impl<'a> Command<'a> {
    pub(crate) fn new(sandbox: &'a Sandbox, program: OsString) -> Command<'a> {
        let exec = Exec { argv: vec![program.into_vec()], ..Exec::default() };
        Command { sandbox, exec, input: None, timeout: DEFAULT_TIMEOUT, output_limit: DEFAULT_OUTPUT_LIMIT }
    }

    /// Adds an argument. No shell sees it.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Command<'a> {
        self.exec.argv.push(arg.into().into_vec());
        self
    }

    /// Adds arguments.
    pub fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Command<'a> {
        self.exec.argv.extend(args.into_iter().map(|arg| arg.into().into_vec()));
        self
    }

    /// Sets a variable, on top of `PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL` and what makes output the same from run to run:
    /// `LC_ALL=C.UTF-8`, `TERM=dumb`, `COLUMNS=200`, `LINES=50`, `DEBIAN_FRONTEND=noninteractive`.
    /// A container image's own variables are there as well.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Command<'a> {
        self.exec.env.push((name.into().into_vec(), value.into().into_vec()));
        self
    }

    /// Sets the working directory. Default: that of the container image, where the guest is from one that has it, or the user's
    /// home.
    pub fn current_dir(mut self, directory: impl Into<OsString>) -> Command<'a> {
        self.exec.current_dir = Some(directory.into().into_vec());
        self
    }

    /// Runs it as that user of the guest. Default: root.
    ///
    /// `ann`, `1000`, `ann:staff` or `1000:1000`, as engines of containers have it: a group that is named is the only one, else they are
    /// the user's. A name must be in the guest's `/etc/passwd` or `/etc/group`. A number need not: such a user has the group 0, the
    /// home `/` and the shell `/bin/sh`.
    pub fn user(mut self, user: impl Into<OsString>) -> Command<'a> {
        self.exec.user = Some(user.into().into_vec());
        self
    }

    /// Gives it this input. Default: none; with [`spawn`](Command::spawn), [`Child::stdin`] is there only after
    /// [`piped_stdin`](Command::piped_stdin).
    pub fn stdin(mut self, input: impl Into<Vec<u8>>) -> Command<'a> {
        self.input = Some(input.into());
        self.exec.stdin = true;
        self
    }

    /// Lets the spawned child be written to through [`Child::stdin`].
    pub fn piped_stdin(mut self) -> Command<'a> {
        self.input = None;
        self.exec.stdin = true;
        self
    }

    /// How long it may take before it is killed, with all that belongs to it as [`Child::kill`] says. Default: [`DEFAULT_TIMEOUT`].
    pub fn timeout(mut self, timeout: Duration) -> Command<'a> {
        self.timeout = timeout;
        self
    }

    /// How much of each of its outputs [`output`](Command::output) takes. Default: [`DEFAULT_OUTPUT_LIMIT`].
    pub fn output_limit(mut self, limit: Size) -> Command<'a> {
        self.output_limit = limit;
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    ///
    /// [`Error::CommandTimeout`], with what it had printed; [`Error::TooLong`]; [`Error::Guest`] where the guest has no such program,
    /// user or directory; [`Error::BadOption`] where it can't have such a user; [`Error::Ended`] where the machine ended meanwhile. A
    /// code other than 0 is no error.
    pub async fn output(self) -> Result<Output> {
        let (after, limit, command) = (self.timeout, self.output_limit, ask::command_line(&self.exec.argv));
        let mut child = self.spawn().await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let entry = child.entry.clone();
        let work = async {
            let (out, err) = tokio::join!(ask::collect(out, &mut stdout, limit), ask::collect(err, &mut stderr, limit));
            // Before its end, with which it is written down.
            entry.printed(&stdout, &stderr);
            if !(out && err) {
                return Err(Error::TooLong { what: format!("the output of {command}"), limit });
            }
            child.wait().await
        };
        match timeout(after, work).await {
            Ok(Ok(status)) => {
                let image = child.vm.origin().map(|state| state.image().name().to_owned()).unwrap_or_default();
                Ok(Output::new(command, image, stdout, stderr, status))
            }
            Ok(Err(error)) => {
                entry.failed(&error);
                Err(error)
            }
            Err(_) => {
                entry.printed(&stdout, &stderr);
                entry.timed_out(after);
                child.kill();
                // Cancelled as it is, its end is a matter of moments; the next command finds the guest without it.
                let _ = timeout(KILL_PATIENCE, child.wait()).await;
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                Err(Error::CommandTimeout { command, after, stdout: text(stdout), stderr: text(stderr) })
            }
        }
    }

    /// Starts it, with its output as streams. The timeout does not apply to a spawned child.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]; [`Error::BadOption`] where what [`user`](Command::user) was told can't be a user's name or number;
    /// [`Error::Guest`] where the command line is too long. That the guest has no such program is told by [`Child::wait`].
    pub async fn spawn(self) -> Result<Child> {
        self.exec.user.as_deref().map_or(Ok(()), users::check)?;
        let vm = self.sandbox.vm().await?;
        vm.life().mark_used();
        let command = ask::command_line(&self.exec.argv);
        let entry = self.sandbox.enter_command(&command)?;
        let mut exec = self.exec;
        if let Some(state) = vm.origin() {
            add_defaults(&mut exec, state.image().defaults());
        }
        let mut operation = vm.channel().start(&Request::Exec(exec))?;
        let mut stdin = operation.stdin.take();
        if let Some(input) = self.input {
            let writer = stdin.take();
            tokio::spawn(async move {
                if let Some(mut writer) = writer {
                    // A program that does not read all of its input is no fault.
                    let _ = writer.write_all(&input).await;
                    let _ = writer.shutdown().await;
                }
            });
        }
        let (stdout, stderr) = (operation.stdout.take(), operation.stderr.take());
        Ok(Child { operation, vm, command, entry, status: None, stdin, stdout, stderr })
    }
}

/// A running program. Dropping it [kills](Child::kill) it.
///
/// Its output ends with the program, and with filters that it sent its own output through. Programs that it leaves in the background are
/// not waited for: they live on, and what they print to its streams from then on is read and dropped.
#[derive(Debug)]
#[must_use = "dropping a child kills its program: keep it in a variable, or `.wait()` for the program's end"]
pub struct Child {
    operation: Operation,
    vm: Arc<Vm>,
    command: String,
    entry: LogEntry,
    status: Option<ExitStatus>,
    /// Its standard input, where [`Command::piped_stdin`] asked for it. Dropping this closes it.
    pub stdin: Option<GuestWriter>,
    /// Its standard output.
    pub stdout: Option<GuestReader>,
    /// Its standard error.
    pub stderr: Option<GuestReader>,
}

impl Child {
    /// Waits for its end. Its streams should be read meanwhile: it blocks when they are full.
    ///
    /// # Errors
    ///
    /// [`Error::Guest`] where it could not be run; [`Error::Ended`] where the machine ended meanwhile.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        self.stdin = None;
        let done = match self.operation.reply().await {
            Ok(done) => done,
            Err(error) => {
                let error = self.vm.explain(error).await;
                self.entry.failed(&error);
                return Err(error);
            }
        };
        let status = ExitStatus::of(&done);
        self.status = Some(status);
        self.entry.ended(status);
        Ok(status)
    }

    /// Sends a signal, by number, to its process group.
    pub fn signal(&self, signal: i32) {
        self.operation.signal(signal);
    }

    /// Changes the size of its terminal, where it has one; see [`Command::pty`].
    pub fn resize(&self, rows: u16, cols: u16) {
        self.operation.resize(Window { rows, cols });
    }

    /// Kills it and all that belongs to it: every process of its session, of whichever process group, and what these started in sessions
    /// of their own, as `sudo` does. A daemon is left alone: it has called `setsid`, and whoever started it has ended.
    pub fn kill(&self) {
        self.operation.cancel();
    }

    /// Waits for the filters that the program has started and whose input has ended, while it runs on itself: for a shell whose command
    /// is over. Returns whether there were any; what they wrote is then in its output, or on the way there.
    pub(crate) async fn await_filters(&self) -> Result<bool> {
        let request = Request::AwaitFilters { operation: self.operation.id() };
        match self.vm.channel().request(&request, FILTERS_PATIENCE).await {
            Ok(done) => Ok(done == Done::Filtered),
            Err(error) => Err(self.vm.explain(error).await),
        }
    }

    /// The command as it was given, its words joined by spaces.
    pub fn command(&self) -> &str {
        &self.command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text_and_bytes_stay_bytes() {
        let new = |stdout, stderr, status| Output::new("x".into(), "debian".into(), stdout, stderr, status);
        let output = new(b"a\n".to_vec(), vec![0xff, b'x'], ExitStatus::Signal(9));
        assert_eq!((&*output.stdout, &*output.stderr, output.exit_code), ("a\n", "\u{fffd}x", 137));
        assert_eq!((output.stdout_bytes(), output.stderr_bytes()), (&b"a\n"[..], &[0xff, b'x'][..]));
        assert!(!output.success());
        assert_eq!(
            output.to_string(),
            "$ x\nsignal: 9\n----- stdout -----\na\n----- stderr -----\n\u{fffd}x\n(no newline at the end)\n"
        );
        assert_eq!(new(b"b".to_vec(), vec![], ExitStatus::Code(0)).stdout_bytes(), b"b");
    }

    #[test]
    fn a_command_that_failed_is_an_error_with_what_it_printed() {
        let new = |command: &str, stdout: &str, stderr: &str, status| {
            Output::new(command.into(), "debian".into(), stdout.into(), stderr.into(), status)
        };
        let fine = new("true", "a\n", "", ExitStatus::Code(0));
        let checked = fine.clone().check().unwrap();
        assert_eq!((&*checked.stdout, checked.to_string()), ("a\n", fine.to_string()));
        assert_eq!(Output::from(checked), fine);
        let told = |output: Output| output.check().unwrap_err().to_string();
        assert_eq!(
            told(new("make\x07 it", "a\n\x1b[2Jb\n", "no\n", ExitStatus::Code(3))),
            "run make it: exit code 3\n    stdout: a\n    stdout: b\n    stderr: no"
        );
        assert_eq!(told(new("sleep 9", "", "", ExitStatus::Signal(9))), "run sleep 9: signal 9");
        let script = told(new(&"true\n".repeat(30), "", "", ExitStatus::Code(1)));
        assert!(script.starts_with("run true\n    > true\n"), "{script}");
        assert!(script.ends_with("\n    > (10 further lines are not shown): exit code 1"), "{script}");
    }
}
