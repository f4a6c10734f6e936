//! How a sandbox comes to run: what is fastest is tried first.

use std::{
    path::Path,
    time::{Duration, Instant},
};

#[cfg(feature = "mounts")]
use super::mounts::Mounts;
use super::{DEFAULT_MEMORY, Links, Running, SandboxBuilder, StartKind, StartReport, attach, standby::Taken};
use crate::{
    base::{progress::Reporter, size::Size},
    error::{Error, Result},
    host::{
        Host,
        admission::{Demand, Slot},
    },
    image::state::State,
    launch::{
        accel,
        source::{self, Source},
    },
    qemu::machine::Machine,
    vm::{Identity, Outside, Probe, StartCause, Vm},
};

impl SandboxBuilder {
    pub(super) async fn launch(&self) -> Result<Running> {
        let begun = Instant::now();
        #[cfg(feature = "mounts")]
        let mounts =
            self.mounts.iter().cloned().map(crate::sandbox::mount::Mount::resolved).collect::<Result<Vec<_>>>()?;
        let host = Host::discover()?;
        let source = match &self.image {
            Some(image) => Source::Image(image.clone()),
            None => Source::find(&host, &self.source, &self.saves()?, &self.reporter).await?,
        };
        if let (Source::Save(state), Some(id)) = (&source, &self.expected)
            && state.manifest.id != *id
        {
            return Err(Error::SaveChanged { name: self.source.clone() });
        }
        let image = source.image();
        let saved = match &source {
            Source::Save(state) => Some(&state.manifest.machine),
            Source::Image(_) => None,
        };
        let own = saved.map(|machine| Size::from_bytes(machine.memory));
        let memory = self.memory_size()?.or(own).unwrap_or(DEFAULT_MEMORY);
        let cpus = self.cpus.or(saved.map(|machine| machine.cpus)).unwrap_or(1);
        let least = Size::from_bytes(source.disk_size());
        let disk_size = self.disk_bytes()?.unwrap_or(least);
        if disk_size < least {
            return Err(Error::DiskTooSmall { wanted: disk_size, least });
        }
        host.check_room(memory)?;
        let demand = Demand { memory: memory.bytes(), cpus };
        let (ready, slot, waited) = match self.ready.take(&host, demand).await? {
            Some((ready, slot)) => (Some(ready), slot, Duration::ZERO),
            None => {
                let (slot, waited) = Slot::take(&host, demand, self.turn, &self.reporter).await?;
                (None, slot, waited)
            }
        };
        host.check_memory_left(memory)?;
        let probe_files = source::probe_files(&host, &image)?;
        let choice = accel::choose(&host, self.accel, Probe::of(&probe_files)).await?;
        let machine = Machine {
            memory: memory.bytes(),
            cpus,
            accelerator: choice.accelerator,
            display: self.wants_display(saved.is_some_and(|machine| machine.display)),
            extra_arguments: self.extra_arguments.clone(),
        };

        let outside = self.outside()?;
        let (vm, kind, reasons, was_ready) = self.bring_up(&host, &source, &machine, &outside, ready).await?;
        vm.grow_disk(disk_size.bytes()).await?;
        for reason in &reasons {
            tracing::warn!(source = self.source, reason, "a slower start");
        }
        let elapsed = begun.elapsed().saturating_sub(waited);
        let report = StartReport { kind, reasons, elapsed, waited, was_ready, warnings: Vec::new() };
        tracing::debug!(source = self.source, ?report, "started");
        let links = Links::new(self, &outside);
        let given = (outside, self.boots());
        let running = Running::new(vm, given, host, choice.why_not_better, report, slot, links);
        #[cfg(feature = "mounts")]
        let running = running.with_mounts(Mounts::wanted(mounts));
        attach::attach(&running).await?;
        Ok(running.with_warnings())
    }

    /// What its machine is given at each of its starts.
    pub(super) fn outside(&self) -> Result<Outside> {
        let memberships = self.networks.iter().map(|(network, name)| network.join(name)).collect::<Result<_>>()?;
        Ok(Outside { source: self.source.clone(), network: self.network, vnc: self.vnc.clone(), memberships })
    }

    async fn clone_of(&self, host: &Host, state: &State, outside: &Outside, identity: Identity) -> Result<Vm> {
        self.reporter.report("clone", 0, 1);
        let vm = Vm::restore(host, state, outside, identity).await?;
        self.reporter.report("clone", 1, 1);
        Ok(vm)
    }

