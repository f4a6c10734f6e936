//! A sandbox whose methods block.

use std::{
    ffi::OsString,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{Command, FindChanges, SandboxBuilder, methods, own_runtime, run};
use crate::{
    error::Result,
    network::private::Network,
    qemu::machine::Accelerator,
    sandbox::{SaveReport, StartReport, links::PortForward},
    verbs::{
        command::{CheckedOutput, Output},
        display::{Chord, MouseButton},
        facts::{File, Package, Port, Queries, Service, User},
    },
};

/// A virtual machine of one's own, as [`crate::Sandbox`], whose methods block.
///
/// ```no_run
/// use quicksand_core::blocking::Sandbox;
///
/// let sb = Sandbox::builder("debian").start()?;
/// assert_eq!(sb.execute("uname -s")?.stdout, "Linux\n");
/// # Ok::<(), quicksand_core::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping a sandbox ends its machine: keep it in a variable for as long as the machine is needed"]
pub struct Sandbox {
    pub(super) inner: crate::sandbox::Sandbox,
    pub(super) runtime: Handle,
}

impl Sandbox {
    /// See [`Sandbox::builder`](crate::Sandbox::builder).
    pub fn builder(source: impl Into<String>) -> SandboxBuilder {
        SandboxBuilder { inner: crate::sandbox::Sandbox::builder(source), runtime: own_runtime() }
    }

    /// One that lives on another runtime, of several threads, which outlives it. For the harness.
    pub(crate) fn on(runtime: Handle, inner: crate::sandbox::Sandbox) -> Sandbox {
        Sandbox { inner, runtime }
    }

    /// See [`Sandbox::command`](crate::Sandbox::command).
    pub fn command(&self, program: impl Into<OsString>) -> Command<'_> {
        Command { inner: self.inner.command(program), runtime: &self.runtime }
    }

    /// See [`Sandbox::changes`](crate::Sandbox::changes).
    pub fn changes(&self) -> FindChanges<'_> {
        FindChanges { inner: self.inner.changes(), runtime: self.runtime.clone() }
    }

    /// See [`Sandbox::fork`](crate::Sandbox::fork).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fork(&self) -> Result<Sandbox> {
        Ok(Sandbox { inner: run(&self.runtime, self.inner.fork())?, runtime: self.runtime.clone() })
    }

    /// See [`Sandbox::facts`](crate::Sandbox::facts).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn facts<Q: Queries>(&self, queries: Q) -> Result<Q::Facts> {
        run(&self.runtime, self.inner.facts(queries))
    }

    /// See [`Sandbox::unforward_port`](crate::Sandbox::unforward_port).
    pub fn unforward_port(&self, forward: PortForward) {
        let _runtime = self.runtime.enter();
        self.inner.unforward_port(forward);
    }

    methods! {
        of "Sandbox";
        block {
            fn start(&self) -> Result<()>;
            fn stop(&self) -> Result<()>;
            fn reboot(&self) -> Result<()>;
            fn execute(&self, line: impl Into<String>) -> Result<Output>;
            fn ping(&self) -> Result<Duration>;
            fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>>;
            fn write_file(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()>;
            fn upload(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()>;
            fn download(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()>;
            fn save(&self, name: &str) -> Result<SaveReport>;
            fn checkpoint(&self, tag: impl Into<String>) -> Result<()>;
            fn revert(&self, tag: &str) -> Result<()>;
            fn forward_port(&self, forward: PortForward) -> Result<PortForward>;
            fn allow_host_port(&self, port: u16) -> Result<()>;
            fn disallow_host_port(&self, port: u16) -> Result<()>;
            fn leave(&self, network: &Network) -> Result<()>;
            fn create_user(&self, name: &str) -> Result<()>;
            fn install(&self, program: impl AsRef<Path>) -> Result<PathBuf>;
            fn install_as(&self, program: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<PathBuf>;
            fn package(&self, name: impl Into<String>) -> Result<Package>;
            fn service(&self, name: impl Into<String>) -> Result<Service>;
            fn file(&self, path: impl AsRef<Path>) -> Result<File>;
            fn user(&self, name: impl Into<String>) -> Result<User>;
            fn port(&self, port: u16) -> Result<Port>;
            fn udp_port(&self, port: u16) -> Result<Port>;
            fn screenshot(&self, path: impl AsRef<Path>) -> Result<()>;
            fn screenshot_png(&self) -> Result<Vec<u8>>;
            fn type_text(&self, text: &str) -> Result<()>;
            fn press_key(&self, keys: impl Into<Chord>) -> Result<()>;
            fn mouse_move(&self, x: u32, y: u32) -> Result<()>;
            fn mouse_click(&self, button: MouseButton) -> Result<()>;
        }
        same {
            fn reboots(&self) -> Result<u64>;
            fn is_running(&self) -> bool;
            fn accelerator(&self) -> Option<Accelerator>;
            fn why_not_better(&self) -> Option<String>;
            fn boot_timeout(&self) -> Duration;
            fn start_report(&self) -> Option<StartReport>;
            fn warnings(&self) -> Result<Vec<String>>;
            fn console_tail(&self, lines: usize) -> Option<String>;
            fn qemu_pid(&self) -> Option<u32>;
            fn vnc_port(&self) -> Option<u16>;
            fn checkpoints(&self) -> Result<Vec<String>>;
            fn delete_checkpoint(&self, tag: &str) -> Result<()>;
            fn port_forwards(&self) -> Vec<PortForward>;
            fn on_network(&self, network: &Network) -> Option<(String, Ipv4Addr)>;
            fn network_warning(&self) -> Option<String>;
        }
        wait {
            fn wait_for_port(&self, port: u16) -> ();
            fn wait_for_file(&self, path: impl Into<PathBuf>) -> ();
            fn wait_for_unit(&self, unit: impl Into<String>) -> ();
            fn wait_until_succeeds(&self, line: impl Into<String>) -> CheckedOutput;
            fn wait_for_console(&self, pattern: impl Into<String>) -> String;
            fn wait_for_line(&self, path: impl Into<PathBuf>, pattern: impl Into<String>) -> String;
        }
    }

    #[cfg(feature = "mounts")]
    methods! {
        of "Sandbox";
        block {
            fn mount(&self, mount: crate::sandbox::mount::Mount) -> Result<crate::sandbox::mount::ActiveMount>;
            fn unmount(&self, mount: impl std::borrow::Borrow<crate::sandbox::mount::ActiveMount>) -> Result<()>;
        }
        same {
            fn active_mounts(&self) -> Vec<crate::sandbox::mount::ActiveMount>;
        }
        wait {}
    }
}
