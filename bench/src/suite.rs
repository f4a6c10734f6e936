//! A suite of fifty tests, each in a machine of its own, as a user runs it: `cargo test`.

use std::{
    env, fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{Result, results::Results};

pub(crate) const KEYS: [&str; 1] = ["suite50_wall_s"];

const RUNS: usize = 3;

pub(crate) async fn measure(results: &mut Results) -> Result<()> {
    tokio::task::spawn_blocking(run_all).await?.map(|walls| results.add("suite50_wall_s", &walls))
}

fn run_all() -> Result<Vec<f64>> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let saves = package.join(".quicksand");
    // Builds it, and makes the save that its tests start from.
    let walls = run_once(package).and_then(|_| (0..RUNS).map(|_| Ok(run_once(package)?.as_secs_f64())).collect());
    if saves.exists() {
        fs::remove_dir_all(&saves).map_err(|e| format!("remove {}: {e}", saves.display()))?;
    }
    walls
}

/// The wall time of the suite, cargo's own included.
fn run_once(package: &Path) -> Result<Duration> {
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["test", "--release", "--quiet", "--package", "quicksand-bench", "--test", "suite50", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        // What `cargo run` sets for this program is not what a user's shell has: it would have cargo build anew.
        .env_remove("LD_LIBRARY_PATH");
    let begun = Instant::now();
    let output = command.output().map_err(|e| format!("run cargo: {e}"))?;
    let wall = begun.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && text.contains("50 passed") {
        return Ok(wall);
    }
    Err(format!("the suite of fifty failed:\n{text}{}", String::from_utf8_lossy(&output.stderr)).into())
}
