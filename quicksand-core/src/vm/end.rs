//! How a machine ends: by itself, by being thrown away, on the way to a reboot.

use std::{io, time::Duration};

use quicksand_protocol::message::Request;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{Vm, console::PANIC, last_lines};
use crate::{Error, guest::ChannelError, qemu::qmp::QmpError};

/// How long QEMU may take to end once its channels are closed, and what it and the guest said last to be read. Milliseconds, on a host
/// that is not overloaded.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a guest may take to go down by itself. systemd gives a service 90 s to stop, which is mostly one that hangs.
const GO_DOWN_PATIENCE: Duration = Duration::from_secs(60);
/// How long a guest that does not go down may take to write its caches to its disk.
const SYNC_PATIENCE: Duration = Duration::from_secs(10);

/// How a machine came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest rebooted.
    Reboot,
    /// It switched itself off, its kernel gave up, or QEMU ended.
    Final,
}

impl Vm {
    /// Waits for the machine's end and tells of which kind it is.
    pub(crate) async fn end(&self) -> End {
        self.process.ended().await;
        let reason = timeout(LAST_WORDS, self.qmp.shutdown_reason()).await.ok().flatten();
        let read = async {
            while !self.console.has_ended() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(LAST_WORDS, read).await;
        // A kernel that panics resets the machine as well: it was told to, so that this is noticed at once.
        let panicked = self.console.text().contains(PANIC);
        if reason.as_deref() == Some("guest-reset") && !panicked { End::Reboot } else { End::Final }
    }

    /// The error of whoever uses the machine after its end.
    pub(crate) fn ended_error(&self) -> Error {
        let ended = self.process.status().map_or("QEMU ended".to_owned(), |status| format!("QEMU ended with {status}"));
        let qemu = match last_lines(&self.qemu_log(), 5) {
            said if said.is_empty() => ended,
            said => format!("{ended}, and said: {said}"),
        };
        Error::Ended { qemu, console: self.console_tail(40), source: ChannelError::Closed }
    }

    /// What an error of the channel means, once it is known whether the machine is still there.
    pub(crate) async fn explain(&self, error: ChannelError) -> Error {
        let closed = matches!(error, ChannelError::Closed);
        // QEMU's end closes the channel a moment before it is seen as an end.
        if closed && timeout(LAST_WORDS, self.process.ended()).await.is_ok() {
            return match self.end().await {
                End::Reboot => ChannelError::Restarted.into(),
                End::Final => self.ended_error(),
            };
        }
        error.into()
    }

    /// The same for an error of any kind: a machine that ends closes QEMU's control channel as well.
    pub(crate) async fn explain_any(&self, error: Error) -> Error {
        if !matches!(error, Error::Guest(ChannelError::Closed) | Error::Qmp(QmpError::Closed { .. })) {
            return error;
        }
        match self.explain(ChannelError::Closed).await {
            Error::Guest(ChannelError::Closed) => error,
            explained => explained,
        }
    }

    /// Ends the machine, whoever still uses it: what is under way in it fails with `why`.
    pub(crate) async fn discard(&self, why: ChannelError) -> io::Result<()> {
        self.channel.end(why);
        self.process.kill().await.map(drop)
    }

    /// Has the guest go down in good order, or at least with its disk written; then the machine has ended. For a machine that is to
    /// be booted again.
    pub(crate) async fn go_down(&self) -> io::Result<()> {
        // Without the agent there is nobody to ask.
        let answers = self.channel.over().is_none();
        let asked = self.channel.request(&Request::GoDown, GO_DOWN_PATIENCE).await;
        // One whose channel closes has gone down too fast to say so.
        let goes = answers && !matches!(asked, Err(ChannelError::Guest { .. } | ChannelError::NoAnswer(_)));
        if goes && timeout(GO_DOWN_PATIENCE, self.process.ended()).await.is_ok() {
            return Ok(());
        }
        tracing::warn!(target: "quicksand::vm", goes, "the guest does not go down by itself: its machine is reset");
        let _ = self.channel.request(&Request::Sync, SYNC_PATIENCE).await;
        // QEMU closes the disk's files in good order before it ends, unlike when it is killed.
        if self.qmp.execute("quit", json!({})).await.is_ok()
            && timeout(SYNC_PATIENCE, self.process.ended()).await.is_ok()
        {
            return Ok(());
        }
        self.process.kill().await.map(drop)
    }
}
