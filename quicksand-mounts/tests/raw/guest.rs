//! A guest that has the socket in its hands: it writes messages byte by byte.

use std::{fs::File, path::Path};

use nix::{errno::Errno, libc};
use quicksand_mounts::server::{Limits, Options, Session};

pub(crate) const LOOKUP: u32 = 1;
pub(crate) const FORGET: u32 = 2;
pub(crate) const GETATTR: u32 = 3;
pub(crate) const SETATTR: u32 = 4;
pub(crate) const READLINK: u32 = 5;
pub(crate) const SYMLINK: u32 = 6;
pub(crate) const MKNOD: u32 = 8;
pub(crate) const MKDIR: u32 = 9;
pub(crate) const UNLINK: u32 = 10;
pub(crate) const RMDIR: u32 = 11;
pub(crate) const RENAME: u32 = 12;
pub(crate) const LINK: u32 = 13;
pub(crate) const OPEN: u32 = 14;
pub(crate) const READ: u32 = 15;
pub(crate) const WRITE: u32 = 16;
pub(crate) const STATFS: u32 = 17;
pub(crate) const RELEASE: u32 = 18;
pub(crate) const SETXATTR: u32 = 21;
pub(crate) const GETXATTR: u32 = 22;
pub(crate) const FLUSH: u32 = 25;
pub(crate) const INIT: u32 = 26;
pub(crate) const OPENDIR: u32 = 27;
pub(crate) const READDIR: u32 = 28;
pub(crate) const ACCESS: u32 = 34;
pub(crate) const CREATE: u32 = 35;
pub(crate) const INTERRUPT: u32 = 36;
pub(crate) const DESTROY: u32 = 38;
pub(crate) const IOCTL: u32 = 39;
pub(crate) const NOTIFY_REPLY: u32 = 41;
pub(crate) const BATCH_FORGET: u32 = 42;
pub(crate) const FALLOCATE: u32 = 43;
pub(crate) const READDIRPLUS: u32 = 44;
pub(crate) const RENAME2: u32 = 45;

pub(crate) const ROOT: u64 = 1;

/// What the server is asked to do, and what it answers.
pub(crate) type Answer = Result<Vec<u8>, Errno>;

/// Limits that no test reaches by accident.
pub(crate) const ROOMY: Limits = Limits { files: 1000, handles: 100 };

pub(crate) struct Guest {
    pub(crate) session: Session,
    unique: u64,
    /// How often the server asked it to forget.
    pub(crate) asked: usize,
}

impl Guest {
    /// A guest that has said its first word.
    pub(crate) fn new(directory: &Path, options: Options, limits: Limits) -> Guest {
        let mut guest = Guest::silent(directory, options, limits);
        guest.init().unwrap();
        guest
    }

    pub(crate) fn of(directory: &Path) -> Guest {
        Guest::new(directory, Options::default(), ROOMY)
    }

    pub(crate) fn reader(directory: &Path) -> Guest {
        Guest::new(directory, Options { read_only: true, ..Options::default() }, ROOMY)
    }

    pub(crate) fn silent(directory: &Path, options: Options, limits: Limits) -> Guest {
        let session = Session::new(&File::open(directory).unwrap(), options, limits).unwrap();
        Guest { session, unique: 0, asked: 0 }
    }

    pub(crate) fn init(&mut self) -> Answer {
        // Version 7.31, 128 KiB of read-ahead, and all that a guest's kernel can offer.
        let body = [7u32, 31, 128 << 10, !(1 << 30)].map(u32::to_ne_bytes).concat();
        self.call(INIT, 0, &[&body])
    }

    pub(crate) fn call(&mut self, opcode: u32, node: u64, body: &[&[u8]]) -> Answer {
        self.send(opcode, node, body).expect("every request but a few is answered")
    }

    /// Sends a request. `None` where it is not answered.
    pub(crate) fn send(&mut self, opcode: u32, node: u64, body: &[&[u8]]) -> Option<Answer> {
        self.unique += 2;
        let mut message = message(opcode, self.unique, node, body);
        let mut reply = self.session.answer(&mut message).to_vec();
        let first = reply.first_chunk().map_or(0, |len| u32::from_ne_bytes(*len) as usize);
        if reply.len() > first {
            // A message that answers none.
            assert_eq!(reply.split_off(first), [[16u32, 0].map(u32::to_ne_bytes).concat(), vec![0; 8]].concat());
            self.asked += 1;
        }
        if reply.is_empty() {
            return None;
        }
        let word = |at: usize| i32::from_ne_bytes(reply[at..at + 4].try_into().unwrap());
        assert_eq!(word(0) as usize, reply.len());
        assert_eq!(reply[8..16], self.unique.to_ne_bytes());
        match -word(4) {
            0 => Some(Ok(reply.split_off(16))),
            errno => {
                assert_eq!(reply.len(), 16);
                assert!((1..4096).contains(&errno), "{errno}");
                Some(Err(Errno::from_raw(errno)))
            }
        }
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &str) -> Result<u64, Errno> {
        self.call(LOOKUP, parent, &[name.as_bytes(), b"\0"]).map(|entry| node(&entry))
    }

    pub(crate) fn open(&mut self, file: u64, flags: i32) -> Result<u64, Errno> {
        self.call(OPEN, file, &[&flags.to_ne_bytes(), &[0; 4]]).map(|opened| u64_at(&opened, 0))
    }

