//! Frames: the units that travel on the channel.
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 0 | [`MAGIC`] |
//! | 1 | [`Kind`] |
//! | 2 | stream, for [`Kind::Data`], [`Kind::Eof`] and [`Kind::Credit`]; else 0 |
//! | 3 | 0 |
//! | 4–7 | operation id, little-endian |
//! | 8–11 | payload length, little-endian, at most [`MAX_PAYLOAD`] |
//! | 12… | payload |
//!
//! Between frames, zero bytes are padding. See [`flush_padding`] for their use.

use std::fmt;

/// First byte of every frame. Not zero, so that padding can be told from a frame.
pub const MAGIC: u8 = 0xA5;

/// Length of a frame's header in bytes.
pub const HEADER_LEN: usize = 12;

/// Largest payload in bytes. Small enough that a bulk stream does not hold up an answer for long.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Host to guest: opens a session.
    Hello = 1,
    /// Guest to host: answers a hello.
    Welcome = 2,
    /// Guest to host, unasked: an agent has started. After the first one of a session the guest has rebooted or its agent
    /// was restarted, and every operation under way is lost.
    Announce = 3,
    /// Host to guest: starts the operation that the id names.
    Request = 4,
    /// Guest to host: ends the operation.
    Reply = 5,
    /// Either way: bytes of a stream.
    Data = 6,
    /// Either way: a stream has no more bytes.
    Eof = 7,
    /// Either way: the receiver of a stream allows that many more bytes (u32, little-endian).
    Credit = 8,
    /// Host to guest: send a signal to the operation's process group (i32, little-endian).
    Signal = 9,
    /// Host to guest: end the operation; it still gets its reply.
    Cancel = 10,
    /// Host to guest: the operation's terminal has this size from now on ([`Window`](crate::message::Window)).
    Resize = 11,
    /// Guest to host, in place of the first announce of a boot: what the guest would boot by itself is another kernel
    /// ([`Offer`](crate::message::Offer)). Its files follow as [`Kind::Data`], one after the other, and a [`Kind::Eof`].
    Offer = 12,
}

impl Kind {
    /// Every kind, in the order of its number.
    pub const ALL: [Kind; 12] = [
        Kind::Hello,
        Kind::Welcome,
        Kind::Announce,
        Kind::Request,
        Kind::Reply,
        Kind::Data,
        Kind::Eof,
        Kind::Credit,
        Kind::Signal,
        Kind::Cancel,
        Kind::Resize,
        Kind::Offer,
    ];

    fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }
}

/// One frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the frame is for.
    pub kind: Kind,
    /// The stream it belongs to, 0 where its kind has none.
    pub stream: u8,
    /// The operation it belongs to, 0 where its kind has none.
    pub id: u32,
    /// Its bytes, at most [`MAX_PAYLOAD`].
    pub payload: Vec<u8>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("kind", &self.kind)
            .field("stream", &self.stream)
            .field("id", &self.id)
            .field("len", &self.payload.len())
            .finish()
    }
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame began with another byte than [`MAGIC`].
    #[error("read a frame: it starts with byte {0:#04x}, not {MAGIC:#04x}")]
    BadMagic(u8),
    /// The kind is none of [`Kind`].
    #[error("read a frame: there is no frame of kind {0}")]
    UnknownKind(u8),
    /// The header's reserved byte is set.
    #[error("read a frame: its reserved byte is {0}, not 0")]
    Reserved(u8),
    /// The payload is longer than [`MAX_PAYLOAD`].
    #[error("handle a frame: its payload has {0} bytes, the limit is {MAX_PAYLOAD}")]
    TooLong(usize),
}

/// Appends a frame to `out`.
///
/// # Errors
///
/// [`FrameError::TooLong`] where the payload is over [`MAX_PAYLOAD`]; `out` is left as it was.
pub fn encode(kind: Kind, stream: u8, id: u32, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(FrameError::TooLong(payload.len()));
    }
    out.reserve(HEADER_LEN + payload.len());
    out.extend_from_slice(&[MAGIC, kind as u8, stream, 0]);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

/// Zeros enough to complete any frame that a guest was stopped in the middle of. What is left over is padding to the
/// guest's decoder, so that the next frame is read from its first byte.
pub fn flush_padding() -> Vec<u8> {
    vec![0; HEADER_LEN + MAX_PAYLOAD]
}

