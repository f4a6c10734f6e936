//! The end of the process by SIGTERM, as when a runner's patience is over: what is known of each test that runs is kept first.
//!
//! cargo-nextest sends that signal to a test that takes too long, and kills it 10 s later.

use std::{
    process::exit,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// How long tests may take to keep what is known of them.
const PATIENCE: Duration = Duration::from_secs(8);
/// A test that has not begun to do so by then blocks its thread.
const REACTION: Duration = Duration::from_millis(1500);
/// What shells tell of a program that ended by that signal.
const CODE: i32 = 128 + 15;

/// A test that runs.
pub(crate) trait Running: Send + Sync {
    /// Whether it has noticed the signal, or ended before.
    fn has_noticed(&self) -> bool;
    /// Keeps what can be known of it from another thread.
    fn keep_what_is_known(&self);
}

static TERMINATED: OnceLock<watch::Sender<bool>> = OnceLock::new();
static RUNNING: Mutex<Vec<Arc<dyn Running>>> = Mutex::new(Vec::new());

/// A test's entry among those that run. Dropping it removes it.
pub(crate) struct Entry {
    test: Arc<dyn Running>,
    terminated: watch::Receiver<bool>,
}

impl Entry {
    /// Enters a test, for which the end of the process is held up.
    pub(crate) fn new(test: Arc<dyn Running>) -> Entry {
        let terminated = TERMINATED.get_or_init(listen).subscribe();
        running().push(Arc::clone(&test));
        Entry { test, terminated }
    }

    /// Waits until the process is told to end.
    pub(crate) async fn terminated(&self) {
        let mut terminated = self.terminated.clone();
        if terminated.wait_for(|terminated| *terminated).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        running().retain(|other| !Arc::ptr_eq(other, &self.test));
    }
}

fn running() -> MutexGuard<'static, Vec<Arc<dyn Running>>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread that waits for the signal.
fn listen() -> watch::Sender<bool> {
    let (sender, _) = watch::channel(false);
    let told = sender.clone();
    let listen = move || {
        let Ok(runtime) = Builder::new_current_thread().enable_io().build() else { return };
        let came = runtime.block_on(async { signal(SignalKind::terminate()).ok()?.recv().await });
        if came.is_some() {
            end_process(&told);
        }
    };
    // Without it the signal just ends the process.
    let _ = thread::Builder::new().name("quicksand-signals".into()).spawn(listen);
    sender
}

fn end_process(told: &watch::Sender<bool>) {
    let begun = Instant::now();
    told.send_replace(true);
    let all_done = |patience: Duration| {
        while begun.elapsed() < patience {
            if running().is_empty() {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    };
    if !all_done(REACTION) {
        let deaf: Vec<_> = running().iter().filter(|test| !test.has_noticed()).cloned().collect();
        // All at once: there is time for one after the other only where there are few.
        for test in deaf {
            let keep = move || {
                test.keep_what_is_known();
                running().retain(|other| !Arc::ptr_eq(other, &test));
            };
            let _ = thread::Builder::new().name("quicksand-evidence".into()).spawn(keep);
        }
        all_done(PATIENCE);
    }
    exit(CODE);
}
