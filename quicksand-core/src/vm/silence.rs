//! A guest that answers no more without a word of QEMU's: its agent is stopped, or its kernel has given up and stands still.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::time::sleep;

use super::{console::Console, stillness::has_nothing_to_do};
use crate::{
    guest::{ChannelError, Pulse},
    qemu::{Process, qmp::Qmp},
};

/// How long a guest that is waited for may send nothing before it is asked whether it is there, and how long it may then do nothing
/// without an answer. One that has anything to do may take as long as it likes.
const SILENCE: Duration = Duration::from_secs(3);
const STILLNESS: Duration = Duration::from_secs(5);
/// How long a kernel that gives up may take to reset the machine, as it is told to, which ends it.
const RESET: Duration = Duration::from_secs(3);

/// Listens to a guest that may have fallen silent.
pub(super) struct Silence {
    qmp: Weak<Qmp>,
    console: Console,
    pulse: Pulse,
    /// Whether the kernel has said that it gives up, which is yet to be believed.
    gives_up: AtomicBool,
    /// Whether its QEMU has nothing to do at this moment.
    rests: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Silence {
    pub(super) fn of(process: &Process, qmp: &Arc<Qmp>, pulse: Pulse, console: Console) -> Silence {
        Silence {
            qmp: Arc::downgrade(qmp),
            console,
            pulse,
            gives_up: AtomicBool::new(false),
            rests: Box::new(process.rest()),
        }
    }

    /// Waits until the guest does not answer any more, and says why. Can be broken off and begun again.
    pub(super) async fn is_for_good(&self) -> ChannelError {
        tokio::select! {
            why = self.kernel_gives_up() => why,
            () = self.agent_is_stopped() => ChannelError::AgentStopped,
        }
    }

    /// Waits until the kernel says that it gives up, and has done so: others may print the same.
    async fn kernel_gives_up(&self) -> ChannelError {
        loop {
            if !self.gives_up.load(Ordering::SeqCst) {
                self.console.gives_up().await;
                self.gives_up.store(true, Ordering::SeqCst);
            }
            sleep(RESET).await;
            if !self.pulse.answers(STILLNESS).await {
                return ChannelError::Panicked(self.console.panic().unwrap_or_default());
            }
            self.gives_up.store(false, Ordering::SeqCst);
        }
    }

    /// Waits until the agent answers no more though the guest has nothing to do.
    async fn agent_is_stopped(&self) {
        loop {
            let before = self.pulse.awaited();
            sleep(SILENCE).await;
            if before.is_none() || self.pulse.awaited() != before || !self.runs().await {
                continue;
            }
            let (answers, still) =
                tokio::join!(self.pulse.answers(STILLNESS), has_nothing_to_do(&self.rests, STILLNESS));
            // Whatever has come meanwhile is an answer, too.
            if !answers && still && self.pulse.awaited() == before && self.runs().await {
                return;
            }
        }
    }

    /// Whether the guest is not held.
    async fn runs(&self) -> bool {
        let Some(qmp) = self.qmp.upgrade() else { return false };
        let told = qmp.execute("query-status", json!({})).await;
        told.is_ok_and(|told| told["status"] == "running")
    }
}

impl fmt::Debug for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Silence")
    }
}
