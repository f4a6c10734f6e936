//! Programs on a terminal.

use std::ffi::OsString;

use tokio::runtime::Handle;

use super::{Child, Wait, run};
use crate::{error::Result, guest::exit_status::ExitStatus, verbs::terminal::Found};

/// A program that is to run on a terminal, as [`crate::TerminalCommand`]. Made by [`Command::pty`](super::Command::pty).
#[derive(Debug)]
#[must_use = "a command does nothing by itself: add `.spawn()?`"]
pub struct TerminalCommand<'a> {
    pub(super) inner: crate::verbs::terminal::TerminalCommand<'a>,
    pub(super) runtime: &'a Handle,
}

impl<'a> TerminalCommand<'a> {
    /// See [`TerminalCommand::kind`](crate::TerminalCommand::kind).
    pub fn kind(mut self, kind: impl Into<OsString>) -> TerminalCommand<'a> {
        self.inner = self.inner.kind(kind);
        self
    }

    /// See [`TerminalCommand::spawn`](crate::TerminalCommand::spawn).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn spawn(self) -> Result<Terminal> {
        Ok(Terminal { inner: run(self.runtime, self.inner.spawn())?, runtime: self.runtime.clone() })
    }
}

/// A program that runs on a terminal, as [`crate::Terminal`].
#[derive(Debug)]
#[must_use = "dropping a terminal kills its program: keep it in a variable, or `.wait()` for the program's end"]
pub struct Terminal {
    inner: crate::verbs::terminal::Terminal,
    runtime: Handle,
}

impl Terminal {
    /// See [`Terminal::send`](crate::Terminal::send).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send(&mut self, text: impl AsRef<[u8]>) -> Result<()> {
        run(&self.runtime, self.inner.send(text))
    }

    /// See [`Terminal::send_line`](crate::Terminal::send_line).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_line(&mut self, text: impl AsRef<[u8]>) -> Result<()> {
        run(&self.runtime, self.inner.send_line(text))
    }

    /// See [`Terminal::wait_for`](crate::Terminal::wait_for).
    pub fn wait_for(&mut self, pattern: impl Into<String>) -> Wait<'_, Found> {
        Wait::new(self.inner.wait_for(pattern), &self.runtime)
    }

    /// See [`Terminal::wait_for_screen`](crate::Terminal::wait_for_screen).
    pub fn wait_for_screen(&mut self, pattern: impl Into<String>) -> Wait<'_, String> {
        Wait::new(self.inner.wait_for_screen(pattern), &self.runtime)
    }

    /// See [`Terminal::wait`](crate::Terminal::wait).
    pub fn wait(&mut self) -> Wait<'_, ExitStatus> {
        Wait::new(self.inner.wait(), &self.runtime)
    }

    /// See [`Terminal::screen`](crate::Terminal::screen).
    pub fn screen(&self) -> String {
        self.inner.screen()
    }

    /// See [`Terminal::text`](crate::Terminal::text).
    pub fn text(&self) -> &str {
        self.inner.text()
    }

    /// See [`Terminal::resize`](crate::Terminal::resize).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn resize(&mut self, rows: u16, cols: u16) -> Result<()> {
        self.inner.resize(rows, cols)
    }

    /// See [`Terminal::signal`](crate::Terminal::signal).
    pub fn signal(&self, signal: i32) {
        self.inner.signal(signal);
    }

    /// See [`Terminal::kill`](crate::Terminal::kill).
    pub fn kill(&self) {
        self.inner.kill();
    }

    /// See [`Terminal::into_child`](crate::Terminal::into_child).
    pub fn into_child(self) -> Child {
        Child::new(self.inner.into_child(), &self.runtime)
    }
}
