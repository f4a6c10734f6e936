//! Checkpoints: moments of a running sandbox, to go back to.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use super::{
    Life, Sandbox, SandboxBuilder, StartKind, StartReport, attach,
    running::{Running, lock, to_the_end},
};
use crate::{
    base::progress::Reporter,
    error::{Error, Result},
    host::admission::{Demand, Turn, admit},
    qemu::machine::Machine,
    vm::{Identity, Vm},
};

impl Sandbox {
    /// Keeps this moment of the running sandbox under a tag: memory, devices and disk. It runs on, after a pause of some tens of
    /// milliseconds. A tag that was used before now means this moment.
    ///
    /// There may be any number of checkpoints. Each takes up to the guest's memory on the host's disk, in the cache directory, until
    /// it is [deleted](Sandbox::delete_checkpoint) or the sandbox has gone.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], and whatever keeps the machine from being written down. An old checkpoint of that tag then stays.
    pub async fn checkpoint(&self, tag: impl Into<String>) -> Result<()> {
        let (running, tag) = (self.running()?, tag.into());
        to_the_end(async move {
            running.ready().await?;
            let change = running.change().await;
            let state = running.passing_state(&change).await?;
            let mut checkpoints = lock(&running.checkpoints);
            let at = checkpoints.iter().position(|(other, _)| *other == tag);
            let replaced = at.map(|at| checkpoints.remove(at));
            checkpoints.push((tag, state));
            drop(checkpoints);
            // Its files go with it, which takes a moment.
            drop(replaced);
            Ok(())
        })
        .await
    }

    /// Goes back to a checkpoint: the processes and files of that moment, at the time of day that it is now. What was done since
    /// is gone, and so are the programs that were started since; those that ran then run on, without their
    /// [`Child`](crate::Child). The machine id stays; the random pool is a fresh one.
    ///
    /// It can be done again, and from there to any other checkpoint, older or newer; also where the machine has ended meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchCheckpoint`], [`Error::NotRunning`], and whatever keeps a machine from starting: the sandbox then has none, and
    /// may be returned to another checkpoint.
    pub async fn revert(&self, tag: &str) -> Result<()> {
        let (running, tag) = (self.running()?, tag.to_owned());
        to_the_end(async move {
            let find = || {
                let checkpoints = lock(&running.checkpoints);
                let found = checkpoints.iter().find(|(other, _)| *other == tag).map(|(_, state)| state.clone());
                drop(checkpoints);
                found.ok_or_else(|| running.no_such_checkpoint(tag.clone()))
            };
            find()?;
            running.is_to_return();
            let change = running.change().await;
            running.go_back_to(&find()?, &change).await
        })
        .await
    }

    /// The tags of its checkpoints, in the order in which they were made.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]
    pub fn checkpoints(&self) -> Result<Vec<String>> {
        Ok(self.running()?.tags())
    }

    /// Forgets a checkpoint and frees what it takes on disk, but for what a machine that came from it still uses.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchCheckpoint`], [`Error::NotRunning`]
    pub fn delete_checkpoint(&self, tag: &str) -> Result<()> {
        let running = self.running()?;
        let mut checkpoints = lock(&running.checkpoints);
        let at = checkpoints.iter().position(|(other, _)| other == tag);
        let gone = at.map(|at| checkpoints.remove(at));
        drop(checkpoints);
        gone.map(drop).ok_or_else(|| running.no_such_checkpoint(tag.to_owned()))
    }

    /// A twin: a sandbox of its own that goes on from this moment of this one, memory, processes and files, while this one runs on.
    /// It has a machine id and a random pool of its own, no checkpoints, and writes no save when it is stopped. Its forwarded
    /// ports lead from other ports of the host, see [`port_forwards`](Sandbox::port_forwards), and on a
    /// private network it has an address of its own and a name that ends in `-2`, `-3` and so on. It may outlive the
    /// sandbox that it came from, and may be forked itself.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], [`Error::NotEnoughMemory`], [`Error::NoSpace`], and whatever keeps a machine from being written down or
    /// from starting.
    pub async fn fork(&self) -> Result<Sandbox> {
        let begun = Instant::now();
        let running = self.running()?;
        let Machine { memory, cpus, .. } = *running.vm().machine();
        let demand = Demand { memory, cpus };
        let (slot, waited) = admit(&running.host, demand, Turn::Never, &Reporter::silent()).await?;
        let original = Arc::clone(&running);
        let state = to_the_end(async move {
            original.ready().await?;
            let change = original.change().await;
            original.passing_state(&change).await
        })
        .await?;
        let outside = running.outside.twin()?;
        let vm = Vm::restore(&running.host, &state, &outside, Identity::New).await?;
        let report = StartReport {
            kind: StartKind::Warm,
            reasons: Vec::new(),
            elapsed: begun.elapsed(),
            waited,
            was_ready: false,
            warnings: Vec::new(),
        };
        let twin = running.twin(vm, outside, report, slot).await;
        attach::attach(&twin).await?;
        let options = SandboxBuilder { save: None, ..self.options.clone() };
        Ok(Sandbox { options, life: Mutex::new(Life::running(twin.with_warnings())) })
    }
}

impl Running {
    fn tags(&self) -> Vec<String> {
        lock(&self.checkpoints).iter().map(|(tag, _)| tag.clone()).collect()
    }

    fn no_such_checkpoint(&self, tag: String) -> Error {
        Error::NoSuchCheckpoint { tag, tags: self.tags() }
    }
}
