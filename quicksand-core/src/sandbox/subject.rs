//! What has changed in a sandbox is found out from its machine and from the state that it started from.

use std::sync::Arc;

use super::Sandbox;
use crate::{
    error::{Error, Result},
    host::Host,
    image::state::State,
    qemu::machine::NetworkMode,
    vm::Vm,
};

/// What there is to compare.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) vm: Arc<Vm>,
    pub(crate) host: Host,
    /// The state that its sandbox started from.
    pub(crate) begun: State,
    pub(crate) network: NetworkMode,
}

impl Sandbox {
    /// What is to be compared.
    pub(crate) async fn subject(&self) -> Result<Subject> {
        let running = self.running()?;
        let vm = running.ready().await?;
        let begun = running.begun.clone().ok_or(Error::NotRunning)?;
        Ok(Subject { vm, host: running.host.clone(), begun, network: running.outside.network })
    }
}
