//! Running one test.

use std::time::Duration;

use quicksand_core::Sandbox;
use tokio::{
    runtime::{self, Builder},
    time::timeout,
};

use crate::{
    describe::describe,
    meta::{Runtime, TestMeta},
    prepare::prepare,
};

/// How long a test's body may take unless its attribute says otherwise. Start and setup are not counted.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// Threads beside a test's own, so that what its machine does meanwhile, as to carry connections, goes on where the body blocks.
const WORKERS: usize = 2;
/// How long work on other threads is waited for after the test.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Runs a test on a machine of its own.
///
/// # Panics
///
/// Where the machine can't be had, or the body takes too long: the test fails.
pub fn run<F, T>(meta: &TestMeta, body: F) -> T
where
    F: AsyncFnOnce(Sandbox) -> T,
{
    let runtime = runtime(meta.runtime);
    let outcome = runtime.block_on(async {
        let sandbox = match prepare(meta).await {
            Ok(sandbox) => sandbox,
            Err(failure) => panic!("{}: {}", meta.name, describe(&failure)),
        };
        let limit = meta.timeout.unwrap_or(DEFAULT_TIMEOUT);
        match timeout(limit, body(sandbox)).await {
            Ok(outcome) => outcome,
            Err(_) => panic!(
                "{}: the test's body took longer than {limit:?}; a longer time is given with timeout = \"..\"",
                meta.name
            ),
        }
    });
    runtime.shutdown_timeout(SHUTDOWN);
    outcome
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
    builder.enable_all().build().expect("a test can have a runtime")
}
