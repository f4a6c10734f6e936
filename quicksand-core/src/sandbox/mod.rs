//! [`Sandbox`]: a virtual machine as its user sees it.

pub(crate) mod links;
#[cfg(feature = "mounts")]
pub(crate) mod mount;
pub(crate) mod resolve;
pub(crate) mod subject;
pub(crate) mod vnc;

mod attach;
mod builder;
mod checkpoint;
mod evidence;
mod freeze;
mod launch;
#[cfg(feature = "mounts")]
mod mounts;
mod network;
mod running;
pub(crate) mod save;
mod standby;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use quicksand_protocol::message::Request;

use crate::{
    base::{accel::Accel, progress::Reporter},
    error::{Error, Result},
    guest::command_log::LogEntry,
    host::admission::Turn,
    launch::{kernel::Kernel, standby::Ready},
    qemu::machine::{Accelerator, NetworkMode},
    vm::{Identity, Vm},
};

pub use crate::launch::{DEFAULT_MEMORY, StartKind, kernel::DEFAULT_BOOT_TIMEOUT, standby::Standby};
pub(crate) use builder::DEFAULT_SAVES_DIR;
pub use builder::SandboxBuilder;
pub use evidence::{Activity, Evidence};
pub use launch::source_identity;
use network::Links;
use running::{Running, Watcher, to_the_end};
pub use save::{SaveReport, Saved};
pub(crate) use save::{make_saves_dir, save_lock_name};

/// How long an agent may take to answer a ping.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// What a start did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StartReport {
    /// How the sandbox came to run.
    pub kind: StartKind,
    /// Why nothing faster was done, one reason for each thing that was tried or not possible.
    pub reasons: Vec<String>,
    /// The whole time of the start, without the wait.
    pub elapsed: Duration,
    /// How long it waited until other machines left room for it.
    pub waited: Duration,
    /// Whether its machine had been made ready before it was asked for.
    pub was_ready: bool,
    /// What could not be done for the guest, in words, as where its `/etc/resolv.conf` can't be written. It is of use all the same.
    /// What concerns its machine id is here once a command has been run. See also [`Sandbox::warnings`].
    pub warnings: Vec<String>,
}

/// A virtual machine of one's own.
///
/// Dropping it throws it away, with whatever it holds. [`stop`](Sandbox::stop) writes the save that the builder named.
///
/// It belongs to the tokio runtime in which it was started, and can be used for as long as that is there. Each `#[tokio::test]` has
/// a runtime of its own, so that a sandbox in a `static` is of use to one of them alone. [`blocking`](crate::blocking) has none of this.
#[derive(Debug)]
#[must_use = "dropping a sandbox ends its machine: keep it in a variable for as long as the machine is needed"]
pub struct Sandbox {
    options: SandboxBuilder,
    life: Mutex<Life>,
}

enum Life {
    Built,
    Starting,
    Running { running: Arc<Running>, watcher: Arc<Watcher> },
    Stopped,
}

impl Life {
    fn running(running: Running) -> Life {
        let running = Arc::new(running);
        let watcher = Arc::new(Watcher::over(&running));
        Life::Running { running, watcher }
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Life::Built => "Built",
            Life::Starting => "Starting",
            Life::Running { .. } => "Running",
            Life::Stopped => "Stopped",
        })
    }
}

impl Sandbox {
    /// A builder for a sandbox that starts from an image, a save of that name, or the directory of a save.
    pub fn builder(source: impl Into<String>) -> SandboxBuilder {
        SandboxBuilder {
            source: source.into(),
            memory: None,
            cpus: None,
            disk_size: None,
            accel: Accel::default(),
            network: NetworkMode::default(),
            boot_timeout: DEFAULT_BOOT_TIMEOUT,
            kernel: Kernel::default(),
            save: None,
            saves_dir: None,
            recipe: None,
            expected: None,
            display: None,
            vnc: None,
            extra_arguments: Vec::new(),
            #[cfg(feature = "mounts")]
            mounts: Vec::new(),
            turn: Turn::default(),
            ready: Ready::default(),
            identity: Identity::New,
            forwards: Vec::new(),
            host_ports: Vec::new(),
            networks: Vec::new(),
            reporter: Reporter::silent(),
        }
    }

