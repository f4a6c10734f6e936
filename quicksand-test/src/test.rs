//! One test while it runs, and what is kept of it when it fails.

use std::{
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use quicksand_core::harness::{KeepNote, SandboxExt};
use quicksand_core::{
    Sandbox,
    environment::{Environment, Keep},
};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::timeout,
};

use crate::{
    attempt::Attempt,
    bundle::{self, COMMANDS, Report, Times},
    current,
    describe::error_text,
    failure::{Cause, last_words, print_past_capture},
    meta::TestMeta,
    place,
    prepare::package_dir,
    signals,
};

/// How many machines of failed tests are kept.
const KEPT: usize = 5;

/// How long it may take to keep what is known of a failed test.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// To write its machine down.
    keep: Duration,
    /// For the guest to answer.
    guest: Duration,
}

const PATIENCE: Patience = Patience { keep: Duration::from_secs(60), guest: Duration::from_secs(10) };
/// cargo-nextest kills a test 10 s after it has told it to end, and the last words come after all of these.
const SHORT_PATIENCE: Patience = Patience { keep: Duration::from_secs(4), guest: Duration::from_secs(1) };

/// A test while it runs.
#[derive(Debug)]
pub(crate) struct Test {
    name: &'static str,
    package: PathBuf,
    attempt: Attempt,
    began: (SystemTime, Instant),
    /// Whether somebody sees to what is known of it.
    seen_to: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Its machine, which outlives what the body does with its handle.
    sandbox: Option<Sandbox>,
    /// What its machine's input and output go through.
    runtime: Option<Handle>,
    times: Times,
    start: Option<String>,
    start_reasons: Vec<String>,
    machine: Option<Result<String, String>>,
}

