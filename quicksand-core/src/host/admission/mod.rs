//! Who may start a machine now: as many run as memory and processors allow, over all processes of a user.
//!
//! There is no daemon and nobody to ask but the file system. In the cache directory lie
//!
//! ```text
//! slots/TIME-ID    one file a machine, which says what it takes
//! queue/TIME-ID    one file for each who waits, in the order of arrival
//! ```
//!
//! each locked by its process for as long as it holds, so that a process that is killed holds nothing. Whoever wants a machine
//! looks at both under one lock, the *gate*: where nobody waits and there is room, it takes a slot, else it joins the queue,
//! whose first looks again every few milliseconds. Nothing is held while waiting, and all that a machine takes is taken at once, so
//! that no two can wait for each other.
//!
//! A process that has a machine already does not wait for another, without which the first might never end: such machines count,
//! and come on top where there is no room. And where no machine that waited for its turn is left, the next one starts in any
//! case: one that is larger than all there is runs alone, and nobody waits for a machine that somebody left running.

mod capacity;
mod control_group;
mod token;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::Host;
use crate::{
    base::{
        cache::{CacheError, Lock},
        progress::Reporter,
        size::Size,
    },
    error::Error,
    qemu::memory::page_size,
};
use capacity::{Capacity, Present};
use token::Token;

pub(crate) use capacity::{Demand, Limits, memory, memory_of_host};

/// How long others may hold the gate. They need less than a millisecond.
const GATE_PATIENCE: Duration = Duration::from_secs(60);
/// How often the first of the queue looks for room. Those behind it look the more rarely, the further back they are.
const LOOK: Duration = Duration::from_millis(10);
const RAREST_LOOK: Duration = Duration::from_millis(250);
/// How long the first of the queue waits while nothing moves.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// A wait that is longer is told to whoever watches.
const WORTH_TELLING: Duration = Duration::from_secs(10);

/// How many machines this process has, without those that are ready for tests to come.
static OWN: AtomicUsize = AtomicUsize::new(0);

/// Whether a start waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Turn {
    /// It does, unless this process has a machine already.
    #[default]
    First,
    /// It does: no machine of this process depends on it.
    Always,
    /// It does not.
    Never,
}

/// The place of one machine among all. Dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping a slot gives it to the next machine: keep it for as long as the machine runs"]
pub(crate) struct Slot {
    token: Token,
    entry: Entry,
}

/// What the file of a slot says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    kind: Kind,
    /// The process that it belongs to, for people.
    owner: u32,
    /// Of the guest, in bytes.
    memory: u64,
    cpus: u32,
    /// The process of its QEMU, once it runs.
    qemu: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    /// It waited for its turn.
    InTurn,
    /// It did not.
    OnTop,
    /// It is ready for a test that is to come.
    Standby,
}

/// Lets a machine in: where the host has room for it, and when its turn has come. Returns how long it waited for that.
pub(crate) async fn admit(
    host: &Host,
    demand: Demand,
    turn: Turn,
    reporter: &Reporter,
) -> Result<(Slot, Duration), Error> {
    let memory = Size::from_bytes(demand.memory);
    host.check_room(memory)?;
    let (slot, waited) = Slot::take(host, demand, turn, reporter).await?;
    host.check_memory_left(memory)?;
    Ok((slot, waited))
}

impl Slot {
    /// Takes a slot, waiting for it where `turn` says so. Returns how long that took.
    pub(crate) async fn take(
        host: &Host,
        demand: Demand,
        turn: Turn,
        reporter: &Reporter,
    ) -> Result<(Slot, Duration), Error> {
        let begun = Instant::now();
        let waits = match turn {
            Turn::Always => true,
            Turn::First => OWN.load(Ordering::SeqCst) == 0,
            Turn::Never => false,
        };
        let slots = Slots::of(host);
        let slot = if waits { slots.wait(demand, reporter).await? } else { slots.add(demand, Kind::OnTop)? };
        Ok((slot, begun.elapsed()))
    }

    /// A slot for a machine that is to be ready for a test to come, where that takes nothing from anybody.
    pub(crate) async fn for_standby(host: &Host, demand: Demand) -> Result<Option<Slot>, Error> {
        let slots = Slots::of(host);
        let _gate = slots.gate().await?;
        if slots.somebody_waits()? || !Capacity::now(&host.limits).admits_standby(&slots.taken()?.present(), demand) {
            return Ok(None);
        }
        slots.add(demand, Kind::Standby).map(Some)
    }

    /// Whether others wait for what a standby takes.
    pub(crate) fn is_wanted(host: &Host) -> bool {
        Slots::of(host).somebody_waits().unwrap_or(true)
    }

