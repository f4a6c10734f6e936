//! How many machines the host carries: by memory and processors, within the limits of our control groups.

use std::{fs, num::NonZeroU32, thread};

use super::control_group::{self, Memory};
use crate::base::{environment::Environment, size::Size};

/// What a machine's QEMU takes beside the guest's memory, most of it for what it has translated: 58 MB after a few commands.
/// After every program of the guest was run it was 199 MB, and the guest had taken 276 MB of its 512.
const OVERHEAD: u64 = 96 << 20;
/// How many processors of guests there are for one of the host's. Guests often wait.
const GUESTS_PER_CORE: u32 = 2;

/// What the user allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Limits {
    /// Machines at once.
    pub(crate) jobs: Option<NonZeroU32>,
    /// Memory of all machines together.
    pub(crate) memory: Option<Size>,
}

impl From<&Environment> for Limits {
    fn from(environment: &Environment) -> Limits {
        Limits { jobs: environment.jobs, memory: environment.memory_budget }
    }
}

/// What a machine takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demand {
    /// The guest's memory in bytes.
    pub(crate) memory: u64,
    pub(crate) cpus: u32,
}

impl Demand {
    /// The most that it is expected to take of the host's memory, in bytes.
    pub(crate) fn charge(self) -> u64 {
        self.memory.saturating_add(OVERHEAD)
    }
}

/// A machine that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) demand: Demand,
    /// What it takes by now, in bytes.
    pub(crate) used: u64,
    /// Whether it runs something. A standby does not.
    pub(crate) busy: bool,
}

/// What there is for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Most that they may come to, in bytes, if each takes all that it is expected to.
    budget: u64,
    /// What they may take together beyond what they have, in bytes. `None` where the user set the budget.
    room: Option<u64>,
    jobs: Option<u32>,
    cores: u32,
}

impl Capacity {
    /// What there is at the moment.
    pub(crate) fn now(limits: &Limits) -> Capacity {
        // Heeds the processors that we are bound to, and the share of them that our control groups have.
        let cores = thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
        let jobs = limits.jobs.map(NonZeroU32::get);
        if let Some(budget) = limits.memory {
            return Capacity { budget: budget.bytes(), room: None, jobs, cores };
        }
        // A host that does not tell is taken to have enough.
        let Memory { total, available } = smallest_memory().unwrap_or(Memory { total: u64::MAX, available: u64::MAX });
        // A quarter for all else: the tests themselves, builds, an editor; a part of it even where others took the rest.
        Capacity { budget: total / 4 * 3, room: Some(available.saturating_sub(total / 16)), jobs, cores }
    }

    /// Whether one more machine can run beside those that are there.
    pub(crate) fn admits(&self, present: &[Present], wanted: Demand) -> bool {
        let busy: u32 = present.iter().filter(|machine| machine.busy).map(|machine| machine.demand.cpus).sum();
        self.holds(present, wanted)
            && (self.jobs.is_some() || busy.saturating_add(wanted.cpus) <= self.cores.saturating_mul(GUESTS_PER_CORE))
    }

    /// Whether a machine can be made ready that nobody waits for: one that takes nothing from those that are there.
    pub(crate) fn admits_standby(&self, present: &[Present], wanted: Demand) -> bool {
        let cpus: u32 = present.iter().filter(|machine| machine.busy).map(|machine| machine.demand.cpus).sum();
        self.holds(present, wanted) && cpus.saturating_add(wanted.cpus) <= self.cores
    }

    /// Whether memory and number allow for one more machine.
    fn holds(&self, present: &[Present], wanted: Demand) -> bool {
        let charges = present.iter().map(|machine| machine.demand.charge().max(machine.used));
        let growth = present.iter().map(|machine| machine.demand.charge().saturating_sub(machine.used));
        let with = |sum: u64, more: u64| sum.saturating_add(more);
        charges.fold(wanted.charge(), with) <= self.budget
            && self.room.is_none_or(|room| growth.fold(wanted.charge(), with) <= room)
            && self.jobs.is_none_or(|jobs| present.len() < jobs as usize)
    }
}

/// All of the host's memory within the limits of our control groups, and what of it can still be taken; where the host tells.
pub(crate) fn memory() -> Option<(Size, Size)> {
    smallest_memory().map(sizes)
}

/// What the host has, whatever our control groups leave of it: all of it, and what could still be taken.
pub(crate) fn memory_of_host() -> Option<(Size, Size)> {
    host_memory().map(sizes)
}