    /// Tries what is fastest first.
    async fn bring_up(
        &self,
        host: &Host,
        source: &Source,
        machine: &Machine,
        outside: &Outside,
        mut ready: Option<Taken>,
    ) -> Result<(Vm, StartKind, Vec<String>, bool)> {
        let mut reasons = Vec::new();
        if let Source::Save(state) = source {
            // The key is a claim of the save's, and what it was made of is what would be run: both must fit.
            let fits = state.manifest.machine == *machine && state.manifest.machine_key == machine.key(host.version);
            if !state.manifest.has_memory {
                reasons.push(
                    "the save has no memory: it was imported, or pulled where its memory does not fit".to_owned(),
                );
            } else if fits {
                if let Some(vm) = self.wake_ready(&mut ready, state).await {
                    return Ok((vm, StartKind::Warm, reasons, true));
                }
                match self.clone_of(host, state, outside, self.identity).await {
                    Ok(vm) => return Ok((vm, StartKind::Warm, reasons, false)),
                    Err(error) if !may_be_the_states_fault(&error) => return Err(error),
                    Err(error) => reasons.push(format!("the save's memory could not be used: failed to {error}")),
                }
            } else {
                reasons.push(format!(
                    "the save's memory is of another machine: {}",
                    difference(&state.manifest.machine, machine)
                ));
            }
        }
        let booted_kind = if matches!(source, Source::Save(_)) { StartKind::Disk } else { StartKind::Cold };
        let warm = source::warm_state(host, source, machine, self.boots(), &self.reporter).await?;
        let kind = if warm.booted { booted_kind } else { StartKind::Warm };
        if warm.booted && reasons.is_empty() {
            reasons.push("there was no warm state yet".to_owned());
        }
        if let Some(vm) = self.wake_ready(&mut ready, &warm.state).await {
            return Ok((vm, kind, reasons, true));
        }
        match self.clone_of(host, &warm.state, outside, Identity::New).await {
            Ok(vm) => return Ok((vm, kind, reasons, false)),
            Err(error) if warm.booted || !may_be_the_states_fault(&error) => return Err(error),
            Err(error) => reasons.push(format!("the warm state could not be used: failed to {error}")),
        }
        source::quarantine(host, &warm.state);
        let warm = source::warm_state(host, source, machine, self.boots(), &self.reporter).await?;
        let vm = self.clone_of(host, &warm.state, outside, Identity::New).await?;
        Ok((vm, if warm.booted { booted_kind } else { StartKind::Warm }, reasons, false))
    }

    /// The machine that was made ready, where it is a clone of that state and wakes.
    async fn wake_ready(&self, ready: &mut Option<Taken>, state: &State) -> Option<Vm> {
        let loaded = ready.take()?.of(&state.manifest.id, self.network)?;
        let woken = loaded.wake(self.identity).await;
        woken.inspect_err(|error| tracing::warn!(%error, "a machine that was made ready does not wake")).ok()
    }
}

/// Whether it may be the frozen state that keeps a clone from starting. What the host lacks, as room or rights in the cache directory,
/// would keep a boot from it as well, and is no reason to throw a state away.
fn may_be_the_states_fault(error: &Error) -> bool {
    match error {
        Error::Start(start) => !matches!(start.cause, StartCause::OutOfMemory),
        // The memory of its display is a part of the state, too.
        Error::Memory(_) => true,
        _ => false,
    }
}

/// In what a saved machine differs from the one that is wanted, for people.
fn difference(saved: &Machine, wanted: &Machine) -> String {
    let size = |machine: &Machine| Size::from_bytes(machine.memory).to_string();
    let fields = [
        ("memory", size(saved), size(wanted)),
        ("cpus", saved.cpus.to_string(), wanted.cpus.to_string()),
        ("accelerator", saved.accelerator.to_string(), wanted.accelerator.to_string()),
        ("display", saved.display.to_string(), wanted.display.to_string()),
        ("QEMU arguments", saved.extra_arguments.join(" "), wanted.extra_arguments.join(" ")),
    ];
    let differing: Vec<_> = fields
        .into_iter()
        .filter(|(_, saved, wanted)| saved != wanted)
        .map(|(what, saved, wanted)| format!("{what} {saved:?}, now {wanted:?}"))
        .collect();
    if differing.is_empty() {
        "QEMU, quicksand or the host's processor changed".to_owned()
    } else {
        differing.join("; ")
    }
}

/// Which image or save a name means, and what its frozen memory is bound to on this host; for the harness's key of a save.
#[doc(hidden)]
pub async fn source_identity(source: &str, saves: &Path, reporter: &Reporter) -> Result<String> {
    let host = Host::discover()?;
    let source = Source::find(&host, source, saves, reporter).await?.id();
    Ok(format!("{source}; QEMU {}; agent {}", host.version, quicksand_agent::ID))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::machine::Accelerator;

    #[test]
    fn a_difference_is_told_in_words() {
        let machine = |memory: u64, cpus| Machine {
            memory: memory << 20,
            cpus,
            accelerator: Accelerator::Tcg,
            display: false,
            extra_arguments: vec![],
        };
        assert_eq!(difference(&machine(512, 1), &machine(1024, 1)), r#"memory "512M", now "1G""#);
        assert!(difference(&machine(512, 1), &machine(512, 1)).contains("QEMU"));
    }
}
