//! The switch of a private network: frames from card to card.
//!
//! It learns nothing, since it knows which card has which hardware address, and takes from each card only what has that address as
//! its source. So no guest passes for another. A card that takes nothing loses what is sent to it; nobody waits for it.

use std::{
    collections::HashMap,
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use super::wire::{self, Frames};

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// Longest frame that is carried: the usual 1500 bytes, an Ethernet header, a VLAN's tag.
const MAX_FRAME: usize = 1518;
/// Frames that wait for a card.
const QUEUE: usize = 512;
/// How much is written to a card at once, in bytes.
const AT_ONCE: usize = 64 * 1024;

/// A card at the switch: its address, and a number that tells it from earlier cards of that address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) mac: Mac,
    pub(crate) number: u64,
}

/// The switch.
#[derive(Debug, Default)]
pub(crate) struct Ports(Mutex<HashMap<Mac, Open>>);

#[derive(Debug)]
struct Open {
    number: u64,
    queue: SyncSender<Arc<[u8]>>,
    /// To end the threads that wait for it.
    socket: UnixStream,
}

impl Ports {
    /// Lets a card in, in the place of an earlier one of its address.
    pub(crate) fn open(self: &Arc<Self>, port: Port, socket: UnixStream) -> io::Result<()> {
        let (queue, waiting) = sync_channel(QUEUE);
        let (reader, writer) = (socket.try_clone()?, socket.try_clone()?);
        let earlier = self.lock().insert(port.mac, Open { number: port.number, queue, socket });
        drop(earlier);
        let ports = Arc::downgrade(self);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.into()).spawn(work);
        spawn("quicksand-switch", Box::new(move || take(Frames::new(reader), port, &ports)))?;
        spawn("quicksand-card", Box::new(move || give(&writer, &waiting)))?;
        Ok(())
    }

    /// Shuts a card out; with a number, only where it is that card.
    pub(crate) fn close(&self, mac: Mac, number: Option<u64>) {
        let mut open = self.lock();
        if open.get(&mac).is_some_and(|open| number.is_none_or(|number| number == open.number)) {
            open.remove(&mac);
        }
    }

    /// Passes on what came from a card, and tells whether that is still at the switch.
    fn pass_on<'a>(&self, from: Port, frames: impl Iterator<Item = &'a [u8]>) -> bool {
        let open = self.lock();
        if open.get(&from.mac).is_none_or(|open| open.number != from.number) {
            return false;
        }
        for frame in frames {
            let (Some(to), Some(source)) = (frame.first_chunk::<6>(), frame.get(6..12)) else { continue };
            if source != from.mac || frame.len() > MAX_FRAME {
                continue;
            }
            let to_many = to[0] & 1 == 1;
            let mut copy: Option<Arc<[u8]>> = None;
            let mut send = |open: &Open| {
                let copy = copy.get_or_insert_with(|| frame.into());
                // Lost where its queue is full, as on any switch.
                let _ = open.queue.try_send(Arc::clone(copy));
            };
            if to_many {
                open.iter().filter(|(mac, _)| **mac != from.mac).for_each(|(_, open)| send(open));
            } else if let Some(open) = open.get(to).filter(|_| *to != from.mac) {
                send(open);
            }
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Mac, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Takes frames from a card until it or the switch has gone.
fn take(mut frames: Frames, port: Port, ports: &Weak<Ports>) {
    while let Ok(Some(batch)) = frames.next_batch() {
        if !ports.upgrade().is_some_and(|ports| ports.pass_on(port, batch.frames())) {
            return;
        }
    }
}

/// Gives frames to a card until it or the switch has gone.
fn give(socket: &UnixStream, waiting: &Receiver<Arc<[u8]>>) {
    let mut bytes = Vec::new();
    while let Ok(first) = waiting.recv() {
        bytes.clear();
        wire::append(&first, &mut bytes);
        while bytes.len() < AT_ONCE
            && let Ok(next) = waiting.try_recv()
        {
            wire::append(&next, &mut bytes);
        }
        if wire::send(socket, &bytes).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const EVERYONE: Mac = [0xff; 6];

    struct Card {
        mac: Mac,
        socket: UnixStream,
        frames: Frames,
    }

    impl Card {
        fn new(ports: &Arc<Ports>, last: u8, number: u64) -> Card {
            let (ours, theirs) = UnixStream::pair().unwrap();
            theirs.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mac = [2, 0, 0, 0, 0, last];
            ports.open(Port { mac, number }, ours).unwrap();
            Card { mac, frames: Frames::new(theirs.try_clone().unwrap()), socket: theirs }
        }

        fn send(&self, to: Mac, source: Mac, len: usize) {
            let mut bytes = Vec::new();
            wire::append(&[&to[..], &source, &vec![7; len - 12]].concat(), &mut bytes);
            // The switch may have ended this card.
            let _ = wire::send(&self.socket, &bytes);
        }

        /// The source and the length of the next frame.
        fn heard(&mut self) -> (Mac, usize) {
            let batch = self.frames.next_batch().unwrap().expect("the switch is there");
            let frame = batch.frames().next().unwrap();
            (frame[6..12].try_into().unwrap(), frame.len())
        }

        /// Passes where `other` hears nothing of what was sent before: one card's frames keep their order.
        fn was_not_heard_by(&self, other: &mut Card) {
            const MARK: usize = 77;
            self.send(other.mac, self.mac, MARK);
            assert_eq!(other.heard(), (self.mac, MARK));
        }
    }

    #[test]
    fn frames_go_where_they_are_addressed() {
        let ports = Arc::<Ports>::default();
        let [mut a, mut b, mut c] = [1, 2, 3].map(|last| Card::new(&ports, last, 1));
        a.send(b.mac, a.mac, 60);
        assert_eq!(b.heard(), (a.mac, 60));
        a.was_not_heard_by(&mut c);
        a.send(EVERYONE, a.mac, 1518);
        assert_eq!((b.heard(), c.heard()), ((a.mac, 1518), (a.mac, 1518)));
        // To oneself, and to nobody.
        a.send(a.mac, a.mac, 60);
        a.send([2, 0, 0, 0, 0, 9], a.mac, 60);
        a.was_not_heard_by(&mut b);
        b.was_not_heard_by(&mut a);
    }

    #[test]
    fn nobody_passes_for_another_or_sends_giants() {
        let ports = Arc::<Ports>::default();
        let [a, mut b, c] = [1, 2, 3].map(|last| Card::new(&ports, last, 1));
        for (to, source, len) in
            [(b.mac, c.mac, 60), (EVERYONE, c.mac, 60), (b.mac, EVERYONE, 60), (b.mac, a.mac, 1519)]
        {
            a.send(to, source, len);
        }
        a.was_not_heard_by(&mut b);
    }

    #[test]
    fn a_card_that_has_gone_or_was_replaced_says_nothing() {
        let ports = Arc::<Ports>::default();
        let [a, mut b] = [1, 2].map(|last| Card::new(&ports, last, 1));
        let again = Card::new(&ports, 1, 2);
        // Another card in its place shuts it out.
        a.send(b.mac, a.mac, 60);
        let mut closed = a.frames;
        assert!(closed.next_batch().is_ok_and(|batch| batch.is_none()), "the switch has ended it");
        again.was_not_heard_by(&mut b);
        // The earlier card's end is not that of the later one.
        ports.close(a.mac, Some(1));
        again.was_not_heard_by(&mut b);
        ports.close(a.mac, Some(2));
        again.send(b.mac, a.mac, 60);
        let mut closed = again.frames;
        assert!(closed.next_batch().is_ok_and(|batch| batch.is_none()), "the switch has ended it");
        Card::new(&ports, 3, 1).was_not_heard_by(&mut b);
    }

    #[test]
    fn nobody_waits_for_a_card_that_takes_nothing() {
        let ports = Arc::<Ports>::default();
        let [a, mut b, _stuck] = [1, 2, 3].map(|last| Card::new(&ports, last, 1));
        for _ in 0..3 * QUEUE {
            a.send(_stuck.mac, a.mac, 1514);
        }
        a.send(b.mac, a.mac, 60);
        assert_eq!(b.heard(), (a.mac, 60));
    }
}