    pub(crate) fn opendir(&mut self, file: u64, flags: i32) -> Result<u64, Errno> {
        self.call(OPENDIR, file, &[&flags.to_ne_bytes(), &[0; 4]]).map(|opened| u64_at(&opened, 0))
    }

    /// Creates a file. Returns the entry with the handle behind it.
    pub(crate) fn create(&mut self, parent: u64, name: &str, flags: i32, mode: u32) -> Answer {
        let head = [flags as u32, mode, 0, 0].map(u32::to_ne_bytes).concat();
        self.call(CREATE, parent, &[&head, name.as_bytes(), b"\0"])
    }

    pub(crate) fn mknod(&mut self, name: &str, mode: u32, device: u32) -> Answer {
        let head = [mode, device, 0, 0].map(u32::to_ne_bytes).concat();
        self.call(MKNOD, ROOT, &[&head, name.as_bytes(), b"\0"])
    }

    pub(crate) fn mkdir(&mut self, name: &str, mode: u32) -> Answer {
        let head = [mode, 0].map(u32::to_ne_bytes).concat();
        self.call(MKDIR, ROOT, &[&head, name.as_bytes(), b"\0"])
    }

    /// Sets what `valid` names: mode, owner, group, size.
    pub(crate) fn setattr(&mut self, file: u64, valid: u32, mode: u32, owner: u32, size: u64) -> Answer {
        let mut body = vec![0; 88];
        body[0..4].copy_from_slice(&valid.to_ne_bytes());
        body[16..24].copy_from_slice(&size.to_ne_bytes());
        body[68..72].copy_from_slice(&mode.to_ne_bytes());
        body[76..80].copy_from_slice(&owner.to_ne_bytes());
        body[80..84].copy_from_slice(&owner.to_ne_bytes());
        self.call(SETATTR, file, &[&body])
    }

    pub(crate) fn getattr(&mut self, file: u64, handle: Option<u64>) -> Answer {
        let body = [u64::from(handle.is_some()), handle.unwrap_or(0)].map(u64::to_ne_bytes).concat();
        self.call(GETATTR, file, &[&body])
    }

    pub(crate) fn read(&mut self, file: u64, handle: u64, size: u32) -> Answer {
        self.call(READ, file, &[&io(handle, size)])
    }

    pub(crate) fn write(&mut self, file: u64, handle: u64, content: &[u8]) -> Answer {
        self.call(WRITE, file, &[&io(handle, content.len() as u32), content])
    }

    pub(crate) fn release(&mut self, file: u64, handle: u64) -> Answer {
        let body = [handle, 0, 0].map(u64::to_ne_bytes).concat();
        self.call(RELEASE, file, &[&body])
    }

    pub(crate) fn forget(&mut self, file: u64, references: u64) {
        assert!(self.send(FORGET, file, &[&references.to_ne_bytes()]).is_none());
    }

    /// Names of a directory, and the number of each file that the guest now knows of.
    pub(crate) fn list_plus(&mut self, handle: u64) -> Result<Vec<(String, u64)>, Errno> {
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let mut body = io(handle, 4096);
            body[8..16].copy_from_slice(&u64::to_ne_bytes(offset));
            let page = self.call(READDIRPLUS, ROOT, &[&body])?;
            if page.is_empty() {
                return Ok(names);
            }
            let mut rest = &page[..];
            while !rest.is_empty() {
                let entry = &rest[128..];
                offset = u64_at(entry, 8);
                let len = u32_at(entry, 16) as usize;
                names.push((String::from_utf8(entry[24..24 + len].to_vec()).unwrap(), u64_at(rest, 0)));
                rest = &rest[(128 + 24 + len).next_multiple_of(8)..];
            }
        }
    }
}

/// A request's bytes.
pub(crate) fn message(opcode: u32, unique: u64, node: u64, body: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&opcode.to_ne_bytes());
    bytes.extend_from_slice(&unique.to_ne_bytes());
    bytes.extend_from_slice(&node.to_ne_bytes());
    // User and group 1000, process 7.
    bytes.extend_from_slice(&[1000u32, 1000, 7, 0].map(u32::to_ne_bytes).concat());
    body.iter().for_each(|piece| bytes.extend_from_slice(piece));
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes
}

/// The body of a read or a write, from the start of the file, with the flags of one opened for both.
fn io(handle: u64, size: u32) -> Vec<u8> {
    let mut body = [handle, 0].map(u64::to_ne_bytes).concat();
    body.extend_from_slice(&[size, 0, 0, 0, libc::O_RDWR as u32, 0].map(u32::to_ne_bytes).concat());
    body
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Of an entry: the number by which the guest names the file from now on.
pub(crate) fn node(entry: &[u8]) -> u64 {
    u64_at(entry, 0)
}

/// Of what answers a `CREATE`: the handle.
pub(crate) fn handle(created: &[u8]) -> u64 {
    u64_at(created, 128)
}

/// Of what answers a `GETATTR`: size, mode, owner and group.
pub(crate) fn attributes(answer: &[u8]) -> (u64, u32, u32, u32) {
    (u64_at(answer, 16 + 8), u32_at(answer, 16 + 60), u32_at(answer, 16 + 68), u32_at(answer, 16 + 72))
}
