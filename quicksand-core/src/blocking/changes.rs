//! A question for what has changed, whose answer is waited for.

use std::future::IntoFuture;

use tokio::runtime::Handle;

use super::run;
use crate::{error::Result, verbs::changes::Changes};

/// A question for what has changed, as [`crate::FindChanges`]. It is asked with [`done`](FindChanges::done):
///
/// ```no_run
/// # fn f(sb: quicksand_core::blocking::Sandbox) -> quicksand_core::Result<()> {
/// let changes = sb.changes().ignore(["/opt/tool/cache"]).done()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is compared until `.done()?`"]
pub struct FindChanges<'a> {
    pub(super) inner: crate::verbs::changes::FindChanges<'a>,
    pub(super) runtime: Handle,
}

impl<'a> FindChanges<'a> {
    /// See [`FindChanges::ignore`](crate::FindChanges::ignore).
    pub fn ignore<T: Into<String>>(self, patterns: impl IntoIterator<Item = T>) -> FindChanges<'a> {
        FindChanges { inner: self.inner.ignore(patterns), ..self }
    }

    /// See [`FindChanges::ignore_only`](crate::FindChanges::ignore_only).
    pub fn ignore_only<T: Into<String>>(self, patterns: impl IntoIterator<Item = T>) -> FindChanges<'a> {
        FindChanges { inner: self.inner.ignore_only(patterns), ..self }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::changes`](crate::Sandbox::changes).
    pub fn done(self) -> Result<Changes> {
        run(&self.runtime, self.inner.into_future())
    }
}
