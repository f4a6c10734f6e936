//! Programs in the guest, with streams of [`std::io`].

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Handle,
};

use super::{TerminalCommand, options, run};
use crate::{
    base::size::Size,
    error::Result,
    guest::{GuestReader, GuestWriter, exit_status::ExitStatus},
    verbs::command::Output,
};

/// A program to run in the guest, as [`crate::Command`]. Made by [`Sandbox::command`](super::Sandbox::command).
#[derive(Debug)]
#[must_use = "a command does nothing by itself: add `.output()?`, or `.spawn()?` for its streams"]
pub struct Command<'a> {
    pub(super) inner: crate::verbs::command::Command<'a>,
    pub(super) runtime: &'a Handle,
}

impl<'a> Command<'a> {
    options! {
        of "Command";
        fn arg(self, arg: impl Into<OsString>);
        fn args(self, args: impl IntoIterator<Item = impl Into<OsString>>);
        fn env(self, name: impl Into<OsString>, value: impl Into<OsString>);
        fn current_dir(self, directory: impl Into<OsString>);
        fn user(self, user: impl Into<OsString>);
        fn stdin(self, input: impl Into<Vec<u8>>);
        fn piped_stdin(self);
        fn timeout(self, timeout: Duration);
        fn output_limit(self, limit: Size);
    }

    /// See [`Command::output`](crate::Command::output).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn output(self) -> Result<Output> {
        run(self.runtime, self.inner.output())
    }

    /// See [`Command::spawn`](crate::Command::spawn).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn spawn(self) -> Result<Child> {
        Ok(Child::new(run(self.runtime, self.inner.spawn())?, self.runtime))
    }

    /// See [`Command::pty`](crate::Command::pty).
    pub fn pty(self, rows: u16, cols: u16) -> TerminalCommand<'a> {
        TerminalCommand { inner: self.inner.pty(rows, cols), runtime: self.runtime }
    }
}

/// A running program, as [`crate::Child`]. Dropping it kills it.
#[derive(Debug)]
#[must_use = "dropping a child kills its program: keep it in a variable, or `.wait()` for the program's end"]
pub struct Child {
    inner: crate::verbs::command::Child,
    runtime: Handle,
    /// Its standard input, where [`Command::piped_stdin`] asked for it. Dropping this closes it.
    pub stdin: Option<Writer>,
    /// Its standard output.
    pub stdout: Option<Reader>,
    /// Its standard error.
    pub stderr: Option<Reader>,
}

impl Child {
    pub(super) fn new(mut inner: crate::verbs::command::Child, runtime: &Handle) -> Child {
        let reader = |stream: GuestReader| Reader { stream, runtime: runtime.clone() };
        let stdin = inner.stdin.take().map(|stream| Writer { stream, runtime: runtime.clone() });
        let (stdout, stderr) = (inner.stdout.take().map(reader), inner.stderr.take().map(reader));
        Child { inner, runtime: runtime.clone(), stdin, stdout, stderr }
    }

    /// See [`Child::wait`](crate::Child::wait).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        run(&self.runtime, self.inner.wait())
    }

    /// See [`Child::signal`](crate::Child::signal).
    pub fn signal(&self, signal: i32) {
        self.inner.signal(signal);
    }

    /// See [`Child::resize`](crate::Child::resize).
    pub fn resize(&self, rows: u16, cols: u16) {
        self.inner.resize(rows, cols);
    }

    /// See [`Child::kill`](crate::Child::kill).
    pub fn kill(&self) {
        self.inner.kill();
    }

    /// See [`Child::command`](crate::Child::command).
    pub fn command(&self) -> &str {
        self.inner.command()
    }
}

/// A stream out of the guest.
#[derive(Debug)]
pub struct Reader {
    stream: GuestReader,
    runtime: Handle,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        run(&self.runtime, self.stream.read(buffer))
    }
}

/// A stream into the guest. Dropping it ends the stream there.
#[derive(Debug)]
pub struct Writer {
    stream: GuestWriter,
    runtime: Handle,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        run(&self.runtime, self.stream.write(bytes))
    }

    /// Nothing is held back here, so there is nothing to flush.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
