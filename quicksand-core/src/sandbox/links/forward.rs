//! From the host to the guest: a port of the host's loopback that leads to a server in the guest.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{Shutdown, shutdown};
use quicksand_protocol::{message::Request, network::Connect};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::sleep};

use super::{Current, MOST_CONNECTIONS, Task, carry};
use crate::error::{Error, Result};

/// How long the server in the guest may take to accept a connection. Only one that is overrun, or behind a filter of the
/// guest's own, does not accept or refuse at once.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// After an error of the listener's, as when the process has no descriptor left.
const REST: Duration = Duration::from_millis(50);

/// A TCP port of the host that leads to a port of the guest.
///
/// The host listens on 127.0.0.1 alone. In the guest the server is looked for on its loopback, then at each of its own addresses.
/// Where it is not there, or resets, the connection on the host is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortForward {
    host: u16,
    guest: u16,
    guest_address: Option<Ipv4Addr>,
}

impl PortForward {
    /// From port `host` of the host, 0 for a free one, to port `guest` of the guest.
    #[must_use = "a forward does nothing by itself: give it to `SandboxBuilder::port_forward(..)` or `Sandbox::forward_port(..)`"]
    pub const fn new(host: u16, guest: u16) -> PortForward {
        PortForward { host, guest, guest_address: None }
    }

    /// To this address in the guest and no other.
    #[must_use = "a forward does nothing by itself: give it to `SandboxBuilder::port_forward(..)` or `Sandbox::forward_port(..)`"]
    pub const fn guest_address(mut self, address: Ipv4Addr) -> PortForward {
        self.guest_address = Some(address);
        self
    }

    /// The port of the host; of one that is in use, never 0.
    pub const fn host(&self) -> u16 {
        self.host
    }

    /// The port of the guest.
    pub const fn guest(&self) -> u16 {
        self.guest
    }

    /// Where to connect to on the host.
    pub const fn host_address(&self) -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), self.host)
    }

    /// The same from a port that is picked anew.
    pub(crate) fn unpicked(self) -> PortForward {
        PortForward { host: 0, ..self }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.guest == 0 {
            return Err(Error::BadOption { option: "port_forward", why: "the guest's port must be 1 to 65535".into() });
        }
        Ok(())
    }

    fn request(&self) -> Request {
        Request::Connect(Connect {
            address: self.guest_address.map(|address| address.octets()),
            port: self.guest,
            patience_ms: CONNECT_PATIENCE.as_millis() as u32,
        })
    }
}

/// A forward at work. Dropping it ends it, with its connections.
#[derive(Debug)]
#[must_use = "dropping a listener closes its port: keep it for as long as the port is forwarded"]
pub(crate) struct Listener {
    forward: PortForward,
    /// The task's own ends a moment after it is dropped.
    socket: Arc<TcpListener>,
    _task: Task,
}

impl Listener {
    /// Listens. The machine is asked for anew with each connection: it may have been restarted.
    pub(crate) async fn open(forward: PortForward, current: Current) -> Result<Listener> {
        let error = |source| Error::Listen { port: forward.host, source };
        let listener = TcpListener::bind(forward.host_address()).await.map_err(error)?;
        let forward = PortForward { host: listener.local_addr().map_err(error)?.port(), ..forward };
        let socket = Arc::new(listener);
        let task = Task::spawn(serve(Arc::clone(&socket), forward, current));
        Ok(Listener { forward, socket, _task: task })
    }

    /// The forward, with the port that was picked.
    pub(crate) fn forward(&self) -> PortForward {
        self.forward
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Connections are refused from now on.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
    }
}

async fn serve(listener: Arc<TcpListener>, forward: PortForward, current: Current) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    // Ends all of them with this task.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                rest(&error).await;
                continue;
            }
        };
        let Some(vm) = current.vm() else { return };
        match vm.channel().start(&forward.request()) {
            Ok(operation) => {
                connections.spawn(async move {
                    carry::carry(connection, operation).await;
                    drop(permit);
                });
            }
            Err(_) => carry::reset_on_close(&connection),
        }
    }
}

async fn rest(error: &io::Error) {
    tracing::warn!(target: "quicksand::network", %error, "failed to accept a connection");
    sleep(REST).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_leads_from_loopback_alone() {
        let forward = PortForward::new(8080, 80).guest_address(Ipv4Addr::new(10, 0, 2, 15));
        assert!(forward.host_address().ip().is_loopback());
        assert_eq!((forward.host(), forward.guest()), (8080, 80));
        assert!(forward.check().is_ok());
        assert!(PortForward::new(1, 0).check().is_err());
    }
}
