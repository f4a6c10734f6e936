//! Tests in a row in one process, as `cargo test -- --test-threads=1` runs them: how long each waits for its machine.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use quicksand::{
    __private::{Start, TestMeta, Variant, run},
    Sandbox,
};

use crate::{IMAGE, Result, results::Results};

pub(crate) const KEYS: [&str; 1] = ["pool_wait_s"];

const TESTS: usize = 12;
/// The first has nothing to be made ready by, and none is made ready for the second: one test may be all that a process runs.
const FIRST: usize = 2;
/// How long each test works.
const WORK: Duration = Duration::from_millis(400);

pub(crate) async fn measure(results: &mut Results) -> Result<()> {
    // Tests have threads and runtimes of their own.
    let waits = tokio::task::spawn_blocking(|| thread::spawn(waits).join()).await?;
    let waits = waits.map_err(|_| "a test failed; what it said stands above")?;
    let ready = waits.iter().filter(|(_, ready)| *ready).count();
    results.add("pool_wait_s", &waits.iter().map(|(wait, _)| wait.as_secs_f64()).collect::<Vec<_>>());
    results.note(format!("in pool_wait_s {ready} of {} tests found their machine ready", waits.len()));
    Ok(())
}

/// What each test waited, and whether its machine was ready.
fn waits() -> Vec<(Duration, bool)> {
    let start = Start::Image(Variant::only(IMAGE));
    let meta = TestMeta::new("bench::pool", env!("CARGO_MANIFEST_DIR"), start);
    let waits = Mutex::new(Vec::new());
    for _ in 0..TESTS {
        let begun = Instant::now();
        run(&meta, async |sandbox: Sandbox| {
            let waited = begun.elapsed();
            let ready = sandbox.start_report().is_some_and(|report| report.was_ready);
            waits.lock().expect("tests in a row do not fail").push((waited, ready));
            tokio::time::sleep(WORK).await;
        });
    }
    waits.into_inner().expect("tests in a row do not fail").split_off(FIRST)
}
