//! How far a long step has come.

use std::{fmt, sync::Arc};

/// One report of a step that a user waits for.
///
/// Stages of a start are, where they are needed, those of making or getting the image ("install packages", "download", "make file
/// system", "digest" and so on), "wait for other machines to end", "boot", "freeze" and, always, "clone". A running sandbox
/// reports "save", "list files" where [changes](crate::Sandbox::changes) are asked for a first time, and the bytes of "upload" and
/// "download". Each begins with a `current` of 0 and ends with the `total`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, in a few words: "install packages", "boot".
    pub stage: &'static str,
    /// How much of it is done, in units of the stage: bytes, steps or, with a total of 1, not done and done.
    pub current: u64,
    /// How much there is to do; 0 where that is not known.
    pub total: u64,
}

/// Takes reports. Called on any thread, often; it should return at once.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(&Progress) + Send + Sync>);

impl Reporter {
    /// Reports to a function.
    pub fn new(report: impl Fn(&Progress) + Send + Sync + 'static) -> Reporter {
        Reporter(Arc::new(report))
    }

    /// Reports to nobody.
    pub fn silent() -> Reporter {
        Reporter::new(|_| {})
    }

    /// Says how far `stage` has come.
    pub fn report(&self, stage: &'static str, current: u64, total: u64) {
        (self.0)(&Progress { stage, current, total });
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}