    /// Starts it: from the frozen state where there is one, else from the disk of the save, else by booting the image.
    ///
    /// The first machine of a process waits until memory and processors leave room for it beside all others of the user; see
    /// `QUICKSAND_JOBS` and `QUICKSAND_MEMORY_BUDGET` in [`environment`](crate::base::environment). Further ones start at once.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyStarted`]; all that can keep a machine from starting, see [`Error`].
    pub async fn start(&self) -> Result<()> {
        {
            let mut life = self.life();
            if !matches!(*life, Life::Built) {
                return Err(Error::AlreadyStarted);
            }
            *life = Life::Starting;
        }
        // In a box: it is deep, and the compiler follows the futures that have it within theirs only so far.
        let started = Box::pin(self.options.launch()).await;
        let mut life = self.life();
        match started {
            Ok(running) => {
                *life = Life::running(running);
                Ok(())
            }
            Err(error) => {
                *life = Life::Stopped;
                Err(error)
            }
        }
    }

    /// Stops it. Where the builder named a save, that is written first. Stopping a sandbox that does not run does nothing.
    ///
    /// # Errors
    ///
    /// Those of [`save`](Sandbox::save); the sandbox then runs on.
    pub async fn stop(&self) -> Result<()> {
        let Ok(running) = self.running() else { return Ok(()) };
        if let Some(name) = &self.options.save
            && let Err(error) = self.save(name).await
        {
            // Another call that stops it has written the save and was faster.
            return if self.running().is_err() { Ok(()) } else { Err(error) };
        }
        *self.life() = Life::Stopped;
        running.vm().process().kill().await.map_err(Error::io("stop", Path::new("QEMU")))?;
        #[cfg(feature = "mounts")]
        running.end_mounts().await;
        Ok(())
    }

    /// Reboots the guest: its init goes down and comes up again, from the disk as it is, without what was in memory alone. Waits until
    /// the init has started everything. Where the machine has ended by itself, it is booted.
    ///
    /// A guest that does not go down within a minute is reset, as by a button, with its disk written; one that does not answer has its
    /// power button pressed first, and is reset with its disk as it is where it does nothing then. That it was reset, and which unit did
    /// not stop, is among the [`warnings`](Sandbox::warnings).
    ///
    /// A guest that reboots by itself is booted again, too: what is under way then fails with
    /// [`ChannelError::Restarted`](crate::ChannelError::Restarted), and what is asked later waits for the guest to be back. After the
    /// third time in a row that no command had it do that, it is not booted any more:
    /// [`StartCause::RebootLoop`](crate::StartCause::RebootLoop), with what had it reboot where that was seen, until `reboot` or
    /// [`revert`](Sandbox::revert). A guest
    /// that switches itself off, or whose kernel gives up, has ended: [`Error::Ended`]. One that halts, is suspended, or starts another
    /// kernel by kexec is told by a [`ChannelError`](crate::ChannelError) of that name, and can be rebooted or reverted. One that falls
    /// asleep with its processors running (`freeze`, s2idle) is woken after some seconds; what ran in it goes on. `docs/ends.md` has
    /// them all.
    ///
    /// # Errors
    ///
    /// Where the init does not come to an end with what it is to start, the error names what systemd waits for, and the machine is of
    /// use as it is: commands go on to work in it.
    ///
    /// [`Error::NotRunning`], and whatever keeps a machine from booting within its [boot timeout](SandboxBuilder::boot_timeout).
    pub async fn reboot(&self) -> Result<()> {
        let running = self.running()?;
        to_the_end(async move { running.reboot().await }).await
    }

    /// How many times the guest has rebooted since the sandbox started, by itself or as it was told.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]
    pub fn reboots(&self) -> Result<u64> {
        Ok(self.running()?.reboots())
    }