fn sizes(memory: Memory) -> (Size, Size) {
    (Size::from_bytes(memory.total), Size::from_bytes(memory.available))
}

fn smallest_memory() -> Option<Memory> {
    let memories = host_memory().into_iter().chain(control_group::memory());
    memories.reduce(|a, b| Memory { total: a.total.min(b.total), available: a.available.min(b.available) })
}

fn host_memory() -> Option<Memory> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |name: &str| {
        let kib = text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix("kB")?.trim();
        Some(kib.parse::<u64>().ok()? << 10)
    };
    Some(Memory { total: bytes("MemTotal:")?, available: bytes("MemAvailable:")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn demand(mib: u64, cpus: u32) -> Demand {
        Demand { memory: mib * MIB, cpus }
    }

    fn present(demand: Demand, used: u64) -> Present {
        Present { demand, used: used * MIB, busy: true }
    }

    /// How many machines of a kind run at once.
    fn most(capacity: Capacity, demand: Demand, used: u64) -> usize {
        let mut machines = vec![];
        while capacity.admits(&machines, demand) {
            machines.push(present(demand, used));
            assert!(machines.len() < 1000);
        }
        machines.len()
    }

    #[test]
    fn four_gigabytes_carry_five_ordinary_machines() {
        let capacity = |cores| Capacity { budget: 3072 * MIB, room: Some(3500 * MIB), jobs: None, cores };
        assert_eq!(most(capacity(16), demand(512, 1), 0), 5);
        assert_eq!(most(capacity(2), demand(512, 1), 0), 4, "two for each core");
        assert_eq!(most(capacity(2), demand(512, 3), 0), 1);
        assert_eq!(most(capacity(16), demand(2048, 1), 0), 1);
        assert_eq!(most(Capacity { jobs: Some(3), ..capacity(1) }, demand(512, 4), 0), 3, "the user knows best");
        assert_eq!(most(capacity(16), demand(512, 1), 1000), 3, "what takes more than expected counts for more");
    }

    #[test]
    fn what_others_took_is_not_given_away() {
        let capacity = Capacity { budget: 12_000 * MIB, room: Some(1500 * MIB), jobs: None, cores: 16 };
        assert!(capacity.admits(&[present(demand(512, 1), 0)], demand(512, 1)));
        assert!(!capacity.admits(&[present(demand(512, 1), 0); 2], demand(512, 1)));
        assert!(capacity.admits(&[present(demand(512, 1), 600); 5], demand(512, 1)), "they have theirs already");
    }

    #[test]
    fn a_standby_needs_an_idle_core() {
        let capacity = Capacity { budget: 3072 * MIB, room: None, jobs: None, cores: 2 };
        let one = present(demand(512, 1), 0);
        assert!(capacity.admits_standby(&[one], demand(512, 1)));
        assert!(!capacity.admits_standby(&[one; 2], demand(512, 1)));
        assert!(capacity.admits_standby(&[one, Present { busy: false, ..one }], demand(512, 1)));
        assert!(!Capacity { jobs: Some(1), ..capacity }.admits_standby(&[one], demand(512, 1)));
    }

    #[test]
    fn this_host_carries_something() {
        let capacity = Capacity::now(&Limits::default());
        assert!(capacity.budget > 64 * MIB && capacity.cores >= 1, "{capacity:?}");
        let limits = Limits { jobs: NonZeroU32::new(3), memory: Some(Size::from_mib(1024)) };
        let capacity = Capacity::now(&limits);
        assert_eq!((capacity.budget, capacity.room, capacity.jobs), (1024 * MIB, None, Some(3)));
    }

    proptest! {
        #[test]
        fn what_is_admitted_stays_within_the_budget(
            budget in 0..20_000u64, cores in 1..64u32, sizes in prop::collection::vec((0..4096u64, 1..8u32, 0..5000u64), 0..50),
        ) {
            let capacity = Capacity { budget: budget * MIB, room: None, jobs: None, cores };
            let mut machines = vec![];
            for (mib, cpus, used) in sizes {
                if capacity.admits(&machines, demand(mib, cpus)) {
                    machines.push(present(demand(mib, cpus), used.min(mib)));
                }
            }
            prop_assert!(machines.iter().map(|machine| machine.demand.charge()).sum::<u64>() <= budget * MIB);
            prop_assert!(machines.iter().map(|machine| machine.demand.cpus).sum::<u32>() <= 2 * cores);
        }
    }
}
