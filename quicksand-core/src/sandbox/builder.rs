//! [`SandboxBuilder`]: the options of a sandbox.

use std::{path::PathBuf, sync::Mutex, time::Duration};

use super::{
    Life, Sandbox,
    links::PortForward,
    save::{Saved, check_name},
    vnc::Vnc,
};
use crate::{
    base::{
        accel::Accel,
        progress::{Progress, Reporter},
        size::Size,
    },
    error::{Error, Result},
    host::admission::Turn,
    launch::{
        kernel::{Boots, Kernel},
        standby::Ready,
    },
    network::private::Network,
    qemu::machine::{LEAST_MEMORY, MOST_CPUS, NetworkMode},
    vm::Identity,
};

/// Where saves are unless it is told otherwise.
pub(crate) const DEFAULT_SAVES_DIR: &str = ".quicksand/sandboxes";
/// The largest disk: what ext4 holds with 32-bit block numbers, which an image may have been made with.
const MOST_DISK: Size = Size::from_mib(16 << 20);

/// Options of a [`Sandbox`].
#[derive(Debug, Clone)]
#[must_use = "a builder starts nothing by itself: add `.start().await?`, or `.build()?` to start later"]
pub struct SandboxBuilder {
    pub(super) source: String,
    pub(super) memory: Option<String>,
    pub(super) cpus: Option<u32>,
    pub(super) disk_size: Option<String>,
    pub(super) accel: Accel,
    pub(super) network: NetworkMode,
    pub(super) boot_timeout: Duration,
    pub(super) kernel: Kernel,
    pub(super) save: Option<String>,
    pub(super) saves_dir: Option<PathBuf>,
    pub(super) recipe: Option<String>,
    /// The id of the save that it is to start from.
    pub(super) expected: Option<String>,
    pub(super) display: Option<bool>,
    pub(super) vnc: Option<Vnc>,
    pub(super) extra_arguments: Vec<String>,
    #[cfg(feature = "mounts")]
    pub(super) mounts: Vec<crate::sandbox::mount::Mount>,
    pub(super) turn: Turn,
    pub(super) ready: Ready,
    pub(super) identity: Identity,
    pub(super) forwards: Vec<PortForward>,
    pub(super) host_ports: Vec<u16>,
    pub(super) networks: Vec<(Network, String)>,
    pub(super) reporter: Reporter,
}

impl SandboxBuilder {
    /// Memory of the guest, as in `"512M"` or `"2G"`. Default: that of the save, or 512M.
    ///
    /// The host gives it as the guest touches it, so guests that together have more than the host may run. One that alone has more
    /// than the host, or than a control group of this process allows, is refused ([`Error::NotEnoughMemory`]), and so is any where
    /// less than 128M are left ([`Error::NoMemoryLeft`]).
    pub fn memory(mut self, memory: impl Into<String>) -> SandboxBuilder {
        self.memory = Some(memory.into());
        self
    }

    /// Processors of the guest. Default: those of the save, or 1.
    pub fn cpus(mut self, cpus: u32) -> SandboxBuilder {
        self.cpus = Some(cpus);
        self
    }

    /// The size of the guest's disk and of its root file system, as in `"10G"`, at least that of what it starts from. It takes
    /// no more of the host's than the guest writes to it. Default: that of what it starts from; a save keeps its own.
    ///
    /// The file system, an ext4, xfs or btrfs, is made larger by the guest's kernel at each start. So is the partition that it is
    /// on, where it is on one, which must be the last on its disk. It takes a fraction of a second, and more where a small one
    /// becomes a hundred times as large. Where it can't be done, the start is an [`Error::DiskGrowth`] that says why.
    pub fn disk_size(mut self, size: impl Into<String>) -> SandboxBuilder {
        self.disk_size = Some(size.into());
        self
    }

    /// How the guest's instructions are carried out. Default: [`Accel::Auto`].
    pub fn accel(mut self, accel: Accel) -> SandboxBuilder {
        self.accel = accel;
        self
    }

    /// What the guest reaches. Default: [`NetworkMode::MountsOnly`].
    pub fn network_mode(mut self, mode: NetworkMode) -> SandboxBuilder {
        self.network = mode;
        self
    }

    /// How long a boot may take, where one is needed. Default: [`DEFAULT_BOOT_TIMEOUT`](crate::DEFAULT_BOOT_TIMEOUT).
    pub fn boot_timeout(mut self, timeout: Duration) -> SandboxBuilder {
        self.boot_timeout = timeout;
        self
    }

    /// Which kernel it boots, where it does boot. Warm states are kept for each. Default: [`Kernel::Guest`].
    pub fn kernel(mut self, kernel: Kernel) -> SandboxBuilder {
        self.kernel = kernel;
        self
    }

    /// Writes a save of that name when the sandbox is [stopped](Sandbox::stop).
    pub fn save(mut self, name: impl Into<String>) -> SandboxBuilder {
        self.save = Some(name.into());
        self
    }

    /// The directory of the saves. Default: `.quicksand/sandboxes` in the current directory.
    pub fn saves_dir(mut self, directory: impl Into<PathBuf>) -> SandboxBuilder {
        self.saves_dir = Some(directory.into());
        self
    }

