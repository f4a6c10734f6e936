//! The owners that files may have where a disk is made: all there are, or those that a user namespace has.

use std::ops::Range;

use super::entry::Meta;

/// Who owns what an owner is lacking for.
const NOBODY: u64 = 65_534;
/// The number that means no owner to the kernel, and all above.
const NO_OWNER: u64 = u32::MAX as u64;

/// Which numbers of users and groups files may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owners {
    users: Vec<Range<u64>>,
    groups: Vec<Range<u64>>,
}

/// A file whose owner there is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stranger {
    pub(crate) path: String,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
}

impl Owners {
    /// Those of a namespace, as `/proc/self/uid_map` and `gid_map` tell them.
    pub(crate) fn parse(uid_map: &str, gid_map: &str) -> Owners {
        Owners { users: ranges(uid_map), groups: ranges(gid_map) }
    }

    /// Gives what nobody here can own to nobody. Returns whether that was so.
    pub(crate) fn fit(&self, meta: &mut Meta) -> bool {
        let fit = |number: &mut u64, ranges: &[Range<u64>]| {
            let has = |wanted: u64| ranges.iter().any(|range| range.contains(&wanted));
            if has(*number) {
                return false;
            }
            // Where there is not even that one: the last that there is.
            let last = || ranges.iter().map(|range| range.end - 1).max().unwrap_or(0);
            *number = if has(NOBODY) { NOBODY } else { last() };
            true
        };
        let (user, group) = (fit(&mut meta.uid, &self.users), fit(&mut meta.gid, &self.groups));
        user || group
    }

    /// How many users and groups there are at the least.
    pub(crate) fn count(&self) -> u64 {
        let count = |ranges: &[Range<u64>]| ranges.iter().map(|range| range.end - range.start).sum::<u64>();
        count(&self.users).min(count(&self.groups))
    }
}

impl Default for Owners {
    /// All numbers.
    fn default() -> Owners {
        let all = 0..NO_OWNER;
        Owners { users: vec![all.clone()], groups: vec![all] }
    }
}

/// Lines of a first number inside, one outside, and how many.
fn ranges(map: &str) -> Vec<Range<u64>> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), _, Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next()) else {
            return None;
        };
        Some(first..first.saturating_add(count).min(NO_OWNER)).filter(|range| !range.is_empty())
    };
    map.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(owners: &Owners, uid: u64, gid: u64) -> (u64, u64) {
        let mut meta = Meta { uid, gid, ..Meta::default() };
        let changed = owners.fit(&mut meta);
        assert_eq!(changed, (meta.uid, meta.gid) != (uid, gid));
        (meta.uid, meta.gid)
    }

    #[test]
    fn what_nobody_can_own_is_nobodys() {
        let all = Owners::default();
        assert_eq!(fitted(&all, 1_516_583_083, 2_042_662_593), (1_516_583_083, 2_042_662_593));
        assert_eq!(fitted(&all, NO_OWNER, 1 << 40), (NOBODY, NOBODY));
        let own =
            Owners::parse("         0       1000          1\n         1     100000      65536\n", "0 0 4294967295\n");
        assert_eq!(own.count(), 65_537);
        assert_eq!(fitted(&own, 65_536, 70_000), (65_536, 70_000));
        assert_eq!(fitted(&own, 65_537, 70_000), (NOBODY, 70_000));
        let few = Owners::parse("0 1000 1\n1 100000 1000\n", "0 1000 1\nnonsense\n");
        assert_eq!(fitted(&few, 5000, 7), (1000, 0));
    }
}
