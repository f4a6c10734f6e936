//! Whether a guest still answers: what a session tells to those who watch over it and do not keep it alive.

use std::{sync::Weak, time::Duration};

use quicksand_protocol::message::Request;
use tokio::time::timeout;

use super::channel::{ChannelError, Shared};

/// A session, seen from outside.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(Weak<Shared>);

impl Pulse {
    pub(super) fn of(shared: Weak<Shared>) -> Pulse {
        Pulse(shared)
    }

    /// How many frames the guest has sent so far, where somebody waits for one. `None` where nobody does.
    pub(crate) fn awaited(&self) -> Option<u64> {
        self.0.upgrade()?.awaited()
    }

    /// Whether the guest answers within that time, even if by an error.
    pub(crate) async fn answers(&self, patience: Duration) -> bool {
        let asked = self.0.upgrade().map(|shared| shared.start(&Request::Ping));
        let Some(Ok(mut ping)) = asked else { return false };
        timeout(patience, ping.reply()).await.is_ok()
    }

    /// Ends the session.
    pub(crate) fn end(&self, why: ChannelError) {
        if let Some(shared) = self.0.upgrade() {
            shared.end(why);
        }
    }
}
