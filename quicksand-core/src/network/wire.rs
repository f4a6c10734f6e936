//! Ethernet frames on a stream socket, as QEMU's `-netdev socket` and passt have them: each after its length, four bytes, big-endian.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
};

/// Length of the number before a frame.
const PREFIX: usize = 4;
/// Longest frame in bytes: passt's largest. One that a guest makes is shorter.
const MAX_FRAME: usize = 65535;
/// Shortest frame: addresses and type.
const MIN_FRAME: usize = 14;

/// The frames that come from a socket.
#[derive(Debug)]
pub(super) struct Frames {
    socket: UnixStream,
    buffer: Vec<u8>,
    /// How much of the buffer holds bytes, and how much of that was given out.
    filled: usize,
    taken: usize,
}

impl Frames {
    pub(super) fn new(socket: UnixStream) -> Frames {
        Frames { socket, buffer: vec![0; 2 * (PREFIX + MAX_FRAME)], filled: 0, taken: 0 }
    }

    /// Waits for frames, and returns all that are whole. `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// Those of the socket; `InvalidData` where the other end does not send frames.
    pub(super) fn next_batch(&mut self) -> io::Result<Option<Batch<'_>>> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        loop {
            self.taken = whole(&self.buffer[..self.filled])?;
            if self.taken > 0 {
                return Ok(Some(Batch(&self.buffer[..self.taken])));
            }
            match self.socket.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Ok(None),
                Ok(len) => self.filled += len,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// How many of the bytes are whole frames.
fn whole(bytes: &[u8]) -> io::Result<usize> {
    let mut end = 0;
    while let Some(prefix) = bytes[end..].first_chunk::<PREFIX>() {
        let len = u32::from_be_bytes(*prefix) as usize;
        if !(MIN_FRAME..=MAX_FRAME).contains(&len) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {len} bytes")));
        }
        if bytes.len() < end + PREFIX + len {
            break;
        }
        end += PREFIX + len;
    }
    Ok(end)
}

/// Whole frames, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch<'a>(&'a [u8]);

impl<'a> Batch<'a> {
    /// The frames with their lengths before them, as they travel.
    pub(super) fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Each frame.
    pub(super) fn frames(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (prefix, tail) = rest.split_first_chunk::<PREFIX>()?;
            let (frame, tail) = tail.split_at_checked(u32::from_be_bytes(*prefix) as usize)?;
            rest = tail;
            Some(frame)
        })
    }
}

/// Appends a frame as it travels.
pub(super) fn append(frame: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    out.extend_from_slice(frame);
}

/// Sends what is made of whole frames.
pub(super) fn send(mut socket: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    socket.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(bytes: &[u8], pieces: usize) -> io::Result<Vec<Vec<u8>>> {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let bytes = bytes.to_vec();
        let sender = std::thread::spawn(move || {
            for piece in bytes.chunks(pieces) {
                // The reader may have had enough.
                let _ = ours.write_all(piece);
            }
        });
        let mut frames = Frames::new(theirs);
        let mut all = Vec::new();
        let end = loop {
            match frames.next_batch() {
                Ok(Some(batch)) => all.extend(batch.frames().map(<[u8]>::to_vec)),
                Ok(None) => break Ok(all),
                Err(error) => break Err(error),
            }
        };
        drop(frames);
        sender.join().unwrap();
        end
    }

    #[test]
    fn frames_survive_any_cutting() {
        let frames: Vec<Vec<u8>> = [14, 1514, 60, MAX_FRAME, 15].map(|len| vec![len as u8; len]).to_vec();
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| append(frame, &mut bytes));
        for pieces in [1, 7, 1000, 1 << 20] {
            assert!(sent(&bytes, pieces).unwrap() == frames, "in pieces of {pieces}");
        }
        // Cut off in the middle: the whole ones came.
        assert_eq!(sent(&bytes[..bytes.len() - 1], 100).unwrap().len(), 4);
    }

    #[test]
    fn lengths_that_are_none_end_it() {
        for len in [0, 13, MAX_FRAME as u32 + 1, u32::MAX] {
            let mut bytes = len.to_be_bytes().to_vec();
            bytes.extend([0; 100]);
            assert_eq!(sent(&bytes, 100).unwrap_err().kind(), io::ErrorKind::InvalidData, "{len}");
        }
    }
}
