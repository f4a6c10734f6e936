//! Waiting until a guest that boots is up and idle, and saying what it waits for where it does not come up.

use std::time::Duration;

use quicksand_protocol::message::{Exec, Network, Request, Settle};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep, timeout},
};

use super::Vm;
use crate::{
    base::printed::printable,
    error::{
        Error,
        start::{Stage, StartCause},
    },
    guest::ChannelError,
    network::passt::{DNS, GATEWAY},
    qemu::machine::NetworkMode,
};

/// How long the guest is given to fall idle after its init says that it is up.
pub(super) const IDLE_PATIENCE: Duration = Duration::from_secs(20);

/// A guest counts as idle when its QEMU uses less than this share of one core.
pub(super) const IDLE_SHARE: f64 = 0.10;

/// How long a guest that does not come up may take to say what it waits for, how much of that is read, and how much told.
pub(super) const JOBS_PATIENCE: Duration = Duration::from_secs(10);
pub(super) const JOBS_LIMIT: u64 = 64 << 10;
pub(super) const JOBS_SHOWN: usize = 10;

/// What a guest is told of its network, whose card has its address.
pub(super) fn guest_network(mode: NetworkMode) -> Network {
    match mode {
        NetworkMode::None => Network::None,
        NetworkMode::MountsOnly => Network::Keep,
        NetworkMode::Full => Network::Online { gateway: GATEWAY, dns: DNS },
    }
}

impl Vm {
    /// Waits until the init has started what it is to start.
    pub(super) async fn come_up(&self, settle: Settle) -> Result<(), StartCause> {
        let mut settled = self.channel.start(&Request::Settle(settle)).map_err(StartCause::Channel)?;
        settled.reply().await.map(drop).map_err(StartCause::Channel)
    }
}

/// Adds to the error of a guest that does not come up what its systemd still waits for, where it has one that says.
pub(super) async fn name_jobs(vm: &Vm, error: Error) -> Error {
    let Error::Start(mut error) = error else { return error };
    if let (Stage::Settle, &StartCause::TooLong(waited)) = (error.stage, &error.cause)
        && let Ok(Some(jobs)) = timeout(JOBS_PATIENCE, running_jobs(vm)).await
    {
        error.cause = StartCause::Unfinished { waited, jobs };
    }
    error.into()
}

pub(super) async fn running_jobs(vm: &Vm) -> Option<String> {
    let argv = ["systemctl", "list-jobs", "--no-legend", "--plain"].map(|word| word.as_bytes().to_vec()).to_vec();
    let mut operation = vm.channel.start(&Request::Exec(Exec { argv, ..Exec::default() })).ok()?;
    let mut printed = Vec::new();
    operation.stdout.take()?.take(JOBS_LIMIT).read_to_end(&mut printed).await.ok()?;
    let printed = String::from_utf8_lossy(&printed);
    // Number, unit, kind and state: those that wait do so for one that runs.
    let units = printed.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let unit = words.next()?;
        (words.nth(1)? == "running").then(|| printable(unit))
    });
    let units = units.take(JOBS_SHOWN).collect::<Vec<_>>().join(", ");
    (!units.is_empty()).then_some(units)
}

/// Waits until the guest is idle. A freeze before that would make every clone slow.
pub(super) async fn fall_idle(vm: &Vm) -> Result<(), StartCause> {
    let deadline = Instant::now() + IDLE_PATIENCE;
    let mut last = vm.process.cpu_time();
    let step = Duration::from_millis(400);
    while Instant::now() < deadline {
        sleep(step).await;
        let now = vm.process.cpu_time();
        if (now.saturating_sub(last)).as_secs_f64() < IDLE_SHARE * step.as_secs_f64() {
            break;
        }
        last = now;
    }
    // What the first command of a clone needs is then in the guest's page cache.
    for _ in 0..3 {
        warm_up(vm).await?;
    }
    Ok(())
}

/// Runs a program for the sake of running it. An image need not have a shell.
pub(super) async fn warm_up(vm: &Vm) -> Result<(), StartCause> {
    let argv = ["/bin/sh", "-c", "/bin/true"].map(|word| word.as_bytes().to_vec()).to_vec();
    let exec = Exec { argv, ..Exec::default() };
    let mut operation = vm.channel.start(&Request::Exec(exec)).map_err(StartCause::Channel)?;
    match operation.reply().await {
        Ok(_) | Err(ChannelError::Guest { .. }) => Ok(()),
        Err(error) => Err(StartCause::Channel(error)),
    }
}
