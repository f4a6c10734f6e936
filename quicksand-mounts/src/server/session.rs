//! [`Session`]: one message in, one reply out.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
};

use fuse_backend_rs::{
    abi::fuse_abi::Opcode,
    api::server::Server,
    transport::{FuseBuf, FuseDevWriter, Reader},
};
use nix::libc;

use super::{Options, guard::Guard, known::Limits};

/// The shortest message: a header.
pub const MIN_MESSAGE: usize = 40;
/// The longest message or reply: 1 MiB of data, and what goes before it.
pub const MAX_MESSAGE: usize = (1 << 20) + 4096;
/// Length of the header of a reply.
const REPLY_HEADER: usize = 16;

/// What is served, and changes nothing. All else is refused: a guest's kernel takes ENOSYS for "this file system has no such thing",
/// and does not ask again.
const READING: [Opcode; 17] = [
    Opcode::Lookup,
    Opcode::Forget,
    Opcode::Getattr,
    Opcode::Readlink,
    Opcode::Open,
    Opcode::Read,
    Opcode::Statfs,
    Opcode::Release,
    Opcode::Fsync,
    Opcode::Opendir,
    Opcode::Readdir,
    Opcode::Releasedir,
    Opcode::Fsyncdir,
    Opcode::Access,
    Opcode::BatchForget,
    Opcode::Readdirplus,
    Opcode::Lseek,
];
/// What is served where the mount is not read-only.
const WRITING: [Opcode; 12] = [
    Opcode::Setattr,
    Opcode::Symlink,
    Opcode::Mknod,
    Opcode::Mkdir,
    Opcode::Unlink,
    Opcode::Rmdir,
    Opcode::Rename,
    Opcode::Link,
    Opcode::Write,
    Opcode::Create,
    Opcode::Fallocate,
    Opcode::Rename2,
];

/// A guest's session with one directory.
pub struct Session {
    guard: Arc<Guard>,
    server: Server<Arc<Guard>>,
    read_only: bool,
    stage: Stage,
    reply: Vec<u8>,
    /// Where the library writes what it takes for `/dev/fuse`.
    nowhere: File,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for the guest's first word.
    New,
    Open,
    Over,
}

/// What is at the start of each message, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Header {
    opcode: u32,
    unique: u64,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Serve,
    /// With this error number.
    Refuse(i32),
    /// Without an answer.
    Ignore,
    /// It is the last.
    End,
}

impl Session {
    /// A session that serves `directory`.
    ///
    /// # Errors
    ///
    /// Where `/proc` or `/dev/null` can't be opened.
    pub fn new(directory: &impl AsFd, options: Options, limits: Limits) -> io::Result<Session> {
        let guard = Arc::new(Guard::new(directory.as_fd(), options, limits)?);
        Ok(Session {
            server: Server::new(Arc::clone(&guard)),
            guard,
            read_only: options.read_only,
            stage: Stage::New,
            reply: vec![0; MAX_MESSAGE + REPLY_HEADER],
            nowhere: File::options().write(true).open("/dev/null")?,
        })
    }

    /// Whether the guest has said that it has done.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Carries out a message and returns the bytes to be sent: its reply, or none where it has no reply. After the reply may follow
    /// a message that answers none (its `unique` is 0): it asks the guest to forget what it merely remembers.
    ///
    /// The message is as long as its header says; one that is not gets no answer. All else that can be wrong with it is answered.
    pub fn answer(&mut self, message: &mut [u8]) -> &[u8] {
        let Some(header) = Header::of(message) else { return &[] };
        let len = match self.verdict(header.opcode) {
            Verdict::Serve => self.serve(message, header),
            Verdict::Refuse(errno) => self.put_header(0, header.unique, errno),
            Verdict::Ignore => 0,
            Verdict::End => {
                self.stage = Stage::Over;
                self.put_header(0, header.unique, 0)
            }
        };
        let more = if self.guard.wants_room() { self.put_header(len, 0, 0) } else { 0 };
        &self.reply[..len + more]
    }

    fn verdict(&mut self, opcode: u32) -> Verdict {
        let is = |known: Opcode| opcode == known as u32;
        match self.stage {
            Stage::New if is(Opcode::Init) => {
                self.stage = Stage::Open;
                return Verdict::Serve;
            }
            Stage::Open => {}
            // A second first word would have the library open the directory anew, whatever is there by now.
            _ => return Verdict::Refuse(libc::EIO),
        }
        if READING.iter().any(|&known| is(known)) {
            Verdict::Serve
        } else if WRITING.iter().any(|&known| is(known)) {
            if self.read_only { Verdict::Refuse(libc::EROFS) } else { Verdict::Serve }
        } else if is(Opcode::Destroy) {
            Verdict::End
        } else if is(Opcode::NotifyReply) {
            Verdict::Ignore
        } else if is(Opcode::Ioctl) {
            Verdict::Refuse(libc::ENOTTY)
        } else if is(Opcode::Init) {
            Verdict::Refuse(libc::EIO)
        } else {
            Verdict::Refuse(libc::ENOSYS)
        }
    }

    /// Has the library carry it out, and returns the length of its reply.
    fn serve(&mut self, message: &mut [u8], header: Header) -> usize {
        // What the library leaves of an earlier reply must not be taken for one.
        self.reply[..4].fill(0);
        let answered = self.call(message);
        let len = u32::from_ne_bytes([self.reply[0], self.reply[1], self.reply[2], self.reply[3]]) as usize;
        if (REPLY_HEADER..=MAX_MESSAGE).contains(&len) {
            return len;
        }
        let forgets = [Opcode::Forget as u32, Opcode::BatchForget as u32].contains(&header.opcode);
        match answered {
            _ if forgets => 0,
            // Without an answer the guest's task would wait for ever.
            Ok(_) | Err(_) => self.put_header(0, header.unique, libc::EIO),
        }
    }

    fn call(&mut self, message: &mut [u8]) -> Result<usize, fuse_backend_rs::Error> {
        let invalid = |e| fuse_backend_rs::Error::InvalidMessage(io::Error::other(e));
        let reader = Reader::<()>::from_fuse_buffer(FuseBuf::new(message)).map_err(invalid)?;
        let mut writer =
            FuseDevWriter::<()>::new(self.nowhere.as_raw_fd(), &mut self.reply[..MAX_MESSAGE]).map_err(invalid)?;
        // A writer that was split keeps what it is given in its buffer.
        let _rest = writer.split_at(MAX_MESSAGE).map_err(invalid)?;
        self.server.handle_message(reader, writer.into(), None, None)
    }

    /// Puts a reply that is only a header at `at`, and returns its length.
    fn put_header(&mut self, at: usize, unique: u64, errno: i32) -> usize {
        let reply = &mut self.reply[at..at + REPLY_HEADER];
        reply[..4].copy_from_slice(&(REPLY_HEADER as u32).to_ne_bytes());
        reply[4..8].copy_from_slice(&(-errno).to_ne_bytes());
        reply[8..].copy_from_slice(&unique.to_ne_bytes());
        REPLY_HEADER
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("read_only", &self.read_only)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Header {
    fn of(message: &[u8]) -> Option<Header> {
        let word = |at: usize| Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?));
        let unique = u64::from_ne_bytes(message.get(8..16)?.try_into().ok()?);
        let whole = (MIN_MESSAGE..=MAX_MESSAGE).contains(&message.len()) && word(0)? as usize == message.len();
        whole.then_some(Header { opcode: word(4)?, unique })
    }
}
