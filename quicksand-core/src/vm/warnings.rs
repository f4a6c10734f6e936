//! What could not be done for a guest, and left it of use all the same.

use std::sync::{Mutex, MutexGuard, PoisonError};

use quicksand_protocol::message::{Done, LONGEST_WARNING, MOST_WARNINGS};

use super::printable;

/// The warnings of a machine, each once, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    /// What is so for as long as the machine runs, and for all that go on from it.
    lasting: Option<String>,
    passing: Mutex<Vec<String>>,
}

impl Warnings {
    /// With one that stays, and is told here.
    pub(super) fn for_good(warning: Option<String>) -> Warnings {
        let lasting = warning.map(|warning| cut(&warning));
        if let Some(warning) = &lasting {
            tracing::warn!(target: "quicksand::guest", "{warning}");
        }
        Warnings { lasting, passing: Mutex::default() }
    }

    /// Adds what a guest says, which is not trusted.
    pub(crate) fn add(&self, done: Done) {
        let Done::ButFor(said) = done else { return };
        let mut all = self.lock();
        for warning in said.into_iter().take(MOST_WARNINGS) {
            let warning = cut(&warning);
            if all.len() < MOST_WARNINGS && !all.contains(&warning) {
                tracing::warn!(target: "quicksand::guest", "{warning}");
                all.push(warning);
            }
        }
    }

    /// Forgets those that do not stay, before what they are of is tried again.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    /// That which stays.
    pub(super) fn lasting(&self) -> Option<String> {
        self.lasting.clone()
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.lasting.iter().chain(self.lock().iter()).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.passing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cut(warning: &str) -> String {
    printable(warning).chars().take(LONGEST_WARNING).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_bounded() {
        let warnings = Warnings::for_good(Some("b\x1b\n".repeat(9000)));
        warnings.add(Done::ButFor(vec!["a\x1b[31m\n".to_owned(), "x".repeat(9000)]));
        warnings.add(Done::ButFor((0..1000).map(|n| n.to_string()).collect()));
        warnings.add(Done::Nothing);
        let all = warnings.all();
        assert!(all.len() <= MOST_WARNINGS + 1 && all.iter().all(|warning| warning.len() <= LONGEST_WARNING));
        assert!(!all.concat().contains('\x1b'), "{all:?}");
        warnings.forget();
        assert_eq!(warnings.all(), all[..1]);
        assert_eq!(warnings.lasting().as_ref(), all.first());
    }
}
