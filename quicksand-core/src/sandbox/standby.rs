//! Machines that are made ready for a start to come, for the harness: the next test's is made ready while a test runs.

use super::{SandboxBuilder, resolve::resolve};
use crate::{
    error::Result,
    host::Host,
    launch::standby::{Ready, Standby, make_ready},
    qemu::machine::NetworkMode,
};

impl SandboxBuilder {
    /// Starts by `standby`, where that is of the very state and machine that are asked for, and it is our turn.
    pub(crate) fn standby(mut self, standby: Standby) -> SandboxBuilder {
        self.ready = Ready::with(standby);
        self
    }

    /// Makes a machine ready for a later start with these options, where that takes nothing from anybody: there is memory, an idle
    /// processor, and nobody waits. Only one that is cloned and leads nowhere is made ready, since all else takes its time anyway.
    ///
    /// # Errors
    ///
    /// All that can keep a machine from starting.
    pub(crate) async fn make_ready(&self) -> Result<Option<Standby>> {
        if self.network == NetworkMode::Full || !self.networks.is_empty() {
            return Ok(None);
        }
        let host = Host::discover()?;
        let source = resolve(&host, &self.source, &self.saves()?, &self.reporter).await?;
        make_ready(host, &source, &self.order()?).await
    }
}
