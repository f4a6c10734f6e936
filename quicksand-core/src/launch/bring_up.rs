//! How a machine comes to run: what is fastest is tried first.

use super::{
    Order, StartKind,
    source::{self, Source},
    standby::Taken,
};
use crate::{
    base::size::Size,
    error::{Error, Result, start::StartCause},
    host::Host,
    image::state::State,
    qemu::machine::Machine,
    vm::{Identity, Vm},
};

impl Order {
    async fn clone_of(&self, host: &Host, state: &State, identity: Identity) -> Result<Vm> {
        self.reporter.report("clone", 0, 1);
        let vm = Vm::restore(host, state, &self.outside, identity).await?;
        self.reporter.report("clone", 1, 1);
        Ok(vm)
    }

    /// Tries what is fastest first.
    pub(super) async fn bring_up(
        &self,
        host: &Host,
        source: &Source,
        machine: &Machine,
        mut ready: Option<Taken>,
    ) -> Result<(Vm, StartKind, Vec<String>, bool)> {
        let mut reasons = Vec::new();
        if let Source::Save(state) = source {
            if !state.manifest.has_memory {
                reasons.push(
                    "the save has no memory: it was imported, or pulled where its memory does not fit".to_owned(),
                );
            } else if state.is_for(machine, host.version) {
                if let Some(vm) = self.wake_ready(&mut ready, state).await {
                    return Ok((vm, StartKind::Warm, reasons, true));
                }
                match self.clone_of(host, state, self.identity).await {
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
        let warm = source::warm_state(host, source, machine, self.boots, &self.reporter).await?;
        let kind = if warm.booted { booted_kind } else { StartKind::Warm };
        if warm.booted && reasons.is_empty() {
            reasons.push("there was no warm state yet".to_owned());
        }
        if let Some(vm) = self.wake_ready(&mut ready, &warm.state).await {
            return Ok((vm, kind, reasons, true));
        }
        match self.clone_of(host, &warm.state, Identity::New).await {
            Ok(vm) => return Ok((vm, kind, reasons, false)),
            Err(error) if warm.booted || !may_be_the_states_fault(&error) => return Err(error),
            Err(error) => reasons.push(format!("the warm state could not be used: failed to {error}")),
        }
        source::quarantine(host, &warm.state);
        let warm = source::warm_state(host, source, machine, self.boots, &self.reporter).await?;
        let vm = self.clone_of(host, &warm.state, Identity::New).await?;
        Ok((vm, if warm.booted { booted_kind } else { StartKind::Warm }, reasons, false))
    }

    /// The machine that was made ready, where it is a clone of that state and wakes.
    async fn wake_ready(&self, ready: &mut Option<Taken>, state: &State) -> Option<Vm> {
        let loaded = ready.take()?.of(&state.manifest.id, self.outside.network)?;
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
