//! The server of one mount: FUSE requests of a guest, carried out in one directory of the host.
//!
//! The guest is hostile: it has the socket in its hands and can send any bytes. A request goes through
//!
//! 1. [`run`]: lengths, before anything is read or allocated for it;
//! 2. [`Session`]: which operations there are, and which of them a read-only mount has;
//! 3. `Guard`: the arguments of each (names, flags, modes, users, how much a guest may hold);
//! 4. `PassthroughFs` of [`fuse_backend_rs`], which carries it out.
//!
//! Beneath all of them the kernel keeps the process to the directory (`confine`).

mod confine;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod hard_link;
mod known;
mod owners;
mod session;

use std::{
    io::{self, BufReader, Read, Write},
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::sys::prctl;

pub use known::Limits;
pub use owners::Owner;
pub use session::{MAX_MESSAGE, MIN_MESSAGE, Session};

/// How a directory is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Nothing in it may change.
    pub read_only: bool,
    /// Nobody else changes it meanwhile, so the guest may remember what it has seen.
    pub cached: bool,
    /// Whose files are to the guest that it has not made itself: whoever's asks, by default.
    pub owner: Option<Owner>,
}

/// Runs the program with the arguments that follow its name.
///
/// # Errors
///
/// In words that finish "failed to …".
pub fn run(arguments: impl IntoIterator<Item = String>) -> Result<(), String> {
    let mut arguments = arguments.into_iter();
    let socket = UnixStream::from(inherited(arguments.next(), "the socket")?);
    let directory = inherited(arguments.next(), "the directory")?;
    let mut options = Options::default();
    for word in arguments {
        match &*word {
            "read-only" => options.read_only = true,
            "cached" => options.cached = true,
            word => {
                let owner = word.strip_prefix("owner=").and_then(|numbers| numbers.split_once(':'));
                let owner = owner.and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
                let wrong = || format!("read the argument {word:?}: it is read-only, cached or owner=USER:GROUP");
                let (user, group) = owner.ok_or_else(wrong)?;
                options.owner = Some(Owner { user, group });
            }
        }
    }
    let _ = prctl::set_name(c"quicksand-mount");
    let limits = confine::prepare().map_err(|e| format!("prepare the process: {e}"))?;
    let mut session = Session::new(&directory, options, limits).map_err(|e| format!("open the directory: {e}"))?;
    confine::confine(&directory, options.read_only).map_err(|e| format!("confine the process: {e}"))?;
    serve(socket, &mut session).map_err(|e| format!("serve the guest: {e}"))
}

/// Takes over a descriptor that the parent left open.
#[allow(unsafe_code)]
fn inherited(number: Option<String>, what: &str) -> Result<OwnedFd, String> {
    let number = number.ok_or_else(|| format!("find {what} among the arguments"))?;
    let fd: RawFd = number.parse().map_err(|_| format!("read the number of {what}: {number:?}"))?;
    if fd < 3 || nix::fcntl::fcntl(borrow(fd), nix::fcntl::FcntlArg::F_GETFD).is_err() {
        return Err(format!("use descriptor {fd} as {what}: it is not open"));
    }
    // SAFETY: it is open, as was just asked, and nothing else in this process knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[allow(unsafe_code)]
fn borrow(fd: RawFd) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: used for one system call, which refuses a number that is not open.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
}

/// Answers requests until the guest's end is closed or the guest says that it has done.
///
/// # Errors
///
/// `InvalidData` where the guest sends a length that no message has: where the next one begins is not known then.
pub fn serve(socket: UnixStream, session: &mut Session) -> io::Result<()> {
    let requests = BufReader::with_capacity(64 * 1024, socket.try_clone()?);
    exchange(requests, socket, session)
}

fn exchange(mut requests: impl Read, mut replies: impl Write, session: &mut Session) -> io::Result<()> {
    let mut message = Vec::new();
    while read_message(&mut requests, &mut message)? {
        let gone = |e: &io::Error| matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        match replies.write_all(session.answer(&mut message)) {
            Err(e) if gone(&e) => break,
            written => written?,
        }
        if session.is_over() {
            break;
        }
    }
    Ok(())
}

/// Reads one whole message. `false` at the end of the stream.
fn read_message(from: &mut impl Read, message: &mut Vec<u8>) -> io::Result<bool> {
    let mut len = [0; 4];
    match from.read_exact(&mut len) {
        Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            return Ok(false);
        }
        read => read?,
    }
    let all = u32::from_ne_bytes(len) as usize;
    if !(MIN_MESSAGE..=MAX_MESSAGE).contains(&all) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {all} bytes")));
    }
    message.resize(all, 0);
    message[..4].copy_from_slice(&len);
    match from.read_exact(&mut message[4..]) {
        Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => Ok(false),
        read => read.map(|()| true),
    }
}
