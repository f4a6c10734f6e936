//! Running one test.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use quicksand_core::harness::{SandboxExt, blocking_on};
use quicksand_core::{Sandbox, blocking};
use tokio::{
    runtime::{self, Builder, Handle},
    sync::oneshot,
};

use crate::{
    body::{End, watch},
    current::{listen, listener, say},
    describe::describe,
    failure::{Cause, print_past_capture},
    meta::{Runtime, TestMeta},
    outcome::{TestOutcome, Told},
    prepare::prepare,
    setups::Abandoned,
    signals,
    test::Test,
};

/// How long a test's body may take unless its attribute says otherwise. Start and setup are not counted.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// Threads beside a test's own, so that what its machine does meanwhile, as to carry connections, goes on where the body blocks.
const WORKERS: usize = 2;
/// How long work on other threads is waited for after the test.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// How a test came out.
enum Outcome {
    Passed,
    Failed {
        cause: Cause,
        /// Where what is known of it is, and what to do. Nothing where it is to fail.
        last_words: String,
    },
}

/// Runs a test on a machine of its own.
///
/// # Panics
///
/// Where the test fails: its body panics, returns a failure or takes too long, or the machine can't be had. What is known of it is
/// then under `target/quicksand`, where the last words that the test prints say.
pub fn run<F, T>(meta: &TestMeta, body: F)
where
    F: AsyncFnOnce(Sandbox) -> T,
    T: TestOutcome,
{
    let test = Arc::new(Test::begin(meta));
    let entry = signals::Entry::new(Arc::clone(&test) as _);
    let runtime = runtime(meta.runtime);
    let outcome = runtime.block_on(carry_out(&test, meta, &entry, body));
    runtime.shutdown_timeout(SHUTDOWN);
    let (cause, last_words) = match outcome {
        Outcome::Passed => return,
        Outcome::Failed { cause, last_words } => (cause, last_words),
    };
    let reason = cause.reason();
    match cause {
        Cause::Panicked(panic) => {
            say(&last_words);
            drop(entry);
            resume_unwind(panic)
        }
        Cause::Returned(_) => {
            say(&format!("{reason}\n{last_words}"));
            resume_unwind(Box::new(reason))
        }
        Cause::DidNotPanic => say(&last_words),
        Cause::NoMachine(_) | Cause::TimedOut(_) => {
            // No panic of its own: where it would say that it is from, there is nothing to see.
            let reason = format!("{}: {reason}", meta.name);
            say(&format!("{reason}\n{last_words}"));
            resume_unwind(Box::new(reason))
        }
        Cause::Terminated { .. } => {
            // The runner no longer gets to print what it captured.
            print_past_capture(&format!("{}: {reason}\n{last_words}\n", meta.name));
            drop(entry);
            // The process ends as soon as its other tests have come this far. The runner is to start no more.
            loop {
                thread::park();
            }
        }
    }
}

async fn carry_out<F, T>(test: &Arc<Test>, meta: &TestMeta, entry: &signals::Entry, body: F) -> Outcome
where
    F: AsyncFnOnce(Sandbox) -> T,
    T: TestOutcome,
{
    let failed = async |cause: Cause| {
        let last_words = if meta.should_panic && cause.is_panic() {
            test.passed().await;
            String::new()
        } else {
            test.failed(&cause).await
        };
        Outcome::Failed { cause, last_words }
    };
    let prepared = tokio::select! {
        biased;
        prepared = prepare(meta) => prepared,
        () = entry.terminated() => return failed(Cause::Terminated { has_machine: false }).await,
    };
    let sandbox = match prepared {
        Ok(sandbox) => sandbox,
        Err(failure) => return failed(Cause::NoMachine(describe(&failure))).await,
    };
    test.has_machine(&sandbox);

    let limit = meta.timeout.unwrap_or(DEFAULT_TIMEOUT);
    let begun = Instant::now();
    // Lives to the end of this function: what a body holds that has not ended is not dropped before its machine is kept.
    let mut body = pin!(body(sandbox));
    let end = watch(body.as_mut(), limit, entry.terminated()).await;
    test.body_took(begun.elapsed());
    let cause = match end {
        End::Returned(value) => match (value.failure(), meta.should_panic) {
            (None, false) => {
                test.passed().await;
                return Outcome::Passed;
            }
            (_, true) => Cause::DidNotPanic,
            (Some(failure), false) => Cause::Returned(failure),
        },
        End::Panicked(panic) => Cause::Panicked(panic),
        End::TimedOut => Cause::TimedOut(limit),
        End::Terminated => Cause::Terminated { has_machine: true },
    };
    failed(cause).await
}

/// Runs a test that is a plain function, on a machine of its own.
///
/// It has a thread of its own, which nobody can end from outside. Its machine is ended when its time is over, with which fails
/// whatever it waits for in it.
///
/// # Panics
///
/// As [`run`].
pub fn run_blocking<T: TestOutcome>(meta: &TestMeta, body: impl FnOnce(blocking::Sandbox) -> T + Send + 'static) {
    run(meta, async |sandbox| {
        let mut machine = Abandoned(sandbox.share().ok());
        let sandbox = blocking_on(Handle::current(), sandbox);
        let (outcome, ended) = oneshot::channel();
        let listener = listener();
        let work = move || {
            if let Some(listener) = listener {
                listen(listener);
            }
            let reported = catch_unwind(AssertUnwindSafe(|| body(sandbox).failure()));
            // Nobody waits for what is too late.
            let _ = outcome.send(reported);
        };
        // What is named after a test finds the test's name, also here.
        let name = thread::current().name().unwrap_or(meta.name).to_owned();
        thread::Builder::new().name(name).spawn(work).expect("a test can have a thread");
        let reported = ended.await.expect("the thread tells its outcome");
        machine.0 = None;
        Told(reported.unwrap_or_else(|panic| resume_unwind(panic)))
    });
}

fn runtime(kind: Runtime) -> runtime::Runtime {
    let mut builder = match kind {
        Runtime::CurrentThread => Builder::new_current_thread(),
        Runtime::Default => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(WORKERS);
            builder
        }
        Runtime::MultiThread(threads) => {
            let mut builder = Builder::new_multi_thread();
            threads.map(|threads| builder.worker_threads(threads));
            builder
        }
    };
    if let Some(listener) = listener() {
        // What a task says as it panics belongs to its test.
        builder.on_thread_start(move || listen(Arc::clone(&listener)));
    }
    builder.enable_all().build().expect("a test can have a runtime")
}
