//! Waiting in the guest for something to be so: here a look costs next to nothing, and no process.

use std::{
    ffi::OsStr,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use quicksand_protocol::message::{Await, Condition, Done, Failure};

use crate::operation::Operation;

/// How long to rest between two looks.
const STEP: Duration = Duration::from_millis(20);
/// How long one of the guest's own addresses may take to take or refuse a connection. A full queue of a busy server does neither.
const CONNECT: Duration = Duration::from_secs(1);

/// Looks until it is so, the time is over, or nobody wants to know any more.
pub(crate) fn wait(wanted: &Await, operation: &Arc<Operation>) -> Result<Done, Failure> {
    let deadline = Instant::now() + Duration::from_millis(wanted.within_ms);
    loop {
        let seen = match look(&wanted.condition) {
            Ok(()) => return Ok(Done::Nothing),
            Err(error) => error.to_string(),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !operation.rest(STEP.min(left)) {
            return Ok(Done::NotYet { seen });
        }
    }
}

fn look(condition: &Condition) -> io::Result<()> {
    match condition {
        Condition::File(path) => fs::symlink_metadata(Path::new(OsStr::from_bytes(path))).map(drop),
        Condition::Port(port) => connect(*port),
    }
}

/// Connects to the port on one of the guest's own addresses: a server need not listen on all of them.
fn connect(port: u16) -> io::Result<()> {
    let mut refusal = None;
    for address in own_addresses() {
        match TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT) {
            Ok(_) => return Ok(()),
            // That of the first address says most: others may not even be reachable.
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

/// The loopback addresses, and those of the interfaces.
fn own_addresses() -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        // A link-local address says nothing without its interface, and no server is bound to one alone.
        let v6 = address.as_sockaddr_in6().map(|address| address.ip()).filter(|ip| !ip.is_unicast_link_local());
        let address = v4.or(v6.map(IpAddr::V6));
        addresses.extend(address.filter(|address| !addresses.contains(address)));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_port_answers_once_somebody_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(look(&Condition::Port(port)).is_ok());
        drop(listener);
        assert_eq!(look(&Condition::Port(port)).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_file_is_there_or_not() {
        assert!(look(&Condition::File(b"/proc/self/exe".to_vec())).is_ok());
        assert_eq!(look(&Condition::File(b"/nowhere".to_vec())).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
