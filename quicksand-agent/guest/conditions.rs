//! Waiting in the guest for something to be so: here a look costs next to nothing, and no process.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use quicksand_protocol::message::{Await, Condition, Done, Failure};

use crate::{facts::ports, operation::Operation};

/// How long to rest between two looks.
const STEP: Duration = Duration::from_millis(20);

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
        Condition::Port(port) => match ports::is_listening(*port, Path::new("/"))? {
            true => Ok(()),
            false => Err(io::Error::other(format!("nothing listens on TCP port {port}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn a_port_is_seen_once_somebody_listens_and_is_not_connected_to() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(look(&Condition::Port(port)).is_ok());
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        let said = look(&Condition::Port(port)).unwrap_err().to_string();
        assert_eq!(said, format!("nothing listens on TCP port {port}"));
    }

    #[test]
    fn a_file_is_there_or_not() {
        assert!(look(&Condition::File(b"/proc/self/exe".to_vec())).is_ok());
        assert_eq!(look(&Condition::File(b"/nowhere".to_vec())).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