    /// Makes the slot of a standby that of a machine that runs, where it would have had one at once.
    pub(crate) async fn take_turn(mut self, host: &Host) -> Result<Option<Slot>, Error> {
        let slots = Slots::of(host);
        let _gate = slots.gate().await?;
        let mut taken = slots.taken()?;
        taken.entries.retain(|entry| *entry != self.entry);
        let Entry { memory, cpus, .. } = self.entry;
        if slots.somebody_waits()? || !taken.leave_room(&host.limits, Demand { memory, cpus }) {
            return Ok(None);
        }
        OWN.fetch_add(1, Ordering::SeqCst);
        self.entry.kind = Kind::InTurn;
        let _ = self.token.rewrite(&self.entry.text());
        Ok(Some(self))
    }

    /// Says by which process the machine runs, whose memory then counts as it is.
    pub(crate) fn runs_as(&mut self, qemu: u32) {
        self.entry.qemu = Some(qemu);
        // Without it, the machine counts with all that it may come to take.
        let _ = self.token.rewrite(&self.entry.text());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.entry.kind != Kind::Standby {
            OWN.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// All slots, and those who wait for one.
struct Slots<'a> {
    host: &'a Host,
    taken: PathBuf,
    queue: PathBuf,
}

/// The slots that are taken at a moment.
struct Taken {
    names: Vec<String>,
    entries: Vec<Entry>,
}

impl<'a> Slots<'a> {
    fn of(host: &'a Host) -> Slots<'a> {
        Slots { host, taken: host.cache.slots(), queue: host.cache.queue() }
    }

    /// Waits for a slot until it is our turn and there is room.
    async fn wait(&self, demand: Demand, reporter: &Reporter) -> Result<Slot, Error> {
        let ticket = {
            let _gate = self.gate().await?;
            if !self.somebody_waits()? && self.taken()?.leave_room(&self.host.limits, demand) {
                return self.add(demand, Kind::InTurn);
            }
            Token::create(&self.queue, "").map_err(failed("join", &self.queue))?
        };
        tracing::debug!(target: "quicksand::admission", ?demand, "waiting for a slot");
        let arrived = Instant::now();
        let (mut seen, mut moved, mut told) = (Vec::new(), arrived, false);
        let slot = loop {
            let before = token::before(&self.queue, ticket.name()).map_err(failed("read", &self.queue))?;
            if before == 0 {
                let _gate = self.gate().await?;
                let taken = self.taken()?;
                if taken.leave_room(&self.host.limits, demand) {
                    // Before the ticket is given back, so that the next one sees it.
                    break self.add(demand, Kind::InTurn)?;
                }
                if taken.names != seen {
                    (seen, moved) = (taken.names, Instant::now());
                } else if moved.elapsed() > PATIENCE {
                    let owners = taken.entries.iter().map(|entry| entry.owner).collect();
                    return Err(Error::Crowded { waited: moved.elapsed(), owners });
                }
            }
            if !told && arrived.elapsed() > WORTH_TELLING {
                reporter.report("wait for other machines to end", 0, 1);
                told = true;
            }
            let places = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
            sleep(LOOK.saturating_mul(places).min(RAREST_LOOK)).await;
        };
        if told {
            reporter.report("wait for other machines to end", 1, 1);
        }
        Ok(slot)
    }

    fn add(&self, demand: Demand, kind: Kind) -> Result<Slot, Error> {
        let Demand { memory, cpus } = demand;
        let entry = Entry { kind, owner: std::process::id(), memory, cpus, qemu: None };
        let token = Token::create(&self.taken, &entry.text()).map_err(failed("take a slot in", &self.taken))?;
        if kind != Kind::Standby {
            OWN.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Slot { token, entry })
    }

    fn somebody_waits(&self) -> Result<bool, Error> {
        Ok(!token::living(&self.queue).map_err(failed("read", &self.queue))?.is_empty())
    }

    fn taken(&self) -> Result<Taken, Error> {
        let living = token::living(&self.taken).map_err(failed("read", &self.taken))?;
        // One that says nothing is not of this version.
        let entry = |living: &token::Living| serde_json::from_str(&living.content).ok();
        let entries = living.iter().filter_map(entry).collect();
        Ok(Taken { names: living.into_iter().map(|living| living.name).collect(), entries })
    }

    async fn gate(&self) -> Result<Lock, CacheError> {
        self.host.cache.lock("admission", GATE_PATIENCE).await
    }
}

impl Taken {
    fn leave_room(&self, limits: &Limits, demand: Demand) -> bool {
        let in_turn = self.entries.iter().any(|entry| entry.kind == Kind::InTurn);
        !in_turn || Capacity::now(limits).admits(&self.present(), demand)
    }

    fn present(&self) -> Vec<Present> {
        let present = |entry: &Entry| Present {
            demand: Demand { memory: entry.memory, cpus: entry.cpus },
            used: entry.qemu.map_or(0, own_memory),
            busy: entry.kind != Kind::Standby,
        };
        self.entries.iter().map(present).collect()
    }
}

impl Entry {
    /// Always of the same length, so that one can be written over another.
    fn text(&self) -> String {
        format!("{:<160}", serde_json::to_string(self).unwrap_or_default())
    }
}

/// The memory that a process has for itself, in bytes; 0 where it has ended.
fn own_memory(process: u32) -> u64 {
    // Pages: all of its addresses, those in memory, those of files among the latter.
    let text = fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let mut pages = text.split_ascii_whitespace().skip(1).map_while(|field| field.parse::<u64>().ok());
    let (resident, of_files) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(of_files) * page_size()
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError + use<> {
    CacheError::io(what, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{accel::Accel, cache::Cache, size::Size},
        qemu::Version,
    };
    use std::{
        num::NonZeroU32,
        sync::{Arc, Mutex},
    };

    const SMALL: Demand = Demand { memory: 512 << 20, cpus: 1 };

    /// A host with a cache of its own, on which so many machines run at once.
    fn host(jobs: u32) -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        let limits = Limits { jobs: NonZeroU32::new(jobs), memory: Some(Size::from_mib(100_000)) };
        let version = Version { major: 8, minor: 0, micro: 0 };
        (directory, Host { cache, qemu: "qemu".into(), version, passt: "passt".into(), accel: Accel::Auto, limits })
    }

    async fn take(host: &Host, turn: Turn) -> Slot {
        Slot::take(host, SMALL, turn, &Reporter::silent()).await.unwrap().0
    }

    fn count(path: &Path) -> usize {
        fs::read_dir(path).unwrap().count()
    }

    #[tokio::test]
    async fn slots_are_taken_in_the_order_of_arrival() {
        let (_directory, host) = host(2);
        let queue = host.cache.queue();
        let (first, second) = (take(&host, Turn::Always).await, take(&host, Turn::Always).await);
        let order = Arc::new(Mutex::new(vec![]));
        let mut waiting = vec![];
        for n in 0..5 {
            let (host, order) = (host.clone(), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                let slot = take(&host, Turn::Always).await;
                order.lock().unwrap().push(n);
                sleep(Duration::from_millis(5)).await;
                drop(slot);
            }));
            while count(&queue) <= n {
                sleep(Duration::from_millis(1)).await;
            }
        }
        assert!(order.lock().unwrap().is_empty());
        drop(first);
        sleep(Duration::from_millis(60)).await;
        drop(second);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!((count(&host.cache.slots()), count(&host.cache.queue())), (0, 0));
    }

    #[tokio::test]
    async fn whoever_does_not_wait_counts() {
        let (_directory, host) = host(2);
        let _first = take(&host, Turn::Always).await;
        let on_top = [take(&host, Turn::Never).await, take(&host, Turn::Never).await];
        let waits = tokio::time::timeout(Duration::from_millis(50), take(&host, Turn::Always));
        assert!(waits.await.is_err(), "two come on top of the first");
        assert_eq!(count(&host.cache.queue()), 0, "who gave up has left");
        drop(on_top);
        drop(take(&host, Turn::Always).await);
    }

    #[tokio::test]
    async fn the_next_one_starts_where_none_that_waited_is_left() {
        let (_directory, host) = host(1);
        let _left_running = take(&host, Turn::Never).await;
        let _alone = take(&host, Turn::Always).await;
        let larger_than_all = Demand { memory: 1 << 50, cpus: 1000 };
        drop(_alone);
        drop(Slot::take(&host, larger_than_all, Turn::Always, &Reporter::silent()).await.unwrap());
    }

    #[tokio::test]
    async fn a_slot_is_had_in_no_time_where_there_is_room() {
        let (_directory, host) = host(50);
        let _others: Vec<Slot> = {
            let mut others = vec![];
            for _ in 0..8 {
                others.push(take(&host, Turn::Always).await);
            }
            others
        };
        let mut times = vec![];
        for _ in 0..21 {
            let (slot, took) = Slot::take(&host, SMALL, Turn::Always, &Reporter::silent()).await.unwrap();
            drop(slot);
            times.push(took);
        }
        times.sort_unstable();
        assert!(times[0] < Duration::from_millis(1), "{times:?}");
    }
}
