//! A running virtual machine: its QEMU, its control channel, its agent, its files.
//!
//! - [`boot`](Vm::boot) and [`restore`](Vm::restore) start one;
//! - [`freeze`](Vm::freeze) writes down all of it while it runs;
//! - [`discard`](Vm::discard) ends it, whoever still uses it;
//! - dropping it throws it away.

mod console;
pub(crate) mod disks;
mod failure;
mod freeze;
#[cfg(feature = "mounts")]
mod port;
mod start;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

pub(crate) use console::{last_lines, printable};
pub use failure::{Stage, StartCause, StartError};
pub(crate) use freeze::DiskAlone;
pub(crate) use start::{Boot, Identity, Probe};

use tokio::{sync::Mutex, time::timeout};

use crate::{
    Error, Size,
    guest::{Channel, ChannelError},
    inventory::MachineDetails,
    machine::{Machine, NetworkMode},
    qemu::{Process, qmp::Qmp},
    run_dir::RunDir,
    state::State,
};
use console::Console;

/// A running machine. Dropping it kills it and removes its files, in the order of the fields.
#[derive(Debug)]
pub(crate) struct Vm {
    channel: Channel,
    qmp: Qmp,
    process: Process,
    machine: Machine,
    /// What its memory was before it ran: never written.
    memory_file: PathBuf,
    disk: Mutex<Disk>,
    user_network: bool,
    console: Console,
    /// What it is a clone of, whose files it uses.
    origin: Option<State>,
    run_dir: Arc<RunDir>,
}

/// What a machine is given from outside at each start. Nothing of it is in a frozen state, which serves them all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outside {
    /// What its sandbox was started from, for whoever lists machines.
    pub(crate) source: String,
    pub(crate) network: NetworkMode,
}

/// A machine's disk. Locked for the length of a freeze, of which there is one at a time.
#[derive(Debug)]
struct Disk {
    /// Its files from the image up. The last is written.
    files: Vec<PathBuf>,
    /// How many times its top was put aside.
    put_aside: usize,
    /// Its size in bytes.
    size: u64,
}

impl Disk {
    fn new(files: Vec<PathBuf>, size: u64) -> Mutex<Disk> {
        Mutex::new(Disk { files, put_aside: 0, size })
    }
}

impl Vm {
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Leaves a note of what it is for whoever lists the machines of this host.
    pub(crate) fn describe(&self, source: &str) {
        let details = MachineDetails {
            source: source.to_owned(),
            owner: std::process::id(),
            qemu: self.process.pid(),
            memory: Size::from_bytes(self.machine.memory),
            cpus: self.machine.cpus,
            accelerator: self.machine.accelerator,
        };
        if let Err(error) = details.write(self.run_dir.path()) {
            tracing::debug!(%error, "a machine is not described");
        }
    }

    /// What it is a clone of. `None` for one that was booted.
    pub(crate) fn origin(&self) -> Option<&State> {
        self.origin.as_ref()
    }

    /// Whether a user network is at work, whose state a freeze holds.
    pub(crate) fn user_network(&self) -> bool {
        self.user_network
    }

    /// What an error of the channel means, once it is known whether the machine is still there.
    pub(crate) async fn explain(&self, error: ChannelError) -> Error {
        let closed = matches!(error, ChannelError::Closed);
        // QEMU's end closes the channel a moment before it is seen as an end.
        if closed && timeout(Duration::from_millis(500), self.process.ended()).await.is_ok() {
            return Error::Ended { console: self.console_tail(40), source: error };
        }
        error.into()
    }

    /// Ends the machine, whoever still uses it: what is under way in it fails with `why`.
    pub(crate) async fn discard(&self, why: ChannelError) -> io::Result<()> {
        self.channel.end(why);
        self.process.kill().await.map(drop)
    }

    /// The directory of its files, which goes with it.
    #[cfg(feature = "mounts")]
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.run_dir.path()
    }

    /// All that is kept of the guest's console.
    pub(crate) fn console_text(&self) -> String {
        self.console.text()
    }

    /// What QEMU said last on its standard output and error.
    pub(crate) fn qemu_log(&self) -> String {
        failure::qemu_words(&self.run_dir.qemu_log())
    }

    /// The first line of the guest's console that fits, once there is one; an error where the machine ends before that.
    pub(crate) async fn console_line(&self, fits: impl Fn(&str) -> bool) -> Result<String, Error> {
        tokio::select! {
            line = self.console.line(fits) => Ok(line),
            _ = self.process.ended() => {
                Err(Error::Ended { console: self.console_tail(40), source: ChannelError::Closed })
            }
        }
    }

    /// The last lines of the guest's console.
    pub(crate) fn console_tail(&self, lines: usize) -> String {
        self.console.tail(lines)
    }
}