/// Takes frames out of a byte stream that arrives in pieces.
///
/// Holds at most one unfinished frame beside what the last [`push`](Decoder::push) brought.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// A decoder at a frame boundary.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Adds bytes from the channel.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes are pushed.
    ///
    /// # Errors
    ///
    /// [`FrameError`] where the bytes are no frame. The decoder then drops one byte and looks for the next frame from
    /// there, so a caller may go on (an agent, whose peer will send padding) or give up (a host).
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let padding = self.buffer[self.start..].iter().take_while(|&&byte| byte == 0).count();
        self.start += padding;
        let bytes = &self.buffer[self.start..];
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            // A wrong first byte is known at once; waiting for the rest of a header that never comes would hang.
            return match bytes.first() {
                Some(&byte) if byte != MAGIC => self.reject(FrameError::BadMagic(byte)),
                _ => Ok(None),
            };
        };
        let &[magic, kind, stream, reserved, i0, i1, i2, i3, l0, l1, l2, l3] = header;
        if magic != MAGIC {
            return self.reject(FrameError::BadMagic(magic));
        }
        let Some(kind) = Kind::from_byte(kind) else {
            return self.reject(FrameError::UnknownKind(kind));
        };
        if reserved != 0 {
            return self.reject(FrameError::Reserved(reserved));
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if len > MAX_PAYLOAD {
            return self.reject(FrameError::TooLong(len));
        }
        let Some(payload) = bytes.get(HEADER_LEN..HEADER_LEN + len) else {
            return Ok(None);
        };
        let frame = Frame { kind, stream, id: u32::from_le_bytes([i0, i1, i2, i3]), payload: payload.to_vec() };
        self.start += HEADER_LEN + len;
        Ok(Some(frame))
    }

    /// Forgets an unfinished frame, for a channel that was closed and opened again.
    pub fn reset(&mut self) {
        self.buffer.clear();
        self.start = 0;
    }

    fn reject(&mut self, error: FrameError) -> Result<Option<Frame>, FrameError> {
        self.start += 1;
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(kind, 2, 7, payload, &mut out).unwrap();
        out
    }

    #[test]
    fn layout_is_as_documented() {
        assert_eq!(one(Kind::Data, b"ab"), [0xA5, 6, 2, 0, 7, 0, 0, 0, 2, 0, 0, 0, b'a', b'b']);
    }

    #[test]
    fn every_kind_survives_its_byte() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_byte(kind as u8), Some(kind));
        }
        assert_eq!(Kind::from_byte(0), None);
        assert_eq!(Kind::from_byte(Kind::ALL.len() as u8 + 1), None);
    }

    #[test]
    fn a_long_payload_is_refused_on_both_sides() {
        let mut out = vec![1];
        assert_eq!(
            encode(Kind::Data, 0, 0, &vec![0; MAX_PAYLOAD + 1], &mut out),
            Err(FrameError::TooLong(MAX_PAYLOAD + 1))
        );
        assert_eq!(out, [1]);

        let mut header = one(Kind::Data, b"");
        header[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut decoder = Decoder::new();
        decoder.push(&header);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn wrong_first_byte_is_told_before_the_header_is_whole() {
        let mut decoder = Decoder::new();
        decoder.push(b"x");
        assert_eq!(decoder.next_frame(), Err(FrameError::BadMagic(b'x')));
        assert_eq!(decoder.next_frame(), Ok(None));
    }

    /// A guest frozen anywhere inside a frame understands the first frame of the next session.
    #[test]
    fn padding_completes_a_frame_cut_anywhere() {
        let cut = one(Kind::Data, &[0xA5; 100]);
        for at in 0..cut.len() {
            let mut decoder = Decoder::new();
            decoder.push(&cut[..at]);
            decoder.push(&flush_padding());
            decoder.push(&one(Kind::Hello, b"new session"));
            let mut last = None;
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => last = Some(frame),
                    Ok(None) => break,
                    Err(_) => {}
                }
            }
            let last = last.unwrap_or_else(|| panic!("nothing was read after a cut at {at}"));
            assert_eq!((last.kind, last.payload.as_slice()), (Kind::Hello, &b"new session"[..]), "cut at {at}");
        }
    }
}
