//! Which frozen state serves a start, and the way from there to a machine that runs.

pub(crate) mod accel;
mod bring_up;
pub(crate) mod kernel;
pub(crate) mod source;
pub(crate) mod standby;

use std::{pin::Pin, time::Duration};

use crate::{
    base::{accel::Accel, progress::Reporter, size::Size},
    error::{Error, Result},
    host::{
        Host,
        admission::{Demand, Slot, Turn, admit},
    },
    qemu::machine::Machine,
    vm::{Identity, Outside, Probe, Vm},
};
use accel::Choice;
use kernel::Boots;
use source::Source;
use standby::Ready;

/// Memory of a guest unless it is told otherwise.
pub const DEFAULT_MEMORY: Size = Size::from_mib(512);

/// How a sandbox came to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartKind {
    /// Cloned from a frozen state that was there.
    Warm,
    /// Booted from a save's disk, since the save's memory could not be used.
    Disk,
    /// Booted from an image, whose state is now kept for the next time.
    Cold,
}

/// What is ordered of a machine. What is left open is as in its source, or the default.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) memory: Option<Size>,
    pub(crate) cpus: Option<u32>,
    pub(crate) disk_size: Option<Size>,
    pub(crate) accel: Accel,
    pub(crate) display: Option<bool>,
    pub(crate) extra_arguments: Vec<String>,
    pub(crate) boots: Boots,
    pub(crate) identity: Identity,
    pub(crate) turn: Turn,
    /// A machine that was made ready before.
    pub(crate) ready: Ready,
    pub(crate) outside: Outside,
    pub(crate) reporter: Reporter,
}

/// A machine that runs, and how it came to that.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) vm: Vm,
    pub(crate) kind: StartKind,
    /// Why nothing faster was done.
    pub(crate) reasons: Vec<String>,
    /// How long it waited for its turn.
    pub(crate) waited: Duration,
    pub(crate) was_ready: bool,
    /// Why nothing faster carries out the guest's instructions.
    pub(crate) why_not_better: Option<String>,
    /// After the machine, which is gone before its place is free.
    pub(crate) slot: Slot,
}

impl Order {
    /// An order of a machine that others are made with, in which nothing is asked for.
    pub(crate) fn plain(name: &str, boots: Boots, reporter: &Reporter) -> Order {
        Order {
            memory: None,
            cpus: None,
            disk_size: None,
            accel: Accel::default(),
            display: None,
            extra_arguments: Vec::new(),
            boots,
            identity: Identity::New,
            turn: Turn::default(),
            ready: Ready::default(),
            outside: Outside { source: name.to_owned(), ..Outside::default() },
            reporter: reporter.clone(),
        }
    }

    /// What it takes of the host.
    pub(crate) fn demand(&self, source: &Source) -> Demand {
        let saved = source.machine();
        let memory = self.memory.map(Size::bytes).or(saved.map(|machine| machine.memory));
        let cpus = self.cpus.or(saved.map(|machine| machine.cpus));
        Demand { memory: memory.unwrap_or(DEFAULT_MEMORY.bytes()), cpus: cpus.unwrap_or(1) }
    }

    /// The machine itself, by the accelerator that works here, and why nothing faster does.
    pub(crate) async fn machine(&self, host: &Host, source: &Source) -> Result<(Machine, Option<String>)> {
        let probe_files = source::probe_files(host, &source.image())?;
        let Choice { accelerator, why_not_better } = accel::choose(host, self.accel, Probe::of(&probe_files)).await?;
        let Demand { memory, cpus } = self.demand(source);
        let display = self.display.unwrap_or(source.machine().is_some_and(|machine| machine.display));
        let extra_arguments = self.extra_arguments.clone();
        Ok((Machine { memory, cpus, accelerator, display, extra_arguments }, why_not_better))
    }
}

/// Brings up a machine of that source, when its turn has come.
// Boxed, since it is deep, and the compiler follows the futures that have it within theirs only so far.
pub(crate) fn launch<'a>(
    host: &'a Host,
    source: &'a Source,
    order: &'a Order,
) -> Pin<Box<dyn Future<Output = Result<Launched>> + Send + 'a>> {
    Box::pin(carry_out(host, source, order))
}

async fn carry_out(host: &Host, source: &Source, order: &Order) -> Result<Launched> {
    let least = Size::from_bytes(source.disk_size());
    let disk_size = order.disk_size.unwrap_or(least);
    if disk_size < least {
        return Err(Error::DiskTooSmall { wanted: disk_size, least });
    }
    let demand = order.demand(source);
    let (ready, mut slot, waited) = match order.ready.take(host, demand).await? {
        Some((ready, slot)) => (Some(ready), slot, Duration::ZERO),
        None => {
            let (slot, waited) = admit(host, demand, order.turn, &order.reporter).await?;
            (None, slot, waited)
        }
    };
    let (machine, why_not_better) = order.machine(host, source).await?;
    let (vm, kind, reasons, was_ready) = order.bring_up(host, source, &machine, ready).await?;
    vm.grow_disk(disk_size.bytes()).await?;
    for reason in &reasons {
        tracing::warn!(source = order.outside.source, reason, "a slower start");
    }
    slot.runs_as(vm.process().pid());
    vm.describe(&order.outside.source);
    Ok(Launched { vm, kind, reasons, waited, was_ready, why_not_better, slot })
}
