//! Waiting for something in a guest, each time with a deadline, and with an error that shows what was seen last.
//!
//! - [`Wait`]: a wait, what it waits for, and how long;
//! - `guest`: ports and files, which the guest's agent looks at;
//! - `unit`: units of systemd;
//! - `succeeds`: commands;
//! - `lines`: lines of the console and of files.

mod guest;
mod lines;
mod succeeds;
mod unit;

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use crate::{
    error::{Error, Result},
    sandbox::Sandbox,
    vm::Vm,
};

/// How long is waited unless it is told otherwise.
pub const DEFAULT_WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A wait. It begins when it is awaited:
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn f(sb: quicksand_core::Sandbox) -> quicksand_core::Result<()> {
/// sb.wait_for_port(80).await?;
/// sb.wait_for_unit("nginx").timeout(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a wait does nothing until it is awaited: add `.await?`"]
pub struct Wait<'a, T = ()> {
    timeout: Duration,
    begin: Begin<'a, T>,
}

type Begin<'a, T> = Box<dyn FnOnce(Deadline) -> Waiting<'a, T> + Send + 'a>;
type Waiting<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

impl<'a, T> Wait<'a, T> {
    pub(crate) fn new<F>(begin: impl FnOnce(Deadline) -> F + Send + 'a) -> Wait<'a, T>
    where
        F: Future<Output = Result<T>> + Send + 'a,
    {
        Wait { timeout: DEFAULT_WAIT_TIMEOUT, begin: Box::new(|deadline| Box::pin(begin(deadline))) }
    }

    /// How long to wait. Default: [`DEFAULT_WAIT_TIMEOUT`].
    pub fn timeout(mut self, timeout: Duration) -> Wait<'a, T> {
        self.timeout = timeout;
        self
    }
}

impl<'a, T> IntoFuture for Wait<'a, T> {
    type Output = Result<T>;
    type IntoFuture = Waiting<'a, T>;

    fn into_future(self) -> Waiting<'a, T> {
        (self.begin)(Deadline::after(self.timeout))
    }
}

impl<T> fmt::Debug for Wait<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// When a wait is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    whole: Duration,
}

impl Deadline {
    fn after(whole: Duration) -> Deadline {
        let now = Instant::now();
        // Whoever waits for ever need not do so for longer than a year.
        let at = now + whole.min(Duration::from_secs(365 * 24 * 3600));
        Deadline { at, whole }
    }

    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The work's outcome; `None` where the time is over before that.
    pub(crate) async fn cut<T>(self, work: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.at, work).await.ok()
    }

    /// The machine of a sandbox. One that reboots is waited for.
    pub(crate) async fn machine(self, sandbox: &Sandbox) -> Result<Arc<Vm>> {
        let missed = || self.missed("the guest to be back after a reboot", "nothing");
        self.cut(sandbox.vm()).await.unwrap_or_else(|| Err(missed()))
    }

    /// That the time is over.
    pub(crate) fn missed(self, what: impl Into<String>, seen: impl Into<String>) -> Error {
        Error::WaitTimeout { what: what.into(), after: self.whole, seen: seen.into() }
    }
}