    /// Gives the guest a display without a window, and a pointer, for [`screenshot`](Sandbox::screenshot),
    /// [`type_text`](Sandbox::type_text) and their like. Warm states are kept for each kind. Default: as the save has it, or none.
    pub fn enable_display(mut self, enable: bool) -> SandboxBuilder {
        self.display = Some(enable);
        self
    }

    /// Shows the guest's display to viewers of VNC, and gives it one. Default: to nobody.
    pub fn vnc(mut self, vnc: Vnc) -> SandboxBuilder {
        self.vnc = Some(vnc);
        self
    }

    /// Arguments for QEMU beside our own. Warm states are kept for each set of them.
    pub fn extra_qemu_args<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> SandboxBuilder {
        self.extra_arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Calls `report` as long steps come along. See [`Progress`].
    pub fn on_progress(mut self, report: impl Fn(&Progress) + Send + Sync + 'static) -> SandboxBuilder {
        self.reporter = Reporter::new(report);
        self
    }

    /// What the save is made from. Where it differs from that of a save that is there, the save counts as absent for the harness.
    pub(crate) fn recipe(mut self, recipe: impl Into<String>) -> SandboxBuilder {
        self.recipe = Some(recipe.into());
        self
    }

    /// Waits its turn, even where this process has machines already: what they do does not depend on this one.
    pub(crate) fn in_turn(mut self) -> SandboxBuilder {
        self.turn = Turn::Always;
        self
    }

    /// Goes on as the very machine that was saved, of which there is only one.
    pub(crate) fn same_identity(mut self) -> SandboxBuilder {
        self.identity = Identity::Same;
        self
    }

    /// Starts at once, whatever else runs: somebody is waiting for it.
    pub(crate) fn at_once(mut self) -> SandboxBuilder {
        self.turn = Turn::Never;
        self
    }

    /// Starts from that very save and no other that has its name by now.
    pub(crate) fn expecting(mut self, save: &Saved) -> SandboxBuilder {
        self.expected = Some(save.id.clone());
        self
    }

    /// Checks the options.
    ///
    /// # Errors
    ///
    /// [`Error::Size`], [`Error::BadOption`], [`Error::BadName`].
    pub fn build(self) -> Result<Sandbox> {
        self.memory_size()?;
        self.disk_bytes()?;
        if self.cpus.is_some_and(|cpus| !(1..=MOST_CPUS).contains(&cpus)) {
            return Err(Error::BadOption { option: "cpus", why: format!("it must be 1 to {MOST_CPUS}") });
        }
        if let Some(name) = &self.save {
            check_name(name)?;
        }
        if self.vnc.is_some() && self.display == Some(false) {
            return Err(Error::BadOption { option: "vnc", why: "there is nothing to show without a display".into() });
        }
        self.check_ports()?;
        self.check_networks()?;
        #[cfg(feature = "mounts")]
        for (index, mount) in self.mounts.iter().enumerate() {
            mount.check()?;
            if self.mounts[..index].iter().any(|earlier| earlier.guest == mount.guest) {
                let why = format!("{} is there twice", mount.guest.display());
                return Err(Error::BadOption { option: "mount", why });
            }
        }
        Ok(Sandbox { options: self, life: Mutex::new(Life::Built) })
    }

    /// Builds the sandbox and starts it.
    ///
    /// # Errors
    ///
    /// Those of [`build`](SandboxBuilder::build) and [`Sandbox::start`].
    pub async fn start(self) -> Result<Sandbox> {
        let sandbox = self.build()?;
        sandbox.start().await?;
        Ok(sandbox)
    }

    /// How its machines are booted.
    pub(super) fn boots(&self) -> Boots {
        Boots { timeout: self.boot_timeout, kernel: self.kernel }
    }

    pub(super) fn memory_size(&self) -> Result<Option<Size>> {
        let Some(memory) = self.memory.as_deref().map(str::parse::<Size>).transpose()? else { return Ok(None) };
        let mib = Size::from_mib(1).bytes();
        if memory < LEAST_MEMORY || !memory.bytes().is_multiple_of(mib) {
            let why = format!("it must be a whole number of MiB and at least {LEAST_MEMORY}, not {memory}");
            return Err(Error::BadOption { option: "memory", why });
        }
        Ok(Some(memory))
    }

    pub(super) fn disk_bytes(&self) -> Result<Option<Size>> {
        let Some(size) = self.disk_size.as_deref().map(str::parse::<Size>).transpose()? else { return Ok(None) };
        if size > MOST_DISK || !size.bytes().is_multiple_of(Size::from_mib(1).bytes()) {
            let why = format!("it must be a whole number of MiB and at most {MOST_DISK}, not {size}");
            return Err(Error::BadOption { option: "disk_size", why });
        }
        Ok(Some(size))
    }

    pub(super) fn saves(&self) -> Result<PathBuf> {
        let directory = self.saves_dir.clone().unwrap_or_else(|| DEFAULT_SAVES_DIR.into());
        std::path::absolute(&directory).map_err(Error::io("find", &directory))
    }
}
