//! Holding back the ends of operations, as of those that a test drops in the moment in which it fails: its programs in the guest are
//! then to be found as they were.

use std::{cell::RefCell, sync::Arc};

use quicksand_protocol::frame::Kind;

use super::channel::Shared;

thread_local! {
    /// What is held back on this thread, while it is.
    static HELD: RefCell<Option<Vec<End>>> = const { RefCell::new(None) };
}

/// The end of an operation or of its input, caused by nothing but dropping it.
#[derive(Debug)]
struct End {
    shared: Arc<Shared>,
    kind: Kind,
    stream: u8,
    id: u32,
}

/// What was held back. Dropping it forgets it.
#[derive(Debug)]
#[must_use = "dropping this forgets what was held back: call `.release()` to send it"]
pub struct Held(Vec<End>);

/// Does some work, and holds back the ends of the operations that it drops last: as soon as it sends anything else, all that came
/// before is sent as well, in order.
pub fn hold<T>(work: impl FnOnce() -> T) -> (T, Held) {
    HELD.with_borrow_mut(|held| *held = Some(Vec::new()));
    let done = work();
    (done, Held(HELD.take().unwrap_or_default()))
}

impl Held {
    /// Sends it after all.
    pub fn release(self) {
        for End { shared, kind, stream, id } in self.0 {
            shared.send(kind, stream, id, &[]);
        }
    }
}

/// Sends a frame that ends something, or holds it back.
pub(super) fn send_or_hold(shared: &Arc<Shared>, kind: Kind, stream: u8, id: u32) {
    let end = End { shared: Arc::clone(shared), kind, stream, id };
    let not_held = HELD.with_borrow_mut(|held| match held {
        Some(held) => {
            held.push(end);
            None
        }
        None => Some(end),
    });
    if not_held.is_some() {
        shared.send(kind, stream, id, &[]);
    }
}

/// Sends what is held back on this thread, before something else is sent.
pub(super) fn release_earlier() {
    let earlier = HELD.with_borrow_mut(|held| held.as_mut().map(std::mem::take));
    if let Some(earlier) = earlier
        && !earlier.is_empty()
    {
        Held(earlier).release();
    }
}
