//! The Python peer, measured by a program of its own language in a directory that is then removed.

use std::{path::Path, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{process::Command, time::timeout};

use crate::{Result, results::Results};

pub(crate) const KEYS: [&str; 7] = [
    "peer_start_from_save_s",
    "peer_first_command_s",
    "peer_execute_s",
    "peer_start_ratio",
    "warm_ready_s",
    "warm_first_command_s",
    "exec_true_s",
];

const PROGRAM: &str = include_str!("peer.py");
/// A boot and three starts of a minute or so each, on a busy machine more.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// What the program prints.
#[derive(Debug, Deserialize)]
struct Printed {
    start: Vec<f64>,
    first_command: Vec<f64>,
    execute: Vec<f64>,
}

pub(crate) async fn measure(python: &Path, results: &mut Results) -> Result<()> {
    let directory = tempfile::tempdir()?;
    // It is run elsewhere, where a relative path means another file; a bare name is looked up on the path.
    let python = if python.components().count() > 1 { std::path::absolute(python)? } else { python.to_owned() };
    let mut command = Command::new(&python);
    command.args(["-c", PROGRAM]).current_dir(directory.path()).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.map_err(|_| "the peer takes too long")?;
    let output = output.map_err(|e| format!("run {}: {e}", python.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let printed = text.lines().last().and_then(|line| serde_json::from_str::<Printed>(line).ok());
    let Some(printed) = printed.filter(|_| output.status.success()) else {
        return Err(format!("the peer failed:\n{text}{}", String::from_utf8_lossy(&output.stderr)).into());
    };
    results.add("peer_start_from_save_s", &printed.start);
    results.add("peer_first_command_s", &printed.first_command);
    results.add("peer_execute_s", &printed.execute);
    if let (Some(peer), Some(ours)) = (results.get("peer_start_from_save_s"), results.get("warm_ready_s")) {
        results.add("peer_start_ratio", &[peer / ours]);
    }
    Ok(())
}
