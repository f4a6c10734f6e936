//! How a sandbox comes to run.

use std::{path::Path, time::Instant};

#[cfg(feature = "mounts")]
use super::mounts::Mounts;
use super::{Links, Running, SandboxBuilder, StartReport, attach, resolve::resolve};
use crate::{
    base::progress::Reporter,
    error::{Error, Result},
    host::Host,
    launch::{Launched, Order, launch, source::Source},
    vm::Outside,
};

impl SandboxBuilder {
    pub(super) async fn launch(&self) -> Result<Running> {
        let begun = Instant::now();
        #[cfg(feature = "mounts")]
        let mounts =
            self.mounts.iter().cloned().map(crate::sandbox::mount::Mount::resolved).collect::<Result<Vec<_>>>()?;
        let host = Host::discover()?;
        let source = resolve(&host, &self.source, &self.saves()?, &self.reporter).await?;
        if let (Source::Save(state), Some(id)) = (&source, &self.expected)
            && state.manifest.id != *id
        {
            return Err(Error::SaveChanged { name: self.source.clone() });
        }
        let order = self.order()?;
        let Launched { vm, kind, reasons, waited, was_ready, why_not_better, slot } =
            launch(&host, &source, &order).await?;
        let elapsed = begun.elapsed().saturating_sub(waited);
        let report = StartReport { kind, reasons, elapsed, waited, was_ready, warnings: Vec::new() };
        tracing::debug!(source = self.source, ?report, "started");
        let links = Links::new(self, &order.outside);
        let given = (order.outside, self.vnc.clone(), order.boots);
        let running = Running::new(vm, given, host, why_not_better, report, slot, links);
        #[cfg(feature = "mounts")]
        let running = running.with_mounts(Mounts::wanted(mounts));
        attach::attach(&running).await?;
        Ok(running.with_warnings())
    }

    /// What is ordered of a machine.
    pub(super) fn order(&self) -> Result<Order> {
        Ok(Order {
            memory: self.memory_size()?,
            cpus: self.cpus,
            disk_size: self.disk_bytes()?,
            accel: self.accel,
            // Who may see a display needs one.
            display: if self.vnc.is_some() { Some(true) } else { self.display },
            extra_arguments: self.extra_arguments.clone(),
            boots: self.boots(),
            identity: self.identity,
            turn: self.turn,
            ready: self.ready.clone(),
            outside: self.outside()?,
            reporter: self.reporter.clone(),
        })
    }

    /// What its machine is given at each of its starts.
    pub(super) fn outside(&self) -> Result<Outside> {
        let memberships = self.networks.iter().map(|(network, name)| network.join(name)).collect::<Result<_>>()?;
        Ok(Outside { source: self.source.clone(), network: self.network, memberships })
    }
}

/// Which image or save a name means, and what its frozen memory is bound to on this host; for the harness's key of a save.
pub async fn source_identity(source: &str, saves: &Path, reporter: &Reporter) -> Result<String> {
    let host = Host::discover()?;
    let source = resolve(&host, source, saves, reporter).await?.id();
    Ok(format!("{source}; QEMU {}; agent {}", host.version, quicksand_agent::ID))
}
