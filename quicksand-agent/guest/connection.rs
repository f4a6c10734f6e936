//! TCP connections between the guest and the host: to servers in the guest, and to ports of the host that the guest was given.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use quicksand_protocol::{
    message::{Done, Failure, stream},
    network::{Connect, HOST_ADDRESS},
};

use crate::{operation::Operation, serve::STACK};

/// Most connections that wait for the host to take them. The others wait in the kernel.
const MOST_WAITING: usize = 64;
/// How often whoever waits in the kernel, or for room, asks whether it is still wanted.
const STEP: Duration = Duration::from_millis(500);
/// How long the listener of an earlier session may take to go.
const EARLIER_LISTENER: Duration = Duration::from_secs(2);

/// Connections that wait for the host to take them, by number.
static WAITING: Mutex<BTreeMap<u32, Waiting>> = Mutex::new(BTreeMap::new());
static TAKEN: Condvar = Condvar::new();

/// A connection that waits, and who accepted it.
struct Waiting {
    connection: TcpStream,
    listener: Arc<Operation>,
}

/// Connects to a server in the guest and carries the connection.
pub(crate) fn connect(request: &Connect, operation: &Arc<Operation>) -> Result<Done, Failure> {
    let patience = Duration::from_millis(u64::from(request.patience_ms.max(1)));
    let connected = match request.address {
        Some(address) => TcpStream::connect_timeout(&SocketAddr::new(address.into(), request.port), patience),
        None => to_own_port(request.port, patience),
    };
    let connection = connected.map_err(|e| failure(&format!("connect to port {} of the guest", request.port), &e))?;
    carry(connection, operation)
}

/// Connects to the port on one of the guest's own addresses: a server need not listen on all of them.
pub(crate) fn to_own_port(port: u16, patience: Duration) -> io::Result<TcpStream> {
    let mut refusal = None;
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    // The others are asked for only where they are needed.
    let addresses = loopback.into_iter().chain(std::iter::once_with(card_addresses).flatten());
    for address in addresses {
        match TcpStream::connect_timeout(&SocketAddr::new(address, port), patience) {
            Ok(connection) => return Ok(connection),
            // That of the first address says most: others may not even be reachable.
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into()))
}

/// Listens for connections to a port of the host until the operation is given up.
pub(crate) fn listen(port: u16, operation: &Arc<Operation>) -> Result<Done, Failure> {
    let what = || format!("listen at {}:{port} in the guest", Ipv4Addr::from(HOST_ADDRESS));
    let listener = bind(port).map_err(|e| failure(&what(), &e))?;
    let handle = listener.try_clone().map_err(|e| failure(&what(), &e))?;
    operation.set_socket(handle.into());
    let ended = tell_arrivals(&listener, operation);
    operation.forget_socket();
    // Those that nobody took are reset.
    lock(&WAITING).retain(|_, waiting| {
        let ours = Arc::ptr_eq(&waiting.listener, operation);
        if ours {
            reset_on_close(&waiting.connection);
        }
        !ours
    });
    TAKEN.notify_all();
    ended.map(|()| Done::Nothing).map_err(|e| failure(&what(), &e))
}

/// Carries a connection that [`listen`] told of.
pub(crate) fn accept(number: u32, operation: &Arc<Operation>) -> Result<Done, Failure> {
    let waiting = lock(&WAITING).remove(&number);
    TAKEN.notify_all();
    let Some(waiting) = waiting else {
        return Err(Failure { errno: 0, message: format!("take connection {number}: there is none of that number") });
    };
    carry(waiting.connection, operation)
}

fn bind(port: u16) -> io::Result<TcpListener> {
    let deadline = Instant::now() + EARLIER_LISTENER;
    loop {
        match TcpListener::bind((Ipv4Addr::from(HOST_ADDRESS), port)) {
            // Before a freeze the same port was listened at, by a thread that has yet to hear that its session is over.
            Err(e) if e.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            bound => return bound,
        }
    }
}

