//! What is fuzzed of this crate, and what must hold for any bytes. For fuzz targets and the tests that replay their corpus.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    flow::SendCredit,
    frame::{Decoder, Frame, FrameError, Kind, encode},
    index::{self, Encoder, LONGEST_PATH},
    message::{Announce, Hello, Offer, Reply, Request, Welcome, Window, from_payload, to_payload},
};

/// Reads frames out of `bytes`, and messages out of those.
///
/// # Panics
///
/// Where the frames depend on how the bytes arrive, or what was read can't be sent on as it is.
pub fn frames(bytes: &[u8]) {
    let whole = decode(bytes, bytes.len());
    for piece in [1, 7] {
        assert_eq!(decode(bytes, piece), whole, "in pieces of {piece}");
    }
    for frame in whole.into_iter().flatten() {
        let mut sent = Vec::new();
        encode(frame.kind, frame.stream, frame.id, &frame.payload, &mut sent).expect("what was read can be sent");
        let payload = &*frame.payload;
        match frame.kind {
            Kind::Hello => sent_on::<Hello>(payload),
            Kind::Welcome => sent_on::<Welcome>(payload),
            Kind::Announce => sent_on::<Announce>(payload),
            Kind::Request => sent_on::<Request>(payload),
            Kind::Reply => sent_on::<Reply>(payload),
            Kind::Offer => sent_on::<Offer>(payload),
            Kind::Resize => drop(Window::from_bytes(payload)),
            Kind::Credit => drop(SendCredit::default().grant(payload)),
            Kind::Data | Kind::Eof | Kind::Signal | Kind::Cancel => {}
        }
        assert_eq!(decode(&sent, sent.len()), [Ok(frame)]);
    }
}

/// Reads an index of files out of `bytes`.
///
/// # Panics
///
/// Where what was read breaks a rule, or differs once it is sent on.
pub fn index(bytes: &[u8]) {
    let (mut entries, mut encoder, mut sent) = (0, Encoder::default(), Vec::new());
    let read = index::decode(bytes, |entry| {
        assert!(entry.path.starts_with(b"/") && entry.path.len() <= LONGEST_PATH);
        sent = encoder.encode(&entry, std::mem::take(&mut sent));
        let mut alone = 0;
        let read = index::decode(&Encoder::default().encode(&entry, Vec::new()), |other| {
            assert_eq!(other, entry);
            alone += 1;
        });
        read.expect("what was read can be sent on");
        assert_eq!(alone, 1);
        entries += 1;
    });
    let mut again = 0;
    let sent_on = index::decode(&sent, |_| again += 1);
    assert_eq!((sent_on, again), (Ok(()), entries), "{read:?}");
}

/// All that a decoder says of bytes that arrive in pieces of that length.
fn decode(bytes: &[u8], piece: usize) -> Vec<Result<Frame, FrameError>> {
    let (mut decoder, mut said) = (Decoder::new(), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        decoder.push(piece);
        while let Some(next) = decoder.next_frame().transpose() {
            said.push(next);
        }
    }
    said
}

fn sent_on<T: Serialize + DeserializeOwned + PartialEq + Debug>(payload: &[u8]) {
    if let Ok(message) = from_payload::<T>(payload) {
        let sent = to_payload(&message).expect("what came in a frame fits into one");
        assert_eq!(from_payload::<T>(&sent).expect("what was sent can be read"), message);
    }
}
