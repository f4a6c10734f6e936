//! What leads from a guest to anything outside of it, and back.
//!
//! - [`forward`]: connections from the host to a server in the guest;
//! - [`host_port`]: connections from the guest to a server on the host, where its port was named;
//! - [`carry`]: the bytes of both;
//! - [`private`]: networks among sandboxes, with their [`switch`];
//! - [`names`]: by which the guest knows what is there;
//! - [`passt`]: the internet, without this host, which [`filter`] sees to;
//! - [`wire`]: Ethernet frames on their way to QEMU.
//!
//! The first two are carried by the agent, so they need no network, survive a warm start, and open nothing in QEMU.

mod carry;
mod forward;
mod host_port;
mod names;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::task::AbortHandle;

pub(crate) use forward::Listener;
pub use forward::PortForward;
pub(crate) use host_port::HostPort;
pub(crate) use names::Names;

use crate::vm::Vm;

/// Most connections of one sandbox at a time, each way. Further ones wait.
const MOST_CONNECTIONS: usize = 256;

/// The machine by which a sandbox runs at the moment, for tasks that do not keep it alive.
#[derive(Debug, Clone)]
pub(crate) struct Current(Weak<Mutex<Arc<Vm>>>);

impl Current {
    pub(crate) fn new(vm: &Arc<Mutex<Arc<Vm>>>) -> Current {
        Current(Arc::downgrade(vm))
    }

    /// To be held for a moment only: it keeps the machine alive. `None` once the sandbox has gone.
    pub(crate) fn vm(&self) -> Option<Arc<Vm>> {
        Some(Arc::clone(&self.0.upgrade()?.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A task that ends with its owner.
#[derive(Debug)]
#[must_use = "dropping a task ends it: keep it for as long as it is to run"]
pub(crate) struct Task(AbortHandle);

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
