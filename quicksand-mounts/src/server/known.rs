//! How much a guest holds of the host's: a descriptor for each file that it knows of, and for each that it has open.

use std::collections::HashMap;

/// Descriptors that a server takes at the most.
pub(super) const MOST_DESCRIPTORS: u64 = 65_536;
/// Those that it needs for itself.
const OWN: u64 = 64;

/// What a guest may hold at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files that it knows of.
    pub files: usize,
    /// Files that it has open.
    pub handles: usize,
}

impl Limits {
    /// What can be held with so many descriptors.
    pub fn of(descriptors: u64) -> Limits {
        let all = descriptors.min(MOST_DESCRIPTORS).saturating_sub(OWN) as usize;
        Limits { files: all - all / 4, handles: all / 4 }
    }
}

/// The files that a guest knows of, and how many references it holds to each. The library counts them too, but does not tell.
#[derive(Debug)]
pub(super) struct Known {
    references: HashMap<u64, u64>,
    most: usize,
    /// With so many the guest is asked to forget some.
    ask_at: usize,
}

impl Known {
    pub(super) fn new(most: usize) -> Known {
        Known { references: HashMap::new(), most, ask_at: Known::enough(most) }
    }

    /// A number that leaves room for what comes while the guest forgets.
    fn enough(most: usize) -> usize {
        most - most / 4
    }

    /// Whether a file may be added: one that is known may always be.
    pub(super) fn has_room_for(&self, file: u64) -> bool {
        self.references.len() < self.most || self.references.contains_key(&file)
    }

    /// Whether any file may be added.
    pub(super) fn has_room(&self) -> bool {
        self.references.len() < self.most
    }

    pub(super) fn add(&mut self, file: u64) {
        *self.references.entry(file).or_default() += 1;
    }

    pub(super) fn forget(&mut self, file: u64, references: u64) {
        if let Some(held) = self.references.get_mut(&file) {
            *held = held.saturating_sub(references);
            if *held == 0 {
                self.references.remove(&file);
            }
        }
        if self.references.len() < self.most / 2 {
            self.ask_at = Known::enough(self.most);
        }
    }

    /// Whether the guest should be asked to forget some, now. It may have most of them open, so it is not asked again soon.
    pub(super) fn wants_room(&mut self) -> bool {
        let asks = self.references.len() >= self.ask_at;
        if asks {
            self.ask_at = self.references.len() + (self.most / 32).max(1);
        }
        asks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_are_divided_and_many_are_not_all_taken() {
        assert_eq!(Limits::of(1024), Limits { files: 720, handles: 240 });
        assert_eq!(Limits::of(u64::MAX), Limits::of(MOST_DESCRIPTORS));
        assert_eq!(Limits::of(3), Limits { files: 0, handles: 0 });
    }

    #[test]
    fn a_guest_is_asked_before_there_is_no_room_and_not_all_the_time() {
        let mut known = Known::new(1000);
        let mut asked = 0;
        for file in 0..1000 {
            assert!(known.has_room_for(file));
            known.add(file);
            asked += usize::from(known.wants_room());
        }
        assert!((2..=9).contains(&asked), "{asked}");
        assert!(!known.has_room_for(1000) && known.has_room_for(7));
        for file in 0..600 {
            known.forget(file, 1);
        }
        assert!(known.has_room() && !known.wants_room());
        for file in 0..349 {
            known.add(file);
        }
        assert!(!known.wants_room());
        known.add(349);
        assert!(known.wants_room());
    }

    #[test]
    fn a_file_is_known_until_its_last_reference_goes() {
        let mut known = Known::new(1);
        known.add(5);
        known.add(5);
        known.forget(5, 1);
        assert!(!known.has_room());
        known.forget(5, u64::MAX);
        known.forget(5, 1);
        assert!(known.has_room());
    }
}
