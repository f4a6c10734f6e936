//! A machine that is ready for a start to come: its state is loaded, its guest does not run yet. For the harness, which has the next
//! test's machine made ready while a test runs.

use std::sync::{Arc, Mutex};

use super::{DEFAULT_MEMORY, SandboxBuilder, running::lock};
use crate::{
    error::{Error, Result},
    host::{
        Host,
        admission::{Demand, Slot},
    },
    launch::{
        accel,
        source::{self, Source},
    },
    qemu::machine::{Machine, NetworkMode},
    vm::{Aside, Loaded, Probe},
};

/// A machine that is ready for a start to come. Dropping it throws it away.
#[doc(hidden)]
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
pub(super) struct Ready(Option<Arc<Mutex<Option<Standby>>>>);

impl SandboxBuilder {
    /// Starts by `standby`, where that is of the very state and machine that are asked for, and it is our turn.
    #[doc(hidden)]
    pub fn standby(mut self, standby: Standby) -> SandboxBuilder {
        self.ready = Ready(Some(Arc::new(Mutex::new(Some(standby)))));
        self
    }

    /// Makes a machine ready for a later start with these options, where that takes nothing from anybody: there is memory, an idle
    /// processor, and nobody waits. Only one that is cloned and leads nowhere is made ready, since all else takes its time anyway.
    ///
    /// # Errors
    ///
    /// All that can keep a machine from starting.
    #[doc(hidden)]
    pub async fn make_ready(&self) -> Result<Option<Standby>> {
        if self.network == NetworkMode::Full || self.image.is_some() || !self.networks.is_empty() {
            return Ok(None);
        }
        let host = Host::discover()?;
        let source = Source::find(&host, &self.source, &self.saves()?, &self.reporter).await?;
        let saved = match &source {
            Source::Save(state) => Some(&state.manifest.machine),
            Source::Image(_) => None,
        };
        let machine = Machine {
            memory: self
                .memory_size()?
                .map(crate::base::size::Size::bytes)
                .or(saved.map(|machine| machine.memory))
                .unwrap_or(DEFAULT_MEMORY.bytes()),
            cpus: self.cpus.or(saved.map(|machine| machine.cpus)).unwrap_or(1),
            accelerator: accel::choose(&host, self.accel, Probe::of(&source::probe_files(&host, &source.image())?))
                .await?
                .accelerator,
            display: self.wants_display(saved.is_some_and(|machine| machine.display)),
            extra_arguments: self.extra_arguments.clone(),
        };
        let state = match &source {
            Source::Save(state)
                if state.manifest.machine == machine && state.manifest.machine_key == machine.key(host.version) =>
            {
                (**state).clone()
            }
            _ => match source::known_warm_state(&host, &source, &machine, self.kernel) {
                Some(state) => state,
                None => return Ok(None),
            },
        };
        let demand = Demand { memory: machine.memory, cpus: machine.cpus };
        let Some(mut slot) = Slot::for_standby(&host, demand).await? else { return Ok(None) };
        let outside = self.outside()?;
        let clone = Loaded::load(&host, &state, &outside).await?;
        let clone = clone.put_aside().map_err(Error::io("put aside", state.directory()))?;
        slot.runs_as(clone.pid());
        Ok(Some(Standby { clone, network: self.network, host, slot }))
    }
}

impl Standby {
    /// Whether others wait for what it takes, or it has ended.
    pub fn is_in_the_way(&self) -> bool {
        !self.clone.is_running() || Slot::is_wanted(&self.host)
    }
}

impl Ready {
    /// Takes it, with a slot for it, where it may start now.
    pub(super) async fn take(&self, host: &Host, demand: Demand) -> Result<Option<(Taken, Slot)>> {
        let standby = self.0.as_ref().and_then(|ready| lock(ready).take());
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
pub(super) struct Taken {
    clone: Aside,
    network: NetworkMode,
}

impl Taken {
    /// The clone, on this runtime, where it is of that state and is given that network.
    pub(super) fn of(self, id: &str, network: NetworkMode) -> Option<Loaded> {
        let fits = self.clone.state().manifest.id == id && self.network == network;
        if fits { self.clone.take_up().ok() } else { None }
    }
}
