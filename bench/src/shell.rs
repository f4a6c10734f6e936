//! The command `quicksand`, as a person at a shell waits for it.

use std::{
    env,
    process::{Command, Stdio},
    time::Instant,
};

use crate::{IMAGE, Result, options::Options, results::Results};

pub(crate) const KEYS: [&str; 1] = ["run_true_s"];

pub(crate) async fn measure(options: &Options, results: &mut Results) -> Result<()> {
    let runs = options.runs;
    let seconds =
        tokio::task::spawn_blocking(move || (0..=runs).map(|_| run_once()).collect::<Result<Vec<_>>>()).await??;
    // The first one may have had to boot the machine that this command asks for.
    results.add("run_true_s", &seconds[1..]);
    Ok(())
}

/// The wall time of the whole process.
fn run_once() -> Result<f64> {
    let program = env::current_exe()?.with_file_name("quicksand");
    let mut command = Command::new(&program);
    command.args(["run", IMAGE, "--", "true"]).stdin(Stdio::null());
    let begun = Instant::now();
    let output = command.output().map_err(|e| format!("run {}: {e}", program.display()))?;
    let seconds = begun.elapsed().as_secs_f64();
    if output.status.success() {
        return Ok(seconds);
    }
    Err(format!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr)).into())
}
