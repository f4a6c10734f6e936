//! Sockets at which viewers of VNC see a guest's display. They are ours, and outlive the machines that serve them in turn.

use std::{
    fs::{self, Permissions},
    io,
    net::{Ipv4Addr, TcpListener},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::PathBuf,
};

use nix::sys::socket::{Shutdown, shutdown};
use serde_json::json;

use crate::{
    error::{Error, Result},
    vm::Vm,
};

/// Who may look at a display, and use its keyboard and pointer. No password is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Vnc {
    /// Whoever has an account on this host: a free port of 127.0.0.1, which [`vnc_port`](crate::Sandbox::vnc_port) tells.
    Tcp,
    /// Our own user, and whoever that lets into the directory: a Unix socket of this path, at which nothing may be yet. It goes with
    /// the sandbox.
    Unix(PathBuf),
}

/// A socket at which viewers are served.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    pub(crate) fn open(vnc: &Vnc) -> Result<Listener> {
        match vnc {
            Vnc::Tcp => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
                let path = PathBuf::from("127.0.0.1");
                Ok(Listener::Tcp(listener.map_err(Error::io("find a free port of", &path))?))
            }
            Vnc::Unix(path) => {
                let made = || {
                    let listener = Listener::Unix(UnixListener::bind(path)?, path.clone());
                    fs::set_permissions(path, Permissions::from_mode(0o600))?;
                    Ok(listener)
                };
                made().map_err(|source: io::Error| Error::Io { what: "make the socket", path: path.clone(), source })
            }
        }
    }

    /// Has a machine serve it.
    pub(crate) async fn give_to(&self, vm: &Vm) -> Result<()> {
        const NAME: &str = "vnc";
        vm.qmp().give_fd(NAME, self.fd()).await?;
        let address = json!({ "type": "fd", "str": NAME });
        vm.qmp().execute("display-update", json!({ "type": "vnc", "addresses": [address] })).await?;
        Ok(())
    }

    /// Its port, where it has one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Listener::Unix(..) => None,
        }
    }

    /// Has it greet nobody any more, at once: a machine that is about to end has it open for a moment longer.
    pub(crate) fn close(&self) {
        // Where it is closed by now, nothing is left to do.
        let _ = shutdown(self.fd().as_raw_fd(), Shutdown::Both);
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            // Where somebody else has removed it, it is gone as well.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_socket_is_ours_alone_and_goes_with_us() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vnc");
        let listener = Listener::open(&Vnc::Unix(path.clone())).unwrap();
        assert_eq!((listener.port(), fs::metadata(&path).unwrap().permissions().mode() & 0o777), (None, 0o600));
        assert!(Listener::open(&Vnc::Unix(path.clone())).is_err(), "it is in use");
        drop(listener);
        assert!(!path.exists());
        fs::write(&path, "somebody's").unwrap();
        assert!(Listener::open(&Vnc::Unix(path.clone())).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
    }

    #[test]
    fn a_port_is_one_of_loopback() {
        let listener = Listener::open(&Vnc::Tcp).unwrap();
        let Listener::Tcp(socket) = &listener else { panic!("{listener:?}") };
        assert!(socket.local_addr().unwrap().ip().is_loopback());
        assert_ne!(listener.port(), Some(0));
    }

    #[test]
    fn a_closed_one_greets_nobody_although_a_machine_has_it_open() {
        let listener = Listener::open(&Vnc::Tcp).unwrap();
        let machines = listener.fd().try_clone_to_owned().unwrap();
        let address = (Ipv4Addr::LOCALHOST, listener.port().unwrap());
        assert!(TcpStream::connect(address).is_ok());
        listener.close();
        assert!(TcpStream::connect(address).is_err());
        drop(machines);
    }
}
