//! How a machine ends: by itself, by being thrown away, on the way to a reboot.

use std::{io, time::Duration};

use quicksand_protocol::message::Request;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{Vm, console::PANIC, settle::running_jobs, stillness::has_nothing_to_do};
use crate::{
    base::printed::last_lines,
    error::{
        Error,
        start::{Stage, StartCause, StartError},
    },
    guest::ChannelError,
    qemu::qmp::QmpError,
};

/// How long QEMU may take to end once its channels are closed, and what it and the guest said last to be read. Milliseconds, on a host
/// that is not overloaded.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a guest may take to have its init begin to go down, where its processor has something to do all the while.
const ASK_PATIENCE: Duration = Duration::from_secs(20);
/// How long a guest may take to go down by itself. systemd gives a service 90 s to stop, which is mostly one that hangs.
const GO_DOWN_PATIENCE: Duration = Duration::from_secs(60);
/// The same after its power button, which only a guest that does not answer is pressed, and how long it may do nothing after that.
const BUTTON_PATIENCE: Duration = Duration::from_secs(30);
const HEED: Duration = Duration::from_secs(3);
/// Between two looks whether a guest that goes down stands still.
const STEP: Duration = Duration::from_millis(100);
/// How long its init may take to say what keeps it.
const JOBS_PATIENCE: Duration = Duration::from_secs(10);
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
    pub(crate) async fn ended_error(&self) -> Error {
        let reason = timeout(LAST_WORDS, self.qmp.shutdown_reason()).await.ok().flatten();
        let ended = match reason.as_deref() {
            Some("guest-shutdown") => "the guest switched itself off".to_owned(),
            Some("guest-reset") => "the guest's kernel gave up".to_owned(),
            Some(reason) if reason.starts_with("host-") => format!("somebody on the host had QEMU end: {reason}"),
            _ => self.process.status().map_or("QEMU ended".to_owned(), |status| format!("QEMU ended with {status}")),
        };
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
                End::Final => self.ended_error().await,
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

    /// The error of a guest that reboots again and again, the last time by the end of this machine.
    pub(crate) fn reboot_loop(&self, cause: StartCause) -> Box<StartError> {
        StartError::gather(Stage::Boot, cause, &self.run_dir.qemu_log(), &self.console)
    }

    /// Has the guest go down in good order, or at least with its disk written as far as it will; then the machine has ended. For a
    /// machine that is to be booted again. Returns what its user should know of that.
    ///
    /// The agent is asked first. Where nobody answers, the power button is pressed, unless the guest stands still; where that does not
    /// end it, QEMU is told to.
    pub(crate) async fn go_down(&self) -> io::Result<Option<String>> {
        let asked = match self.channel.over() {
            None => self.channel.request(&Request::GoDown, ASK_PATIENCE).await.map(drop),
            Some(why) => Err(why),
        };
        let (way, error) = match asked {
            Ok(()) if self.ends_within(GO_DOWN_PATIENCE).await => return Ok(None),
            Ok(()) => (self.what_keeps_it().await, None),
            // There is no init that does as it is told.
            Err(error @ ChannelError::Guest { .. }) => {
                ("the guest did not go down for its reboot".to_owned(), Some(error))
            }
            // It has gone down too fast to say so.
            Err(ChannelError::Closed) if timeout(LAST_WORDS, self.process.ended()).await.is_ok() => return Ok(None),
            Err(_) if self.goes_down_by_its_button().await => return Ok(None),
            Err(error) => ("the guest could not be told to go down for its reboot".to_owned(), Some(error)),
        };
        let written = match self.channel.over() {
            None => self.channel.request(&Request::Sync, SYNC_PATIENCE).await.is_ok(),
            Some(_) => false,
        };
        let why = error.map_or(String::new(), |error| format!(": failed to {error}"));
        let disk = if written { "with its disk written" } else { "without its disk written first" };
        let warning = format!("{way}{why}; its machine was reset, {disk}");
        // QEMU closes the disk's files in good order before it ends, unlike when it is killed.
        let told = timeout(SYNC_PATIENCE, self.qmp.execute("quit", json!({}))).await;
        if !matches!(told, Ok(Ok(_))) || timeout(SYNC_PATIENCE, self.process.ended()).await.is_err() {
            self.process.kill().await?;
        }
        Ok(Some(warning))
    }

    /// Waits for the machine's end. Not where the guest stands still.
    async fn ends_within(&self, patience: Duration) -> bool {
        let stands_still = async {
            while !self.stands_still() {
                sleep(STEP).await;
            }
        };
        tokio::select! {
            ended = timeout(patience, self.process.ended()) => ended.is_ok(),
            () = stands_still => false,
        }
    }

    /// Whether the guest will do nothing any more, whoever asks it.
    fn stands_still(&self) -> bool {
        let over = self.channel.over();
        over.is_some_and(|why| {
            matches!(
                why,
                ChannelError::Halted
                    | ChannelError::Suspended
                    | ChannelError::Panicked(_)
                    | ChannelError::DiskStopped(_)
            )
        })
    }

    /// Presses the power button of a guest that does not answer. Waits for the machine's end where the guest heeds it.
    async fn goes_down_by_its_button(&self) -> bool {
        if self.stands_still() || self.qmp.execute("system_powerdown", json!({})).await.is_err() {
            return false;
        }
        let heedless = async {
            if !has_nothing_to_do(self.process.rest(), HEED).await {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = timeout(BUTTON_PATIENCE, self.process.ended()) => ended.is_ok(),
            () = heedless => false,
        }
    }

    /// Words on what keeps a guest from going down.
    async fn what_keeps_it(&self) -> String {
        let waited = GO_DOWN_PATIENCE.as_secs();
        let jobs = timeout(JOBS_PATIENCE, running_jobs(self)).await.ok().flatten();
        let jobs = jobs.map_or(String::new(), |jobs| format!(", where its systemd waited for {jobs} to stop"));
        format!("the guest did not go down for its reboot within {waited} s{jobs}")
    }
}
