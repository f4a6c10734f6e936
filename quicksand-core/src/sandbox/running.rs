//! [`Running`]: a sandbox that runs, by one machine after the other.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quicksand_protocol::message::Done;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard, watch},
    task::JoinHandle,
};

use super::{
    Links, StartReport, attach,
    links::Current,
    vnc::{Listener, Vnc},
};
use crate::{
    base::printed::last_lines,
    error::{
        Error, Result,
        start::{StartCause, StartError},
    },
    guest::{ChannelError, command_log::CommandLog},
    host::{Host, admission::Slot},
    image::state::State,
    launch::{kernel::Boots, source},
    vm::{End, Identity, Outside, Rebooter, Restarts, Vm, Warnings},
};

/// How long a machine runs that does not reboot again and again.
const STEADY: Duration = Duration::from_secs(300);
/// How many lines of the consoles of earlier machines are kept.
const EARLIER_LINES: usize = 1000;

/// A sandbox that runs.
#[derive(Debug)]
pub(super) struct Running {
    /// The machine by which it runs now: a reboot or a return to a checkpoint puts another in its place.
    vm: Arc<Mutex<Arc<Vm>>>,
    /// Its connections to the host.
    pub(super) links: Links,
    /// Whether that is being done, and what the sandbox has outside of the machine is still missing.
    half_way: AtomicBool,
    /// Told whenever that happens.
    replaced: Arc<Notify>,
    /// Held by whoever writes the machine down or puts another in its place.
    changing: Arc<AsyncMutex<()>>,
    /// Whether the sandbox that runs by it has gone.
    closed: watch::Sender<bool>,
    /// How many times it was to go back to a checkpoint, for which nobody waits for a machine that boots.
    returns: watch::Sender<u64>,
    reboots: AtomicU64,
    /// The last of them that nobody asked for.
    restarts: Mutex<Restarts>,
    /// Why its machine is not booted any more when the guest has rebooted.
    given_up: Mutex<Option<Box<StartError>>>,
    /// What the consoles of earlier machines said last.
    earlier_console: Mutex<String>,
    /// What its machine is given at each of its starts.
    pub(super) outside: Outside,
    /// Who may look at its display.
    pub(super) viewers: Option<Vnc>,
    boots: Boots,
    /// The state that the sandbox started from, or for a twin the first of those that it comes from.
    pub(super) begun: Option<State>,
    /// Its checkpoints by tag, in the order in which they were made.
    pub(super) checkpoints: Mutex<Vec<(String, State)>>,
    /// What was run in it, in whichever machine.
    pub(super) commands: Arc<CommandLog>,
    #[cfg(feature = "mounts")]
    pub(super) mounts: super::mounts::Mounts,
    pub(super) host: Host,
    pub(super) why_not_better: Option<String>,
    /// As far as it was known at the end of its start.
    report: StartReport,
    /// Of the machine by which it started.
    first_warnings: Arc<Warnings>,
    /// Where viewers of its display come to, once it has asked for that.
    pub(super) vnc: OnceLock<Listener>,
    /// After the machine, which is gone before its place is free.
    slot: Mutex<Slot>,
}

/// The right to write a machine down or to put another in its place.
#[derive(Debug)]
pub(super) struct Change {
    _guard: OwnedMutexGuard<()>,
}

impl Running {
    pub(super) fn new(
        vm: Vm,
        (outside, viewers, boots): (Outside, Option<Vnc>, Boots),
        host: Host,
        why_not_better: Option<String>,
        report: StartReport,
        slot: Slot,
        links: Links,
    ) -> Running {
        let begun = vm.origin().cloned();
        let first_warnings = Arc::clone(vm.warnings());
        Running {
            vm: Arc::new(Mutex::new(Arc::new(vm))),
            links,
            half_way: AtomicBool::new(false),
            replaced: Arc::default(),
            changing: Arc::default(),
            closed: watch::Sender::new(false),
            returns: watch::Sender::new(0),
            reboots: AtomicU64::new(0),
            restarts: Mutex::default(),
            given_up: Mutex::default(),
            earlier_console: Mutex::default(),
            outside,
            viewers,
            boots,
            begun,
            checkpoints: Mutex::default(),
            #[cfg(feature = "mounts")]
            mounts: Default::default(),
            commands: Arc::default(),
            host,
            why_not_better,
            report,
            first_warnings,
            vnc: OnceLock::new(),
            slot: Mutex::new(slot),
        }
    }

    /// Gives it mounts, which are put on when its machine is attached.
    #[cfg(feature = "mounts")]
    pub(super) fn with_mounts(self, mounts: super::mounts::Mounts) -> Running {
        Running { mounts, ..self }
    }

