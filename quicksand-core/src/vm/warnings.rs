//! What could not be done for a guest, and left it of use all the same.

use std::sync::{Mutex, MutexGuard, PoisonError};

use quicksand_protocol::message::{Done, LONGEST_WARNING, MOST_WARNINGS};

use super::printable;

/// The warnings of a machine, each once, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    pub(super) fn of(done: Done) -> Warnings {
        let warnings = Warnings::default();
        warnings.add(done);
        warnings
    }

    /// Adds what a guest says, which is not trusted.
    pub(crate) fn add(&self, done: Done) {
        let Done::ButFor(said) = done else { return };
        let mut all = self.lock();
        for warning in said.into_iter().take(MOST_WARNINGS) {
            let warning: String = printable(&warning).chars().take(LONGEST_WARNING).collect();
            if all.len() < MOST_WARNINGS && !all.contains(&warning) {
                tracing::warn!(target: "quicksand::guest", "{warning}");
                all.push(warning);
            }
        }
    }

    /// Forgets them, before what they are of is tried again.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_bounded() {
        let warnings = Warnings::of(Done::ButFor(vec!["a\x1b[31m\n".to_owned(), "x".repeat(9000)]));
        warnings.add(Done::ButFor((0..1000).map(|n| n.to_string()).collect()));
        warnings.add(Done::Nothing);
        let all = warnings.all();
        assert!(all.len() <= MOST_WARNINGS && all.iter().all(|warning| warning.len() <= LONGEST_WARNING));
        assert!(!all[0].contains('\x1b'), "{all:?}");
    }
}
