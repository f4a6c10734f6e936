//! How many programs of the host's begin at once.
//!
//! Each takes threads and memory for as long as it runs, of which a guest has only so much. So where many are asked for at once, most
//! wait for one of those before them to end. But only for so long: one that runs on keeps none from beginning.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// How many run before further ones wait.
const FREE: usize = 64;
/// How long each of those that come later waits at most, and all that comes behind it.
const PATIENCE: Duration = Duration::from_millis(100);

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to run a program. To be dropped once its descriptors are closed.
#[derive(Debug)]
pub(crate) struct Place(());

/// Waits for a while until there is room for another program.
pub(crate) fn enter() -> Place {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = ENDED.wait_timeout_while(running, PATIENCE, |running| *running >= FREE);
    *waited.unwrap_or_else(PoisonError::into_inner).0 += 1;
    Place(())
}

impl Drop for Place {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}