    /// Adds to the report of its start what could not be done for the guest.
    pub(super) fn with_warnings(mut self) -> Running {
        self.report.warnings = self.vm().warnings().all();
        self
    }

    /// What its start did, as far as it is known by now.
    pub(super) fn report(&self) -> StartReport {
        let mut report = self.report.clone();
        let late = self.first_warnings.late().into_iter().filter(|late| !self.report.warnings.contains(late));
        report.warnings.extend(late);
        report
    }

    /// Another like it, by another machine.
    pub(super) async fn twin(&self, vm: Vm, outside: Outside, report: StartReport, mut slot: Slot) -> Running {
        slot.runs_as(vm.process().pid());
        vm.describe(&outside.source);
        let links = self.links.twin(&outside).await;
        // There is only one socket of a path.
        let viewers = self.viewers.clone().filter(|vnc| matches!(vnc, Vnc::Tcp));
        let given = (outside, viewers, self.boots);
        let twin = Running::new(vm, given, self.host.clone(), self.why_not_better.clone(), report, slot, links);
        #[cfg(feature = "mounts")]
        let twin = twin.with_mounts(self.mounts.for_twin());
        Running { begun: self.begun.clone(), ..twin }
    }

    /// The machine by which it runs now.
    pub(super) fn vm(&self) -> Arc<Vm> {
        Arc::clone(&lock(&self.vm))
    }

    /// The same for tasks that do not keep it alive.
    pub(super) fn current(&self) -> Current {
        Current::new(&self.vm)
    }

    /// The machine by which it runs. One that the guest has rebooted is waited for.
    pub(super) async fn ready(self: &Arc<Self>) -> Result<Arc<Vm>> {
        let vm = self.vm();
        if vm.process().is_running() && !self.half_way.load(Ordering::SeqCst) {
            return Ok(vm);
        }
        let running = Arc::clone(self);
        // In a box: whatever is asked of a sandbox has this future within its own.
        Box::pin(to_the_end(async move { running.revive().await })).await
    }

    /// Waits until nobody changes the machine, and boots it again where the guest has rebooted.
    async fn revive(&self) -> Result<Arc<Vm>> {
        // From before the wait, after which it may be too late.
        let mut returns = self.returns.subscribe();
        let change = self.change().await;
        let vm = self.vm();
        if vm.process().is_running() {
            // Somebody else was faster.
            return Ok(vm);
        }
        match vm.end().await {
            End::Reboot => {
                if let Some(error) = &*lock(&self.given_up) {
                    return Err(error.clone().into());
                }
                self.count_reboot(&vm)?;
                tokio::select! {
                    biased;
                    _ = returns.changed() => Err(ChannelError::Reverted.into()),
                    booted = self.unless_closed(self.boot_again(&change)) => booted,
                }
            }
            End::Final => Err(vm.ended_error().await),
        }
    }

    /// Counts a reboot of the guest's own, unless a command had it do that. Fails where it is one too many.
    fn count_reboot(&self, ended: &Vm) -> Result<()> {
        let life = ended.life();
        if life.mark_counted() {
            return Ok(());
        }
        let by = Rebooter::find(&ended.console_tail(EARLIER_LINES));
        let asked = by.as_ref().map_or(life.was_used(), Rebooter::is_a_command);
        let mut restarts = lock(&self.restarts);
        if asked || life.age() > STEADY {
            restarts.clear();
        }
        if !asked {
            restarts.add(by);
        }
        if restarts.is_loop() { Err(self.give_up(ended.reboot_loop(restarts.cause()))) } else { Ok(()) }
    }

    /// Boots no more when the guest has rebooted: each time would take as long as this one.
    fn give_up(&self, error: Box<StartError>) -> Error {
        *lock(&self.given_up) = Some(error.clone());
        error.into()
    }

    /// Begins to count anew.
    fn forget_reboots(&self) {
        lock(&self.restarts).clear();
        *lock(&self.given_up) = None;
    }

    /// Has the guest go down, and boots it from the disk that it leaves. Where it has ended, it is just booted.
    pub(super) async fn reboot(&self) -> Result<()> {
        let change = self.change().await;
        let vm = self.vm();
        self.forget_reboots();
        self.unless_closed(async {
            let warning = if vm.process().is_running() {
                vm.go_down().await.map_err(Error::io("end", Path::new("QEMU")))?
            } else {
                None
            };
            let booted = self.boot_again(&change).await;
            if let Some(warning) = warning {
                self.vm().warnings().add(Done::ButFor(vec![warning]));
            }
            booted.map(drop)
        })
        .await
    }

