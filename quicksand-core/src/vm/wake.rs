//! Having a guest take up a life of its own: its clock, its random pool, its network, its machine id.

use std::time::Duration;

use quicksand_protocol::message::{Done, Network, Request, Wake};

use super::Vm;
use crate::{
    base::random,
    error::start::StartCause,
    guest::{Channel, Operation},
};

/// How long a restored agent may take to answer. It has nothing to do but wake up.
pub(super) const WAKE_PATIENCE: Duration = Duration::from_secs(15);

/// Whether a clone is a machine of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// It gets a machine id of its own, as one of several clones of a state.
    New,
    /// It keeps its machine id: it is the machine that was frozen, which is no more.
    Same,
}

/// Asks the guest to take up a life of its own.
pub(super) fn wake(channel: &Channel, network: Network) -> Result<Operation, StartCause> {
    let seed = draw()?;
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let time_ns = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
    channel.start(&Request::Wake(Wake { time_ns, seed, network })).map_err(StartCause::Channel)
}

/// The request to take a new machine id.
pub(super) fn rename() -> Result<Request, StartCause> {
    let mut machine_id = draw::<16>()?;
    // A random UUID's version and variant bits, as systemd makes machine ids.
    machine_id[6] = machine_id[6] & 0x0f | 0x40;
    machine_id[8] = machine_id[8] & 0x3f | 0x80;
    Ok(Request::Rename { machine_id })
}

pub(super) fn draw<const N: usize>() -> Result<[u8; N], StartCause> {
    random::bytes().map_err(|e| StartCause::BadState(format!("draw random bytes: {e}")))
}

/// Waits for what could not be done.
pub(super) async fn replied(mut operation: Operation) -> Result<Done, StartCause> {
    operation.reply().await.map_err(StartCause::Channel)
}

impl Vm {
    /// Has a guest that was booted wake, with one thing after another done to its network.
    pub(super) async fn wake_again(&self, network: Network, identity: Identity) -> Result<(), StartCause> {
        self.warnings.add(replied(wake(&self.channel, network)?).await?);
        if identity == Identity::New {
            let renamed = self.channel.start(&rename()?).map_err(StartCause::Channel)?;
            self.warnings.add(replied(renamed).await?);
        }
        Ok(())
    }
}
