//! Properties of the codec: what is encoded comes back however the channel cuts it, and no bytes make it panic.

use proptest::{collection::vec, prelude::*, sample::select};
use quicksand_protocol::{
    frame::{Decoder, Frame, Kind, MAX_PAYLOAD, encode},
    message::{Announce, Exec, Hello, Offer, Reply, Request, Wake, Welcome, from_payload, to_payload},
};

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let frame = (select(Kind::ALL.to_vec()), any::<u8>(), any::<u32>(), vec(any::<u8>(), 0..300))
        .prop_map(|(kind, stream, id, payload)| Frame { kind, stream, id, payload });
    vec(frame, 0..20)
}

fn drain(decoder: &mut Decoder, out: &mut Vec<Frame>) {
    while let Some(frame) = decoder.next_frame().expect("only frames were sent") {
        out.push(frame);
    }
}

proptest! {
    #[test]
    fn frames_survive_any_cutting(sent in frames(), pieces in vec(1usize..200, 1..50), padding in 0usize..40) {
        let mut bytes = Vec::new();
        for frame in &sent {
            encode(frame.kind, frame.stream, frame.id, &frame.payload, &mut bytes).unwrap();
            bytes.resize(bytes.len() + padding, 0);
        }
        let (mut decoder, mut got, mut rest) = (Decoder::new(), Vec::new(), &bytes[..]);
        for len in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, tail) = rest.split_at((*len).min(rest.len()));
            decoder.push(piece);
            drain(&mut decoder, &mut got);
            rest = tail;
        }
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn hostile_bytes_give_frames_or_errors(bytes in vec(any::<u8>(), 0..2000)) {
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        // Each call takes at least one byte or says that it needs more, so this ends.
        for _ in 0..=bytes.len() {
            match decoder.next_frame() {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => prop_assert!(frame.payload.len() <= MAX_PAYLOAD),
                Err(_) => {}
            }
        }
        prop_assert!(false, "the decoder made no progress");
    }

    #[test]
    fn hostile_payloads_give_messages_or_errors(bytes in vec(any::<u8>(), 0..500)) {
        let _ = from_payload::<Hello>(&bytes);
        let _ = from_payload::<Welcome>(&bytes);
        let _ = from_payload::<Announce>(&bytes);
        let _ = from_payload::<Offer>(&bytes);
        let _ = from_payload::<Request>(&bytes);
        let _ = from_payload::<Reply>(&bytes);
        let _ = from_payload::<Wake>(&bytes);
    }

    #[test]
    fn commands_survive(argv in vec(vec(any::<u8>(), 0..40), 1..8), user in proptest::option::of(vec(any::<u8>(), 0..9))) {
        let sent = Request::Exec(Exec { argv, user, stdin: true, ..Exec::default() });
        prop_assert_eq!(from_payload::<Request>(&to_payload(&sent).unwrap()).unwrap(), sent);
    }
}