    /// Carries out `work`, but not where the sandbox that it is for goes meanwhile.
    async fn unless_closed<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            done = work => done,
            _ = closed.wait_for(|closed| *closed) => Err(Error::NotRunning),
        }
    }

    /// Breaks off the boot of a guest that has rebooted: what it would lead to is thrown away.
    pub(super) fn is_to_return(&self) {
        self.returns.send_modify(|count| *count += 1);
    }

    async fn boot_again(&self, _change: &Change) -> Result<Arc<Vm>> {
        let ended = self.vm();
        let image = ended.origin().ok_or(Error::NotRunning)?.image();
        let boot = source::boot(&self.host, image, ended.machine().accelerator, self.boots)?;
        let mut restarts = lock(&self.restarts).clone();
        let booted = Vm::boot_again(&self.host, &ended, &boot, &self.outside, &mut restarts).await;
        *lock(&self.restarts) = restarts;
        let (vm, unsettled) = match booted {
            Err(Error::Start(error)) if matches!(error.cause, StartCause::RebootLoop { .. }) => {
                return Err(self.give_up(error));
            }
            booted => booted?,
        };
        self.reboots.fetch_add(1, Ordering::SeqCst);
        let vm = self.go_on_by(vm).await?;
        // Told once, to whoever waited: the machine can be used all the same.
        unsettled.map_or(Ok(vm), Err)
    }

    /// How many times the machine was booted since the sandbox started.
    pub(super) fn reboots(&self) -> u64 {
        self.reboots.load(Ordering::SeqCst)
    }

    /// The last lines of the consoles of its machines.
    pub(super) fn console_tail(&self, lines: usize) -> String {
        let now = self.vm().console_tail(lines);
        let missing = lines.saturating_sub(now.lines().count());
        match last_lines(&lock(&self.earlier_console), missing) {
            earlier if earlier.is_empty() => now,
            earlier => format!("{earlier}\n{now}"),
        }
    }

    /// Puts a machine in the place of one that has ended, with all that the sandbox has outside of it.
    async fn go_on_by(&self, vm: Vm) -> Result<Arc<Vm>> {
        struct Way<'a>(&'a AtomicBool);
        impl Drop for Way<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::SeqCst);
            }
        }
        self.half_way.store(true, Ordering::SeqCst);
        let _way = Way(&self.half_way);
        self.replace(vm);
        attach::attach(self).await?;
        Ok(self.vm())
    }

    fn replace(&self, vm: Vm) {
        lock(&self.slot).runs_as(vm.process().pid());
        vm.describe(&self.outside.source);
        let old = std::mem::replace(&mut *lock(&self.vm), Arc::new(vm));
        let mut earlier = lock(&self.earlier_console);
        let all = format!("{earlier}\n{}", old.console_tail(EARLIER_LINES));
        *earlier = last_lines(&all, EARLIER_LINES);
        self.replaced.notify_one();
    }

    /// Waits until nobody else changes the machine.
    pub(super) async fn change(&self) -> Change {
        Change { _guard: Arc::clone(&self.changing).lock_owned().await }
    }

    /// Throws its machine away and goes on by a clone of `state`, which is of the same machine.
    pub(super) async fn go_back_to(&self, state: &State, _change: &Change) -> Result<()> {
        // First, since what the old one holds of the host, as ports, is the new one's.
        self.forget_reboots();
        self.vm().discard(ChannelError::Reverted).await.map_err(Error::io("end", Path::new("QEMU")))?;
        let vm = Vm::restore(&self.host, state, &self.outside, Identity::Same).await?;
        self.go_on_by(vm).await.map(drop)
    }
}

/// Boots a machine again as soon as its guest has rebooted it, for as long as the sandbox runs.
#[derive(Debug)]
pub(super) struct Watcher {
    running: Arc<Running>,
    task: JoinHandle<()>,
}

impl Watcher {
    pub(super) fn over(running: &Arc<Running>) -> Watcher {
        let (watched, replaced) = (Arc::downgrade(running), Arc::clone(&running.replaced));
        let task = tokio::spawn(async move {
            // The machine itself is not held here, so that it goes with the sandbox.
            while let Some(ended) = watched.upgrade().map(|running| running.vm().process().ended()) {
                ended.await;
                let Some(running) = watched.upgrade() else { return };
                if let Err(error) = to_the_end(async move { running.revive().await }).await {
                    // Told to whoever uses the sandbox next, who may try again or return to a checkpoint.
                    tracing::debug!(target: "quicksand::vm", %error, "not booted again");
                    replaced.notified().await;
                }
            }
        });
        Watcher { running: Arc::clone(running), task }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
        self.running.closed.send_replace(true);
        if let Some(listener) = self.running.vnc.get() {
            listener.close();
        }
    }
}

/// Carries `work` to its end, also where the caller no longer waits for it: broken off, it would leave the guest stopped or gone.
pub(super) async fn to_the_end<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down.
        Err(_) => Err(Error::NotRunning),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
