//! The test that runs on a thread, where a runner of our own runs it: what there is to tell of it goes there, rather than to standard
//! error, which tests that run at once share.

use std::{cell::RefCell, path::Path, sync::Arc};

use quicksand_core::{Progress, Reporter, harness::Activity};

use crate::progress::show_progress;

/// Who is told of a test. Called on any thread.
pub(crate) trait Listener: Send + Sync {
    /// The test says something that belongs to its failure.
    fn says(&self, text: &str);
    /// The host lacks what it requires.
    fn is_skipped(&self, reason: &str);
    /// It waits for its machine, or for a save that is made for it.
    fn waits_for(&self, progress: &Progress);
    /// Its machine is there.
    fn has_machine(&self, activity: Option<Activity>);
    /// It failed, and what is known of that is in the directory.
    fn left(&self, directory: &Path);
}

thread_local!(static CURRENT: RefCell<Option<Arc<dyn Listener>>> = const { RefCell::new(None) });

/// Who listens to the test on this thread. Nobody does under libtest.
pub(crate) fn listener() -> Option<Arc<dyn Listener>> {
    CURRENT.with_borrow(Option::clone)
}

/// Has the test on this thread listened to, to the end of the thread.
pub(crate) fn listen(listener: Arc<dyn Listener>) {
    CURRENT.set(Some(listener));
}

/// Says something that belongs to the failure of the test on this thread.
pub(crate) fn say(text: &str) {
    match listener() {
        Some(listener) => listener.says(text),
        // As a test prints: captured.
        None => eprintln!("{text}"),
    }
}

/// Who shows how the long steps of the test on this thread come along.
pub(crate) fn reporter() -> Reporter {
    match listener() {
        Some(listener) => Reporter::new(move |progress| listener.waits_for(progress)),
        None => Reporter::new(show_progress()),
    }
}