impl Test {
    /// Begins a test.
    pub(crate) fn begin(meta: &TestMeta) -> Test {
        let package = package_dir(meta.manifest_dir);
        Test {
            name: meta.name,
            attempt: Attempt::begin(meta.name, &package),
            package,
            began: (SystemTime::now(), Instant::now()),
            seen_to: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Takes note of its machine.
    pub(crate) fn has_machine(&self, sandbox: &Sandbox) {
        let activity = sandbox.activity().ok();
        if let (Some(activity), Some(directory)) = (&activity, self.attempt.directory()) {
            activity.record(&directory.join(COMMANDS));
        }
        if let Some(listener) = current::listener() {
            listener.has_machine(activity);
        }
        let mut state = self.state();
        state.sandbox = sandbox.share().ok();
        state.runtime = Handle::try_current().ok();
        state.times.prepare_s = self.began.1.elapsed().as_secs_f64();
        if let Some(report) = sandbox.start_report() {
            state.times.waited_s = report.waited.as_secs_f64();
            state.times.start_s = report.elapsed.as_secs_f64();
            state.start = Some(format!("{:?}", report.kind).to_lowercase());
            state.start_reasons = report.reasons;
        }
    }

    /// Takes note of how long its body took.
    pub(crate) fn body_took(&self, time: Duration) {
        self.state().times.body_s = time.as_secs_f64();
    }

    /// Keeps what is known of it once it has failed, and its machine. Returns the last words on it.
    pub(crate) async fn failed(&self, cause: &Cause) -> String {
        self.seen_to.store(true, Ordering::SeqCst);
        let patience = if matches!(cause, Cause::Terminated { .. }) { SHORT_PATIENCE } else { PATIENCE };
        let sandbox = self.state().sandbox.take();
        self.write_what_is_there(sandbox.as_ref(), &cause.reason());
        let keep = Environment::read().map_or(Keep::Failed, |environment| environment.keep);
        if let Some(sandbox) = &sandbox {
            if keep != Keep::Never {
                self.keep(sandbox, &cause.reason(), patience.keep).await;
                self.write_report(&cause.reason());
            }
            if let Some(directory) = self.attempt.directory() {
                bundle::write_screenshot(directory, sandbox, patience.guest).await;
                bundle::write_journal(directory, sandbox, patience.guest).await;
            }
        }
        let machine = self.state().machine.clone();
        if let (Some(listener), Some(directory)) = (current::listener(), self.attempt.directory()) {
            listener.left(directory);
        }
        self.attempt
            .directory()
            .map_or_else(String::new, |directory| last_words(self.name, cause, directory, machine.as_ref()))
    }

    /// Ends a test that passed: nothing of it stays, unless the user wants the machines of all.
    pub(crate) async fn passed(&self) {
        self.seen_to.store(true, Ordering::SeqCst);
        let sandbox = self.state().sandbox.take();
        if let Some(activity) = sandbox.as_ref().and_then(|sandbox| sandbox.activity().ok()) {
            activity.stop_recording();
        }
        let keep = || Environment::read().map(|environment| environment.keep);
        if let (Some(sandbox), Ok(Keep::Always)) = (sandbox, keep()) {
            self.keep(&sandbox, "passed", PATIENCE.keep).await;
            if let Some(Err(why)) = &self.state().machine {
                print_past_capture(&format!("{}: its machine is not kept: {why}\n", self.name));
            }
        }
        self.attempt.passed();
    }

    async fn keep(&self, sandbox: &Sandbox, end: &str, patience: Duration) {
        let begun = Instant::now();
        let note = KeepNote { test: self.name, package: &self.package, end, report: self.attempt.directory() };
        let kept = match timeout(patience, sandbox.keep(note, KEPT)).await {
            Ok(Ok(kept)) => Ok(kept.directory().to_string_lossy().into_owned()),
            Ok(Err(error)) => Err(format!("failed to {}", error_text(&error))),
            Err(_) => Err(format!("it took longer than {patience:?}")),
        };
        let mut state = self.state();
        state.times.keep_s = begun.elapsed().as_secs_f64();
        state.machine = Some(kept);
    }

    /// Writes what costs nothing to be had, before anything that takes its time: this process may not have much.
    fn write_what_is_there(&self, sandbox: Option<&Sandbox>, reason: &str) {
        self.write_report(reason);
        let Some(directory) = self.attempt.directory() else { return };
        if let Some(sandbox) = sandbox {
            if let Ok(activity) = sandbox.activity() {
                activity.stop_recording();
            }
            bundle::write_evidence(directory, sandbox);
        }
        self.attempt.failed();
        place::settle_run(directory);
    }

    fn write_report(&self, reason: &str) {
        let Some(directory) = self.attempt.directory() else { return };
        let state = self.state();
        let since = self.began.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let report = Report {
            version: 1,
            test: self.name.to_owned(),
            process: std::process::id(),
            began: since.as_secs_f64(),
            end: reason.to_owned(),
            times: state.times,
            start: state.start.clone(),
            start_reasons: state.start_reasons.clone(),
            machine: state.machine.clone(),
        };
        drop(state);
        bundle::write_report(directory, &report, reason);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl signals::Running for Test {
    fn has_noticed(&self) -> bool {
        self.seen_to.load(Ordering::SeqCst)
    }

    fn keep_what_is_known(&self) {
        let (runtime, has_machine) = {
            let state = self.state();
            (state.runtime.clone(), state.sandbox.is_some())
        };
        let cause = Cause::Terminated { has_machine };
        let words = match runtime.filter(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread) {
            Some(runtime) => runtime.block_on(self.failed(&cause)),
            // Its thread is the one that would talk to the guest.
            None => {
                let sandbox = self.state().sandbox.take();
                self.write_what_is_there(sandbox.as_ref(), &cause.reason());
                let words = self.attempt.directory().map(|directory| last_words(self.name, &cause, directory, None));
                words.unwrap_or_default()
            }
        };
        print_past_capture(&format!("{}: {}; it blocks its thread\n{words}\n", self.name, cause.reason()));
    }
}
