//! What can be known of a sandbox once something has gone wrong in it. For the harness, which gives a test its sandbox and yet wants
//! to look at it after the test has dropped it.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use super::{Life, Sandbox, freeze::Use, running::to_the_end};
use crate::{
    base::cache::Unfinished,
    error::{Error, Result},
    guest::command_log::CommandLog,
    host::Host,
    qemu::machine::{Accelerator, NetworkMode},
};

/// Most lines of the console; what is kept of it is bounded as well.
const MOST_LINES: usize = 10_000;

/// What is known of a sandbox's machine without asking its guest.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Evidence {
    /// What the guest printed on its console last.
    pub console: String,
    /// The command that started QEMU.
    pub qemu_command: String,
    /// What QEMU said on its standard output and error last.
    pub qemu_log: String,
    /// What was run in the guest, one JSON object a line.
    pub commands: String,
}

/// What is run in a machine, for somebody who waits. It does not hold the machine.
#[derive(Debug, Clone)]
pub struct Activity(Arc<CommandLog>);

impl Activity {
    /// The command line that began last of those that run.
    pub fn command(&self) -> Option<String> {
        self.0.running()
    }

    /// Writes what is run from now on into a file as it comes: a line as a command begins, and another as it ends. The file is there from
    /// the first command on.
    pub fn record(&self, file: &Path) {
        self.0.record(file);
    }

    /// Ends that.
    pub fn stop_recording(&self) {
        self.0.stop_recording();
    }
}

impl Sandbox {
    /// What is run in its machine, from now on.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]
    pub(crate) fn activity(&self) -> Result<Activity> {
        Ok(Activity(Arc::clone(&self.running()?.commands)))
    }

    /// A second handle to the same machine, which lives until both are dropped.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]
    pub(crate) fn share(&self) -> Result<Sandbox> {
        let life = match &*self.life() {
            Life::Running { running, watcher } => {
                Life::Running { running: Arc::clone(running), watcher: Arc::clone(watcher) }
            }
            _ => return Err(Error::NotRunning),
        };
        Ok(Sandbox { options: self.options.clone(), life: Mutex::new(life) })
    }

    /// Ends the machine, whoever still uses it, without a save.
    pub(crate) fn abandon(&self) {
        if let Ok(running) = self.running() {
            running.vm().process().signal_kill();
        }
    }

    /// What is known of its machine, also where that has ended.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]
    pub(crate) fn evidence(&self) -> Result<Evidence> {
        let running = self.running()?;
        let vm = running.vm();
        Ok(Evidence {
            console: running.console_tail(MOST_LINES),
            qemu_command: vm.process().command_line().to_owned(),
            qemu_log: vm.qemu_log(),
            commands: running.commands.json_lines(),
        })
    }

    /// The host, the network and the accelerator of its machine.
    pub(crate) fn kind_of_machine(&self) -> Result<(Host, NetworkMode, Accelerator)> {
        let running = self.running()?;
        Ok((running.host.clone(), running.outside.network, running.vm().machine().accelerator))
    }

    /// Writes the machine down as it is at this moment, whatever state the guest is in, into `directory`, with a file of that name and
    /// content. What is there is replaced. The machine runs on. The caller sees to it that nobody else writes there.
    pub(crate) async fn keep_in(&self, directory: &Path, name: &'static str, content: Vec<u8>) -> Result<()> {
        let running = self.running()?;
        let unfinished = Unfinished::beside(directory)?;
        to_the_end(async move {
            let change = running.change().await;
            running.freeze(unfinished.path(), Use::Evidence, &change).await?;
            let path = unfinished.path().join(name);
            std::fs::write(&path, content).map_err(Error::io("write", &path))?;
            // Not worth waiting for the disk.
            Ok(unfinished.finish_unsynced()?)
        })
        .await
    }
}
