//! Saves of a guest at work.

use std::fs;

use quicksand::Sandbox;

use crate::{IMAGE, Result, clones::expect_warm, floor::cache_of, options::Options, results::Results};

pub(crate) const KEYS: [&str; 1] = ["save_pause_s"];

const LEAST_SAVES: usize = 10;
/// What the guest did before it is saved: 10 MB of memory changed, and a few programs run.
const WORK: &str = "head -c 10000000 /dev/urandom >/dev/shm/work; ls -lR /etc >/root/list; sort /root/list | tail -n 1";

pub(crate) async fn measure(options: &Options, results: &mut Results) -> Result<()> {
    // On the file system of the cache, where the disk's files are shared instead of copied. That is no part of the pause, but of
    // what a save writes meanwhile.
    let probe = Sandbox::builder(IMAGE).start().await?;
    let cache = cache_of(probe.qemu_pid().ok_or("the clone has ended")?)?;
    probe.stop().await?;
    let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(cache)?;
    let sandbox = Sandbox::builder(IMAGE).saves_dir(directory.path()).start().await?;
    expect_warm(&sandbox)?;
    sandbox.execute(WORK).await?.check()?;
    let mut pauses = Vec::new();
    for number in 0..options.runs.max(LEAST_SAVES) {
        let report = sandbox.save(&format!("bench-{number}")).await?;
        pauses.push(report.pause.as_secs_f64());
        // Each is as large as the guest's memory.
        fs::remove_dir_all(&report.directory)?;
    }
    sandbox.stop().await?;
    results.add("save_pause_s", &pauses);
    Ok(())
}
