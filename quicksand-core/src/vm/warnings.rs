//! What could not be done for a guest, and left it of use all the same.

use std::sync::{Mutex, MutexGuard, PoisonError};

use quicksand_protocol::message::{Done, LONGEST_WARNING, MOST_WARNINGS};

use crate::base::printed::printable;

/// The warnings of a machine, each once, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    /// What is so for as long as the machine runs, and for all that go on from it.
    lasting: Option<String>,
    passing: Mutex<Vec<String>>,
    /// Those of a part of its start that nobody waits for.
    late: Mutex<Vec<String>>,
}

impl Warnings {
    /// With one that stays, and is told here.
    pub(super) fn for_good(warning: Option<String>) -> Warnings {
        let lasting = warning.map(|warning| cut(&warning));
        if let Some(warning) = &lasting {
            tracing::warn!(target: "quicksand::guest", "{warning}");
        }
        Warnings { lasting, passing: Mutex::default(), late: Mutex::default() }
    }

    /// Adds what a guest says, which is not trusted.
    pub(crate) fn add(&self, done: Done) {
        self.add_all(done);
    }

    /// The same of what belongs to its start and comes after that.
    pub(super) fn add_late(&self, done: Done) {
        let new = self.add_all(done);
        lock(&self.late).extend(new);
    }

    /// Returns those that are new.
    fn add_all(&self, done: Done) -> Vec<String> {
        let Done::ButFor(said) = done else { return Vec::new() };
        let mut all = lock(&self.passing);
        let mut new = Vec::new();
        for warning in said.into_iter().take(MOST_WARNINGS) {
            let warning = cut(&warning);
            if all.len() < MOST_WARNINGS && !all.contains(&warning) {
                tracing::warn!(target: "quicksand::guest", "{warning}");
                all.push(warning.clone());
                new.push(warning);
            }
        }
        new
    }

    /// Forgets those that do not stay, before what they are of is tried again.
    pub(super) fn forget(&self) {
        lock(&self.passing).clear();
    }

    /// That which stays.
    pub(super) fn lasting(&self) -> Option<String> {
        self.lasting.clone()
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.lasting.iter().chain(lock(&self.passing).iter()).cloned().collect()
    }

    /// Those of its start that came, or may have come, after that.
    pub(crate) fn late(&self) -> Vec<String> {
        lock(&self.late).clone()
    }
}

fn cut(warning: &str) -> String {
    printable(warning).chars().take(LONGEST_WARNING).collect()
}

fn lock(warnings: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    warnings.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn what_comes_late_is_told_from_the_rest() {
        let warnings = Warnings::default();
        warnings.add(Done::ButFor(vec!["a".to_owned()]));
        warnings.add_late(Done::ButFor(vec!["a".to_owned(), "b".to_owned()]));
        warnings.add(Done::ButFor(vec!["c".to_owned()]));
        assert_eq!((warnings.all(), warnings.late()), (vec!["a".into(), "b".into(), "c".into()], vec!["b".into()]));
    }
}