/// Tells the host that we listen, and then of each connection.
fn tell_arrivals(listener: &TcpListener, operation: &Arc<Operation>) -> io::Result<()> {
    let mut output = operation.output(stream::STDOUT);
    output.write_all(&0u32.to_le_bytes())?;
    loop {
        let connection = match listener.accept() {
            Ok((connection, _)) => connection,
            Err(_) if !operation.is_wanted() => return Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
            Err(e) => return Err(e),
        };
        let Some(number) = keep_waiting(connection, operation) else { return Ok(()) };
        output.write_all(&number.to_le_bytes())?;
    }
}

/// Puts a connection among those that wait, once there is room. Returns its number, or `None` once nobody wants it.
fn keep_waiting(connection: TcpStream, listener: &Arc<Operation>) -> Option<u32> {
    let mut all = lock(&WAITING);
    while all.len() >= MOST_WAITING {
        if !listener.is_wanted() {
            return None;
        }
        all = TAKEN.wait_timeout(all, STEP).unwrap_or_else(PoisonError::into_inner).0;
    }
    // Not a number that waits, and not 0.
    let mut number = all.last_key_value().map_or(0, |(last, _)| *last);
    loop {
        number = number.wrapping_add(1).max(1);
        if !all.contains_key(&number) {
            break;
        }
    }
    all.insert(number, Waiting { connection, listener: Arc::clone(listener) });
    Some(number)
}

/// Carries the bytes of a connection both ways until both ways have ended. An end of one way alone is passed on.
fn carry(connection: TcpStream, operation: &Arc<Operation>) -> Result<Done, Failure> {
    let work = || {
        connection.set_nodelay(true)?;
        connection.set_write_timeout(Some(STEP))?;
        operation.set_socket(connection.try_clone()?.into());
        let (inward, inner) = (connection.try_clone()?, Arc::clone(operation));
        let feeder = thread::Builder::new().stack_size(STACK).spawn(move || {
            let fed = feed(&inner, &inward);
            // Where this way failed, the other ends as well.
            let how = if fed.is_ok() { Shutdown::Write } else { Shutdown::Read };
            let _ = inward.shutdown(how);
            fed
        })?;
        let sent = send(&connection, operation);
        if sent.is_err() {
            operation.close_input();
        }
        let fed = feeder.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
        sent.and(fed)
    };
    let carried = work();
    operation.forget_socket();
    if carried.is_err() || !operation.is_wanted() {
        reset_on_close(&connection);
    }
    carried.map(|()| Done::Nothing).map_err(|e: io::Error| failure("carry a connection", &e))
}

/// From the host to the guest's end.
fn feed(operation: &Arc<Operation>, mut connection: &TcpStream) -> io::Result<()> {
    let mut input = operation.input();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut bytes = match input.read(&mut buffer)? {
            0 => return Ok(()),
            len => &buffer[..len],
        };
        while !bytes.is_empty() {
            match connection.write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // It takes nothing for now.
                Err(e) if e.kind() == ErrorKind::WouldBlock && operation.is_wanted() => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// From the guest's end to the host.
fn send(mut connection: &TcpStream, operation: &Arc<Operation>) -> io::Result<()> {
    let mut output = operation.output(stream::STDOUT);
    let mut buffer = vec![0; 64 * 1024];
    let mut work = || loop {
        match connection.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => output.write_all(&buffer[..len])?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    };
    let sent = work();
    if sent.is_err() {
        output.abandon();
    }
    sent
}

/// The addresses of the guest's cards.
fn card_addresses() -> impl Iterator<Item = IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        // A link-local address says nothing without its interface, and no server is bound to one alone.
        let v6 = address.as_sockaddr_in6().map(|address| address.ip()).filter(|ip| !ip.is_unicast_link_local());
        v4.or(v6.map(IpAddr::V6)).filter(|address| !address.is_loopback())
    })
}

/// Has a connection be reset rather than ended when it is closed: its other end is not to take what came for all there is.
fn reset_on_close(connection: &TcpStream) {
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = nix::sys::socket::setsockopt(connection, nix::sys::socket::sockopt::Linger, &at_once);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failure(what: &str, error: &io::Error) -> Failure {
    Failure { errno: error.raw_os_error().unwrap_or(0), message: format!("{what}: {error}") }
}
