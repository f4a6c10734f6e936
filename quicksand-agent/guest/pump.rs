//! Carries FUSE messages between the kernel and the port that leads to their server on the host.
//!
//! Standard input is `/dev/fuse`, standard output the port. Each message of the kernel is one read, and it must get each reply in
//! one write; in the port they follow each other, and begin with their length. The process ends when the file system is
//! unmounted, and when the port's other end is closed.

use std::{
    env,
    fs::File,
    io::{self, Read, Write},
    mem::ManuallyDrop,
    os::fd::{AsFd, FromRawFd},
    path::PathBuf,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{mounts, serve::STACK};

/// The argument that makes this program a pump; the path of the mount follows.
pub(crate) const WORD: &str = "pump";

/// The longest message: 1 MiB of data, and what goes before it. As of the host's server.
const MAX_MESSAGE: usize = (1 << 20) + 4096;
/// Length of the header of a reply.
const REPLY_HEADER: usize = 16;
/// How long the host's end of the port may take to be there.
const HOST_PATIENCE: Duration = Duration::from_secs(10);

/// Pumps until one of the two ends. Never fails: what matters is that it ends, which aborts the file system.
pub(crate) fn run() -> ExitCode {
    let path = env::args_os().nth(2).map(PathBuf::from).unwrap_or_default();
    let (fuse, port) = (descriptor(0), descriptor(1));
    if !host_is_there(&port) {
        return ExitCode::FAILURE;
    }
    let spawned = thread::Builder::new().stack_size(STACK).spawn(move || {
        let _ = requests(&descriptor(0), &descriptor(1));
        std::process::exit(0)
    });
    if spawned.is_err() {
        return ExitCode::FAILURE;
    }
    let (forget, wanted) = mpsc::sync_channel(1);
    // On a thread of its own: this may wait for the file system, whose replies are on their way here meanwhile.
    let _ = thread::Builder::new().stack_size(STACK).spawn(move || {
        while wanted.recv().is_ok() {
            mounts::forget_unused(&path);
        }
    });
    let _ = replies(&port, &fuse, || {
        // Where it has just been asked, that is enough.
        let _ = forget.try_send(());
    });
    ExitCode::SUCCESS
}

/// A standard stream as a file that is never closed: the process ends first.
#[allow(unsafe_code)]
fn descriptor(number: i32) -> ManuallyDrop<File> {
    // SAFETY: the agent has put a file there, and nothing closes it.
    ManuallyDrop::new(unsafe { File::from_raw_fd(number) })
}

/// Waits until somebody is at the port's other end. Before that a read takes it for closed.
fn host_is_there(port: &File) -> bool {
    let step = Duration::from_millis(1);
    for _ in 0..HOST_PATIENCE.as_millis() / step.as_millis() {
        let mut fds = [PollFd::new(port.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(_) if fds[0].revents().is_some_and(|events| !events.contains(PollFlags::POLLHUP)) => return true,
            _ => thread::sleep(step),
        }
    }
    false
}

/// From the kernel to the host.
fn requests(mut fuse: &File, mut port: &File) -> io::Result<()> {
    let mut message = vec![0; MAX_MESSAGE];
    loop {
        match fuse.read(&mut message) {
            Ok(len) => port.write_all(&message[..len])?,
            // A request that was taken back before it could be read.
            Err(e) if e.kind() == io::ErrorKind::Interrupted || e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
}

/// From the host to the kernel.
fn replies(mut port: &File, mut fuse: &File, forget: impl Fn()) -> io::Result<()> {
    let mut messages = Messages::new();
    loop {
        while let Some(message) = messages.next()? {
            if message[8..REPLY_HEADER] == [0; 8] {
                forget();
                continue;
            }
            match fuse.write(message) {
                Err(e) if e.raw_os_error() == Some(Errno::ENODEV as i32) => return Err(e),
                // Its request is not waited for any more, or it is no reply to it: the request has then failed.
                _ => {}
            }
        }
        if messages.fill(&mut port)? == 0 {
            return Ok(());
        }
    }
}

/// Whole messages out of a stream.
#[derive(Debug)]
struct Messages {
    buffer: Vec<u8>,
    /// What lies between these has come and was not taken.
    start: usize,
    end: usize,
}

impl Messages {
    fn new() -> Messages {
        Messages { buffer: vec![0; MAX_MESSAGE + 64 * 1024], start: 0, end: 0 }
    }

    /// The next whole message, once it is there.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let there = &self.buffer[self.start..self.end];
        let Some(len) = there.first_chunk().map(|len| u32::from_ne_bytes(*len) as usize) else { return Ok(None) };
        if !(REPLY_HEADER..=MAX_MESSAGE).contains(&len) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if there.len() < len {
            return Ok(None);
        }
        self.start += len;
        Ok(Some(&self.buffer[self.start - len..self.start]))
    }

    /// Reads what there is. Returns its length, 0 at the end.
    fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.start < MAX_MESSAGE {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        loop {
            match from.read(&mut self.buffer[self.end..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    let len = read?;
                    self.end += len;
                    return Ok(len);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that comes in pieces of some lengths.
    struct Pieces<'a>(&'a [u8], std::iter::Cycle<std::slice::Iter<'a, usize>>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.1.next().copied().unwrap_or(1).min(self.0.len()).min(buffer.len());
            buffer[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    fn message(len: usize, fill: u8) -> Vec<u8> {
        let mut message = vec![fill; len];
        message[..4].copy_from_slice(&(len as u32).to_ne_bytes());
        message
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let sent: Vec<Vec<u8>> =
            (0..60).map(|n| message([16, 17, 4096, MAX_MESSAGE, 100_000][n % 5], n as u8)).collect();
        let stream = sent.concat();
        for pieces in [&[4096][..], &[1, 4096, 3], &[usize::MAX], &[700_001]] {
            let mut from = Pieces(&stream, pieces.iter().cycle());
            let (mut messages, mut got) = (Messages::new(), Vec::new());
            loop {
                while let Some(message) = messages.next().unwrap() {
                    got.push(message.to_vec());
                }
                if messages.fill(&mut from).unwrap() == 0 {
                    break;
                }
            }
            assert!(got == sent, "{pieces:?}");
        }
    }

    #[test]
    fn a_length_that_no_message_has_is_an_error() {
        for len in [0, 15, MAX_MESSAGE as u32 + 1, u32::MAX] {
            let mut messages = Messages::new();
            messages.fill(&mut &len.to_ne_bytes()[..]).unwrap();
            assert!(messages.next().is_err(), "{len}");
        }
    }
}
