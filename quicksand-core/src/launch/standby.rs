//! A machine that is ready for a start to come: its state is loaded, its guest does not run yet. For the harness, which has the next
//! test's machine made ready while a test runs.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    Order,
    source::{self, Source},
};
use crate::{
    error::{Error, Result},
    host::{
        Host,
        admission::{Demand, Slot},
    },
    qemu::machine::NetworkMode,
    vm::{Aside, Loaded},
};

/// A machine that is ready for a start to come. Dropping it throws it away.
#[derive(Debug)]
#[must_use = "a machine that is ready ends when this is dropped: give it to `SandboxBuilder::standby(..)`"]
pub struct Standby {
    clone: Aside,
    network: NetworkMode,
    host: Host,
    slot: Slot,
}

/// The standby of a builder, until a start takes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ready(Option<Arc<Mutex<Option<Standby>>>>);

/// Makes a machine ready for a later start, where that takes nothing from anybody: there is memory, an idle processor, and nobody waits.
pub(crate) async fn make_ready(host: Host, source: &Source, order: &Order) -> Result<Option<Standby>> {
    let (machine, _) = order.machine(&host, source).await?;
    let state = match source {
        Source::Save(state) if state.is_for(&machine, host.version) => (**state).clone(),
        _ => match source::known_warm_state(&host, source, &machine, order.boots.kernel) {
            Some(state) => state,
            None => return Ok(None),
        },
    };
    let Some(mut slot) = Slot::for_standby(&host, order.demand(source)).await? else { return Ok(None) };
    let clone = Loaded::load(&host, &state, &order.outside).await?;
    let clone = clone.put_aside().map_err(Error::io("put aside", state.directory()))?;
    slot.runs_as(clone.pid());
    Ok(Some(Standby { clone, network: order.outside.network, host, slot }))
}

impl Standby {
    /// Whether others wait for what it takes, or it has ended.
    pub fn is_in_the_way(&self) -> bool {
        !self.clone.is_running() || Slot::is_wanted(&self.host)
    }
}

impl Ready {
    /// That it is there.
    pub(crate) fn with(standby: Standby) -> Ready {
        Ready(Some(Arc::new(Mutex::new(Some(standby)))))
    }

    /// Takes it, with a slot for it, where it may start now.
    pub(crate) async fn take(&self, host: &Host, demand: Demand) -> Result<Option<(Taken, Slot)>> {
        let standby = self.0.as_ref().and_then(|ready| ready.lock().unwrap_or_else(PoisonError::into_inner).take());
        let Some(Standby { clone, network, slot, .. }) = standby.filter(|standby| standby.clone.is_running()) else {
            return Ok(None);
        };
        let machine = &clone.state().manifest.machine;
        if (machine.memory, machine.cpus) != (demand.memory, demand.cpus) {
            return Ok(None);
        }
        Ok(slot.take_turn(host).await?.map(|slot| (Taken { clone, network }, slot)))
    }
}

/// A standby that may start.
#[derive(Debug)]
pub(crate) struct Taken {
    clone: Aside,
    network: NetworkMode,
}

impl Taken {
    /// The clone, on this runtime, where it is of that state and is given that network.
    pub(crate) fn of(self, id: &str, network: NetworkMode) -> Option<Loaded> {
        let fits = self.clone.state().manifest.id == id && self.network == network;
        if fits { self.clone.take_up().ok() } else { None }
    }
}