    /// Asks the agent for an answer and returns how long it took.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], [`Error::Guest`], [`Error::Ended`].
    pub async fn ping(&self) -> Result<Duration> {
        let vm = self.vm().await?;
        let begun = Instant::now();
        match vm.channel().request(&Request::Ping, PING_PATIENCE).await {
            Ok(_) => Ok(begun.elapsed()),
            Err(error) => Err(vm.explain(error).await),
        }
    }

    /// Whether its machine runs. One that reboots does not, for the time between.
    pub fn is_running(&self) -> bool {
        self.running().is_ok_and(|running| running.vm().process().is_running())
    }

    /// What carries out the guest's instructions. `None` unless it runs.
    pub fn accelerator(&self) -> Option<Accelerator> {
        Some(self.running().ok()?.vm().machine().accelerator)
    }

    /// Why nothing faster carries out the guest's instructions, where that was asked for and does not work here.
    pub fn why_not_better(&self) -> Option<String> {
        self.running().ok()?.why_not_better.clone()
    }

    /// The port of 127.0.0.1 at which viewers of VNC see its display. `None` unless it runs and [`Vnc::Tcp`](crate::Vnc) was asked for.
    pub fn vnc_port(&self) -> Option<u16> {
        self.running().ok()?.vnc.get()?.port()
    }

    /// How long a boot may take.
    pub fn boot_timeout(&self) -> Duration {
        self.options.boot_timeout
    }

    /// What its start did. `None` unless it runs.
    pub fn start_report(&self) -> Option<StartReport> {
        Some(self.running().ok()?.report())
    }

    /// What could not be done for the guest by which it runs now, in words: as it started, rebooted, was forked or put back to a
    /// checkpoint, or as it was told a name. The guest is of use all the same. Each is logged as a warning, too.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]
    pub fn warnings(&self) -> Result<Vec<String>> {
        Ok(self.running()?.vm().warnings().all())
    }

    /// The last lines of the guest's console, also from before a reboot. `None` unless it runs.
    pub fn console_tail(&self, lines: usize) -> Option<String> {
        Some(self.running().ok()?.console_tail(lines))
    }

    /// The process id of its QEMU, for measurements. `None` unless it runs.
    pub fn qemu_pid(&self) -> Option<u32> {
        Some(self.running().ok()?.vm().process().pid())
    }

    /// The machine by which it runs. One that reboots is waited for.
    pub(crate) async fn vm(&self) -> Result<Arc<Vm>> {
        self.running()?.ready().await
    }

    /// Enters a command that begins in the log.
    pub(crate) fn enter_command(&self, command: &str) -> Result<LogEntry> {
        Ok(self.running()?.commands.enter(command))
    }

    fn running(&self) -> Result<Arc<Running>> {
        match &*self.life() {
            Life::Running { running, .. } => Ok(Arc::clone(running)),
            _ => Err(Error::NotRunning),
        }
    }

    /// Where its progress is told.
    pub(crate) fn reporter(&self) -> Reporter {
        self.options.reporter.clone()
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_before_anything_starts() {
        let build = |change: fn(SandboxBuilder) -> SandboxBuilder| change(Sandbox::builder("x")).build();
        assert!(build(|b| b.memory("2G").cpus(4).save("my-env.1")).is_ok());
        assert!(matches!(build(|b| b.memory("lots")), Err(Error::Size(_))));
        assert!(matches!(build(|b| b.memory("1M")), Err(Error::BadOption { option: "memory", .. })));
        assert!(matches!(build(|b| b.memory("512.5K")), Err(Error::BadOption { option: "memory", .. })));
        assert!(matches!(build(|b| b.cpus(0)), Err(Error::BadOption { option: "cpus", .. })));
        for name in ["", "..", ".x", "a/b", "a b", "a,b", "é", &"x".repeat(65)] {
            assert!(matches!(Sandbox::builder("x").save(name).build(), Err(Error::BadName { .. })), "{name}");
        }
    }

    #[tokio::test]
    async fn a_sandbox_that_does_not_run_says_so() {
        let sandbox = Sandbox::builder("x").build().unwrap();
        assert!(!sandbox.is_running());
        assert!(matches!(sandbox.execute("true").await, Err(Error::NotRunning)));
        sandbox.stop().await.unwrap();
    }
}
