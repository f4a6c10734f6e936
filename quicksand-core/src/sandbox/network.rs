//! What a sandbox's guest reaches, and by what it is reached, while it runs.

use std::{collections::BTreeMap, sync::Mutex};

use quicksand_protocol::{
    message::Request,
    network::{HOST_ADDRESS, HOST_NAME},
};
use tokio::sync::Mutex as AsyncMutex;

use super::{PING_PATIENCE, Running, Sandbox, SandboxBuilder, running::lock};
use crate::{
    Error, PortForward, Result,
    network::{HostPort, Listener},
};

/// The ports of a running sandbox. They outlast its machine, which a reboot or a return to a checkpoint replaces.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// To be opened at the next [`attach`](Links::attach).
    wanted: Mutex<Vec<PortForward>>,
    forwards: Mutex<Vec<Listener>>,
    /// `None` where the machine is yet to listen. Locked for as long as it is being told.
    host_ports: AsyncMutex<BTreeMap<u16, Option<HostPort>>>,
}

impl Links {
    pub(super) fn new(options: &SandboxBuilder) -> Links {
        Links {
            wanted: Mutex::new(options.forwards.clone()),
            forwards: Mutex::default(),
            host_ports: AsyncMutex::new(options.host_ports.iter().map(|&port| (port, None)).collect()),
        }
    }

    /// Those of a twin: the same, but from ports of the host that are free.
    pub(super) async fn twin(&self) -> Links {
        let forwards = lock(&self.forwards).iter().map(|listener| listener.forward().unpicked()).collect();
        let host_ports = self.host_ports.lock().await.keys().map(|&port| (port, None)).collect();
        Links { wanted: Mutex::new(forwards), forwards: Mutex::default(), host_ports: AsyncMutex::new(host_ports) }
    }

    /// Gives a machine that has just been started what it is to have.
    pub(super) async fn attach(running: &Running) -> Result<()> {
        let links = &running.links;
        let wanted = std::mem::take(&mut *lock(&links.wanted));
        for forward in wanted {
            let listener = Listener::open(forward, running.current()).await?;
            lock(&links.forwards).push(listener);
        }
        let mut host_ports = links.host_ports.lock().await;
        if host_ports.is_empty() {
            return Ok(());
        }
        let vm = running.vm();
        for (&port, open) in host_ports.iter_mut() {
            *open = Some(HostPort::open(port, &vm, running.current()).await?);
        }
        name_hosts(running, true).await
    }
}

/// Tells the guest the names that it is to know.
async fn name_hosts(running: &Running, host: bool) -> Result<()> {
    let entries = if host { vec![(HOST_ADDRESS, HOST_NAME.to_owned())] } else { Vec::new() };
    let vm = running.vm();
    match vm.channel().request(&Request::Hosts { entries }, PING_PATIENCE).await {
        Ok(_) => Ok(()),
        Err(error) => Err(vm.explain(error).await),
    }
}

impl SandboxBuilder {
    /// Lets a port of the host lead to one of the guest, in every network mode. Host port 0 picks a free one; see
    /// [`Sandbox::port_forwards`].
    pub fn port_forward(mut self, forward: PortForward) -> SandboxBuilder {
        self.forwards.push(forward);
        self
    }

    /// Lets the guest reach a TCP port of the host's loopback, in every network mode, as [`HOST_NAME`]`:port`. See
    /// [`Sandbox::allow_host_port`].
    ///
    /// [`HOST_NAME`]: crate::HOST_NAME
    pub fn allow_host_port(mut self, port: u16) -> SandboxBuilder {
        self.host_ports.push(port);
        self
    }

    pub(super) fn check_ports(&self) -> Result<()> {
        self.forwards.iter().try_for_each(PortForward::check)?;
        self.host_ports.iter().try_for_each(|&port| check_host_port(port))
    }
}

impl Sandbox {
    /// Lets a port of the host lead to one of the guest, whatever the guest's network mode. Returns the forward with the port that
    /// was picked. It lasts as long as the sandbox runs.
    ///
    /// Connections are carried by tasks of the runtime in which this is called: code that waits for one without `await` needs a
    /// runtime of more than one thread, as that of `#[sandbox_test]` is.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] where the port is taken; [`Error::BadOption`], [`Error::NotRunning`].
    pub async fn forward_port(&self, forward: PortForward) -> Result<PortForward> {
        forward.check()?;
        let running = self.running()?;
        let listener = Listener::open(forward, running.current()).await?;
        let forward = listener.forward();
        lock(&running.links.forwards).push(listener);
        Ok(forward)
    }

    /// Ends a forward, with the connections that it carries. Ending one that there is not does nothing.
    pub fn unforward_port(&self, forward: PortForward) {
        if let Ok(running) = self.running() {
            lock(&running.links.forwards).retain(|listener| listener.forward() != forward);
        }
    }

    /// The forwards that are at work, with the ports that were picked, in the order in which they were asked for.
    pub fn port_forwards(&self) -> Vec<PortForward> {
        let Ok(running) = self.running() else { return Vec::new() };
        let forwards = lock(&running.links.forwards);
        forwards.iter().map(Listener::forward).collect()
    }

    /// Lets the guest reach a TCP port of the host's loopback, whatever its network mode.
    ///
    /// In the guest the port is at [`HOST_NAME`], an address of its own on the guest's loopback, so that a service of the guest on
    /// 127.0.0.1 may have the same port. One that listens at all addresses may not.
    ///
    /// # Errors
    ///
    /// [`Error::Guest`] where something in the guest has the port at all addresses; [`Error::BadOption`], [`Error::NotRunning`].
    ///
    /// [`HOST_NAME`]: crate::HOST_NAME
    pub async fn allow_host_port(&self, port: u16) -> Result<()> {
        check_host_port(port)?;
        let running = self.running()?;
        let mut host_ports = running.links.host_ports.lock().await;
        if host_ports.contains_key(&port) {
            return Ok(());
        }
        let open = HostPort::open(port, &running.ready().await?, running.current()).await?;
        name_hosts(&running, true).await?;
        host_ports.insert(port, Some(open));
        Ok(())
    }

    /// Takes a port of the host from the guest again, with its connections.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]
    pub async fn disallow_host_port(&self, port: u16) -> Result<()> {
        self.running()?.links.host_ports.lock().await.remove(&port);
        Ok(())
    }
}

impl Sandbox {
    /// What the guest reaches of this host though it should not, for people. `None` where it does not, or unless it runs.
    ///
    /// With [`NetworkMode::Full`](crate::NetworkMode::Full) and without passt that is every service on the host's loopback, of which
    /// a warning is given once in a process, too.
    pub fn network_warning(&self) -> Option<String> {
        self.running().ok()?.vm().network_warning().map(str::to_owned)
    }
}

fn check_host_port(port: u16) -> Result<()> {
    if port == 0 {
        return Err(Error::BadOption { option: "allow_host_port", why: "the port must be 1 to 65535".into() });
    }
    Ok(())
}
