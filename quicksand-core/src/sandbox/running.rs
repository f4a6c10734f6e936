//! [`Running`]: a sandbox that runs, by one machine after the other.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::{Links, StartReport, attach};
use crate::{
    Error, Result,
    admission::Slot,
    command_log::CommandLog,
    guest::ChannelError,
    host::Host,
    network::Current,
    state::State,
    vm::{Identity, Outside, Vm},
};

/// A sandbox that runs.
#[derive(Debug)]
pub(super) struct Running {
    /// The machine by which it runs now: a reboot or a return to a checkpoint puts another in its place.
    vm: Arc<Mutex<Arc<Vm>>>,
    /// Its connections to the host.
    pub(super) links: Links,
    /// Held by whoever writes the machine down or puts another in its place.
    changing: Arc<AsyncMutex<()>>,
    /// What its machine is given at each of its starts.
    pub(super) outside: Outside,
    /// Its checkpoints by tag, in the order in which they were made.
    pub(super) checkpoints: Mutex<Vec<(String, State)>>,
    /// What was run in it, in whichever machine.
    pub(super) commands: Arc<CommandLog>,
    #[cfg(feature = "mounts")]
    pub(super) mounts: super::mounts::Mounts,
    pub(super) host: Host,
    pub(super) why_not_better: Option<String>,
    pub(super) report: StartReport,
    /// After the machine, which is gone before its place is free.
    slot: Mutex<Slot>,
}

/// The right to write a machine down or to put another in its place.
#[derive(Debug)]
pub(super) struct Change {
    _guard: OwnedMutexGuard<()>,
}

impl Running {
    pub(super) fn new(
        vm: Vm,
        outside: Outside,
        host: Host,
        why_not_better: Option<String>,
        report: StartReport,
        mut slot: Slot,
        links: Links,
    ) -> Running {
        slot.runs_as(vm.process().pid());
        let (vm, changing, checkpoints) = (Arc::new(Mutex::new(Arc::new(vm))), Arc::default(), Mutex::default());
        Running {
            vm,
            links,
            changing,
            outside,
            checkpoints,
            #[cfg(feature = "mounts")]
            mounts: Default::default(),
            commands: Arc::default(),
            host,
            why_not_better,
            report,
            slot: Mutex::new(slot),
        }
    }

    /// Gives it mounts, which are put on when its machine is attached.
    #[cfg(feature = "mounts")]
    pub(super) fn with_mounts(self, mounts: super::mounts::Mounts) -> Running {
        Running { mounts, ..self }
    }

    /// The machine by which it runs now.
    pub(super) fn vm(&self) -> Arc<Vm> {
        Arc::clone(&lock(&self.vm))
    }

    /// The same for tasks that do not keep it alive.
    pub(super) fn current(&self) -> Current {
        Current::new(&self.vm)
    }

    /// Waits until nobody else changes the machine.
    pub(super) async fn change(&self) -> Change {
        Change { _guard: Arc::clone(&self.changing).lock_owned().await }
    }

    /// Throws its machine away and goes on by a clone of `state`, which is of the same machine.
    pub(super) async fn go_back_to(&self, state: &State, _change: &Change) -> Result<()> {
        // First, since what the old one holds of the host, as ports, is the new one's.
        self.vm().discard(ChannelError::Reverted).await.map_err(Error::io("end", Path::new("QEMU")))?;
        let vm = Vm::restore(&self.host, state, &self.outside, Identity::Same).await?;
        lock(&self.slot).runs_as(vm.process().pid());
        *lock(&self.vm) = Arc::new(vm);
        attach::attach(self).await
    }
}

/// Carries `work` to its end, also where the caller no longer waits for it: broken off, it would leave the guest stopped or gone.
pub(super) async fn to_the_end<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down.
        Err(_) => Err(Error::NotRunning),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
