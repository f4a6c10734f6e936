//! A pool of one: while a test runs, the machine of the next one is made ready.
//!
//! It helps where one process runs tests one after the other, as `cargo test -- --test-threads=1` does: the next test then finds a
//! clone whose state is loaded, which has only to be woken. Where tests run at once on all processors there is nothing to gain, and no
//! machine is made ready; nor under cargo-nextest, where each process runs one test.
//!
//! What is made ready takes nothing from anybody: it needs memory that nobody counts on and an idle processor, and goes as soon as
//! another process waits. What is left at the end of the process ends with it.

use std::{
    env,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use quicksand_core::{
    SandboxBuilder,
    harness::{BuilderExt, Standby},
};
use tokio::runtime::Builder;

/// How often it is seen whether another process waits.
const LOOK: Duration = Duration::from_millis(100);
/// How long a machine that is being made ready is waited for. It takes a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many tests in a row may start from something else before what is ready goes.
const MISSES: u32 = 2;

static POOL: Pool =
    Pool { state: Mutex::new(State { place: Place::Empty, last: None, misses: 0 }), changed: Condvar::new() };

struct Pool {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    place: Place,
    /// What the last test started from.
    last: Option<String>,
    misses: u32,
}

enum Place {
    Empty,
    /// It is being made ready, for a start from that. Whether a test waits for it.
    Begun(String, bool),
    Ready(String, Box<Standby>),
}

/// A machine for a start from `base`, where one is ready or soon will be.
pub(crate) fn take(base: &str) -> Option<Standby> {
    let mut state = POOL.state();
    let mut ours = false;
    loop {
        let gone = state.misses >= MISSES;
        match &mut state.place {
            // It was begun a while ago, so it is there sooner than another. There is one for one test.
            Place::Begun(its, awaited) if its == base && (ours || !*awaited) => {
                (ours, *awaited) = (true, true);
                let waited = POOL.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
                state = waited.0;
                if waited.1.timed_out() {
                    return None;
                }
            }
            Place::Ready(its, _) if its == base => break,
            Place::Ready(..) if gone => {
                state.place = Place::Empty;
                POOL.changed.notify_all();
                return None;
            }
            _ => {
                state.misses += 1;
                return None;
            }
        }
    }
    state.misses = 0;
    POOL.changed.notify_all();
    match std::mem::replace(&mut state.place, Place::Empty) {
        Place::Ready(_, standby) => Some(*standby),
        _ => None,
    }
}

/// Has a machine made ready for the next start from `base`, of which this was one, unless another is.
pub(crate) fn refill(base: String, builder: SandboxBuilder) {
    if !is_of_use() {
        return;
    }
    let mut state = POOL.state();
    // A process that runs one test, as an editor has it, is spared a machine that nobody takes.
    let again = state.last.as_ref() == Some(&base);
    state.last = Some(base.clone());
    if !again || !matches!(state.place, Place::Empty) {
        return;
    }
    state.place = Place::Begun(base.clone(), false);
    let spawned = thread::Builder::new().name("quicksand-pool".into()).spawn(move || keep_ready(base, &builder));
    if spawned.is_err() {
        state.place = Place::Empty;
    }
}

/// Makes a machine ready, and sees to it that it is in nobody's way until it is taken.
fn keep_ready(base: String, builder: &SandboxBuilder) {
    let standby = Builder::new_current_thread().enable_all().build().ok().and_then(|runtime| {
        let made = runtime.block_on(builder.make_ready());
        made.inspect_err(|error| tracing::debug!(%error, "no machine is made ready")).ok().flatten()
    });
    let mut state = POOL.state();
    state.place = standby.map_or(Place::Empty, |standby| Place::Ready(base, Box::new(standby)));
    POOL.changed.notify_all();
    while let Place::Ready(_, standby) = &state.place {
        if standby.is_in_the_way() {
            state.place = Place::Empty;
            break;
        }
        state = POOL.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Whether this process may run more tests than one.
fn is_of_use() -> bool {
    env::var_os("NEXTEST").is_none() && !env::args_os().any(|argument| argument == "--exact")
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
