//! The removal of what can be made or got again: what the cache directory holds and nobody used for a while.
//!
//! Never removed is what is in use, as the kernel's locks tell: warm states, kept machines, images and kernels that a process holds, and
//! what one is making or fetching; nor images that the `quicksand.lock` of a project names which asked for an image in the last 90 days
//! and is still there. Of what has no lock, nothing goes that was touched within the hour.
//!
//! ```no_run
//! # fn f() -> quicksand_core::Result<()> {
//! use std::time::Duration;
//! use quicksand_core::{Size, cache::Cache, prune::{Plan, Rule}};
//!
//! let rule = Rule { older_than: Some(Duration::from_secs(30 * 86_400)), max_size: Some(Size::from_mib(20_000)) };
//! let pruned = Plan::new(&Cache::from_environment()?, &rule)?.carry_out()?;
//! println!("freed {}", pruned.freed());
//! # Ok(())
//! # }
//! ```

mod things;

use std::{
    fmt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use crate::{
    base::{
        cache::Cache,
        disk_usage::{Ledger, Usage},
        size::Size,
    },
    error::Result,
    verbs::changes::baseline,
};

/// What to remove.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// What was not used for that long.
    pub older_than: Option<Duration>,
    /// Then what was not used for the longest time, until the rest is no larger than this.
    pub max_size: Option<Size>,
}

/// What kind of thing something in the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// A machine that was booted and frozen.
    WarmState,
    /// What machines boot from.
    Image,
    /// The kernel that images without one share.
    Kernel,
    /// The archive that an image's guests start from.
    Initramfs,
    /// An empty disk of some size, which machines get copies of.
    Overlay,
    /// The machine of a failed test.
    FailedMachine,
    /// A file that was fetched, or a part of it, and not made an image of.
    Download,
    /// The layer of a container image that was not made.
    Blob,
    /// What a tag of a registry means.
    Tag,
    /// What a killed process left.
    Leftover,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 10] = [
        Kind::WarmState,
        Kind::Image,
        Kind::Kernel,
        Kind::Initramfs,
        Kind::Overlay,
        Kind::FailedMachine,
        Kind::Download,
        Kind::Blob,
        Kind::Tag,
        Kind::Leftover,
    ];
}

impl fmt::Display for Kind {
    /// In the plural: `warm states`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::WarmState => "warm states",
            Kind::Image => "images",
            Kind::Kernel => "kernels",
            Kind::Initramfs => "initramfs archives",
            Kind::Overlay => "empty disks",
            Kind::FailedMachine => "machines of failed tests",
            Kind::Download => "downloads",
            Kind::Blob => "layers",
            Kind::Tag => "tags",
            Kind::Leftover => "leftovers",
        })
    }
}

/// Why something stays, whatever the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// A process uses it, or is making it.
    InUse,
    /// The `quicksand.lock` in that directory names it.
    Project(PathBuf),
    /// It is so new that it may be in use.
    New,
}

/// Something in the cache.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Thing {
    /// What it is.
    pub kind: Kind,
    /// The name of its file or directory.
    pub name: String,
    /// What it is to people: of a warm state its image, of a kept machine its test.
    pub about: Option<String>,
    /// When it was last used.
    pub used: SystemTime,
    /// Why it stays, whatever the rule. `None` for what may go.
    pub kept: Option<Kept>,
    path: PathBuf,
    files: Vec<Usage>,
}

/// What a rule removes.
#[derive(Debug)]
pub struct Plan {
    cache: Cache,
    all: Vec<Thing>,
    go: Vec<Removal>,
}

/// Something that goes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Removal {
    /// What goes.
    pub thing: Thing,
    /// How much that frees, after what goes before it. What it shares with something that stays is not freed.
    pub frees: Size,
}

/// What was removed, or would be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Pruned {
    /// What went, in this order.
    pub removed: Vec<Removal>,
    /// What stays.
    pub kept: Vec<Thing>,
    /// What that takes on the disk.
    pub kept_size: Size,
}

impl Plan {
    /// What that rule removes now.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`](crate::Error::Cache) where the cache can't be read.
    pub fn new(cache: &Cache, rule: &Rule) -> Result<Plan> {
        let now = SystemTime::now();
        let (all, go) = choose(things::all(cache, now)?, rule, now);
        Ok(Plan { cache: cache.clone(), all, go })
    }

    /// What carrying it out would do.
    pub fn look(self) -> Pruned {
        Pruned::of(self.all, self.go)
    }

    /// Removes it. What came into use meanwhile stays.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`](crate::Error::Cache) where something can't be removed. What went before has gone.
    pub fn carry_out(self) -> Result<Pruned> {
        let (mut gone, mut stay) = (Vec::new(), self.all);
        for Removal { thing, .. } in self.go {
            if things::remove(&self.cache, &thing)? {
                gone.push(thing);
            } else {
                stay.push(Thing { kept: Some(Kept::InUse), ..thing });
            }
        }
        baseline::sweep(&self.cache);
        things::remove_locks(&self.cache);
        let mut ledger = Ledger::default();
        gone.iter().chain(&stay).for_each(|thing| ledger.add(&thing.files));
        let gone = gone.into_iter().map(|thing| Removal::of(thing, &mut ledger)).collect();
        Ok(Pruned::of(stay, gone))
    }
}

impl Removal {
    fn of(thing: Thing, ledger: &mut Ledger) -> Removal {
        let frees = Size::from_bytes(ledger.remove(&thing.files));
        Removal { thing, frees }
    }
}

impl Pruned {
    fn of(mut kept: Vec<Thing>, removed: Vec<Removal>) -> Pruned {
        kept.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
        let mut ledger = Ledger::default();
        kept.iter().for_each(|thing| ledger.add(&thing.files));
        Pruned { removed, kept, kept_size: Size::from_bytes(ledger.total()) }
    }

    /// How much was freed.
    pub fn freed(&self) -> Size {
        Size::from_bytes(self.removed.iter().map(|removal| removal.frees.bytes()).sum())
    }

    /// How many things of a kind went, and how much that freed.
    pub fn of_kind(&self, kind: Kind) -> (usize, Size) {
        let those = || self.removed.iter().filter(|removal| removal.thing.kind == kind);
        (those().count(), Size::from_bytes(those().map(|removal| removal.frees.bytes()).sum()))
    }
}

/// What stays and what goes.
fn choose(mut all: Vec<Thing>, rule: &Rule, now: SystemTime) -> (Vec<Thing>, Vec<Removal>) {
    let mut ledger = Ledger::default();
    all.iter().for_each(|thing| ledger.add(&thing.files));
    // What nobody can use goes first, then the oldest.
    all.sort_by_key(|thing| (thing.kind != Kind::Leftover, thing.used));
    let (mut stay, mut go) = (Vec::new(), Vec::new());
    for thing in all {
        let age = now.duration_since(thing.used).unwrap_or_default();
        let old = rule.older_than.is_some_and(|limit| age >= limit);
        let too_much = rule.max_size.is_some_and(|limit| ledger.total() > limit.bytes());
        if thing.kept.is_none() && (thing.kind == Kind::Leftover || old || too_much) {
            go.push(Removal::of(thing, &mut ledger));
        } else {
            stay.push(thing);
        }
    }
    (stay, go)
}

#[cfg(test)]
mod tests;
