//! A running virtual machine: its QEMU, its control channel, its agent, its files.
//!
//! - `boot` and `restore` start one;
//! - `freeze` writes down all of it while it runs;
//! - `discard` and `go_down` end it, whoever still uses it;
//! - dropping it throws it away.

pub(crate) mod ask;
pub mod inventory;
pub(crate) mod run_dir;
pub(crate) mod transfer;

mod boot;
mod cards;
mod console;
pub(crate) mod disks;
mod end;
mod failure;
mod files;
mod freeze;
mod grow;
mod guest_watch;
mod launch;
mod own_kernel;
#[cfg(feature = "mounts")]
mod port;
mod probe;
mod restarts;
mod restore;
mod settle;
mod silence;
mod stillness;
mod video;
mod wake;
mod warnings;
mod way_out;

use std::{path::PathBuf, sync::Arc};

pub use crate::error::start::{Stage, StartCause, StartError};
pub(crate) use boot::Boot;
pub(crate) use end::End;
pub(crate) use freeze::{DiskAlone, Rest};
pub(crate) use probe::Probe;
pub(crate) use restarts::{Life, Rebooter, Restarts};
pub(crate) use restore::{Aside, Loaded};
pub(crate) use wake::Identity;
pub(crate) use warnings::Warnings;

use tokio::sync::Mutex;

use crate::{
    base::size::Size,
    error::Error,
    guest::{Channel, ChannelError},
    image::state::State,
    network::private::Membership,
    qemu::{
        Process,
        machine::{Machine, NetworkMode},
        qmp::Qmp,
    },
};
use cards::Cards;
use console::Console;
use guest_watch::GuestWatch;
use inventory::MachineDetails;
use run_dir::RunDir;
use way_out::WayOut;

/// A running machine. Dropping it kills it and removes its files, in the order of the fields.
#[derive(Debug)]
pub(crate) struct Vm {
    _guest_watch: GuestWatch,
    channel: Channel,
    life: Life,
    warnings: Arc<Warnings>,
    qmp: Arc<Qmp>,
    process: Process,
    machine: Machine,
    /// What its memory was before it ran: never written.
    memory_file: PathBuf,
    disk: Mutex<Disk>,
    way_out: WayOut,
    cards: Cards,
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
    /// Its private networks.
    pub(crate) memberships: Vec<Membership>,
}

impl Outside {
    /// What a twin that runs beside the original is given: the same, and a name and an address of its own on each network.
    pub(crate) fn twin(&self) -> Result<Outside, Error> {
        let present = self.memberships.iter().filter(|membership| membership.is_member());
        let memberships = present.map(|membership| membership.network().join_like(membership.name()));
        Ok(Outside { memberships: memberships.collect::<Result<_, _>>()?, ..self.clone() })
    }
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

    /// What is known of how it lives.
    pub(crate) fn life(&self) -> &Life {
        &self.life
    }

    /// What could not be done for the guest.
    pub(crate) fn warnings(&self) -> &Arc<Warnings> {
        &self.warnings
    }

    /// Why it does not run by the kernel that the guest asked for.
    pub(crate) fn kernel_fault(&self) -> Option<String> {
        self.warnings.lasting()
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

    pub(crate) fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// A path for a file of QEMU's, which goes with the machine.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.run_dir.path().join(name)
    }

    /// What it is a clone of. `None` for one that was booted.
    pub(crate) fn origin(&self) -> Option<&State> {
        self.origin.as_ref()
    }

    /// Whether a user network is at work, whose state a freeze holds.
    pub(crate) fn user_network(&self) -> bool {
        matches!(self.way_out, WayOut::User { .. })
    }

    /// How many cards of private networks it has, with a network or without.
    pub(crate) fn cards(&self) -> u8 {
        self.cards.count()
    }

    /// What the guest reaches though it should not.
    pub(crate) fn network_warning(&self) -> Option<&str> {
        match &self.way_out {
            WayOut::User { warning } => Some(warning),
            _ => None,
        }
    }

    /// The directory of its files, which goes with it.
    #[cfg(feature = "mounts")]
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.run_dir.path()
    }

    /// What QEMU said last on its standard output and error.
    pub(crate) fn qemu_log(&self) -> String {
        failure::qemu_words(&self.run_dir.qemu_log())
    }

    /// The first line of the guest's console that fits, once there is one; an error where the machine ends before that.
    pub(crate) async fn console_line(&self, fits: impl Fn(&str) -> bool) -> Result<String, Error> {
        tokio::select! {
            line = self.console.line(fits) => Ok(line),
            _ = self.process.ended() => Err(self.explain(ChannelError::Closed).await),
        }
    }

    /// The last lines of the guest's console.
    pub(crate) fn console_tail(&self, lines: usize) -> String {
        self.console.tail(lines)
    }
}
