//! Options of a sandbox.

use std::{path::PathBuf, time::Duration};

use tokio::runtime::Handle;

use super::{Sandbox, options, run};
use crate::{
    base::{accel::Accel, progress::Progress},
    error::Result,
    launch::kernel::Kernel,
    network::private::Network,
    qemu::machine::NetworkMode,
    sandbox::{links::PortForward, vnc::Vnc},
};

/// Options of a [`Sandbox`], as of [`crate::SandboxBuilder`].
#[derive(Debug, Clone)]
#[must_use = "a builder starts nothing by itself: add `.start()?`, or `.build()?` to start later"]
pub struct SandboxBuilder {
    pub(super) inner: crate::sandbox::SandboxBuilder,
    pub(super) runtime: Handle,
}

impl SandboxBuilder {
    options! {
        of "SandboxBuilder";
        fn memory(self, memory: impl Into<String>);
        fn cpus(self, cpus: u32);
        fn disk_size(self, size: impl Into<String>);
        fn accel(self, accel: Accel);
        fn network_mode(self, mode: NetworkMode);
        fn boot_timeout(self, timeout: Duration);
        fn kernel(self, kernel: Kernel);
        fn save(self, name: impl Into<String>);
        fn saves_dir(self, directory: impl Into<PathBuf>);
        fn enable_display(self, enable: bool);
        fn vnc(self, vnc: Vnc);
        fn extra_qemu_args(self, arguments: impl IntoIterator<Item = impl Into<String>>);
        fn on_progress(self, report: impl Fn(&Progress) + Send + Sync + 'static);
        fn port_forward(self, forward: PortForward);
        fn allow_host_port(self, port: u16);
        fn join(self, network: &Network, name: impl Into<String>);
    }

    #[cfg(feature = "mounts")]
    options! {
        of "SandboxBuilder";
        fn mount(self, mount: crate::sandbox::mount::Mount);
    }

    /// See [`SandboxBuilder::build`](crate::SandboxBuilder::build).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn build(self) -> Result<Sandbox> {
        Ok(Sandbox { inner: self.inner.build()?, runtime: self.runtime })
    }

    /// See [`SandboxBuilder::start`](crate::SandboxBuilder::start).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn start(self) -> Result<Sandbox> {
        let inner = run(&self.runtime, self.inner.start())?;
        Ok(Sandbox { inner, runtime: self.runtime })
    }
}
