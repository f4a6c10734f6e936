//! Directories of the host in a guest: how soon they are there, a long listing, a large file each way.

use std::{fs, path::Path, time::Instant};

use quicksand::{Mount, Sandbox};

use crate::{
    IMAGE, Result,
    clones::{expect_warm, run_true},
    results::{Results, median},
};

pub(crate) const KEYS: [&str; 4] = ["mount_ready_s", "mount_ls_10000_s", "mount_read_mb_s", "mount_write_mb_s"];

const RUNS: usize = 5;
const FILES: usize = 10_000;
/// Of the file that is read and of the one that is written, in MB of 10^6 bytes.
const READ: usize = 100;
const WRITTEN: usize = 50;

pub(crate) async fn measure(results: &mut Results) -> Result<()> {
    let directory = tempfile::tempdir()?;
    fill(directory.path())?;
    let (mut ready, mut listed, mut read, mut written) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut long, mut unmounted) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        // A new clone for each: what it has seen it would else remember.
        let sandbox = Sandbox::builder(IMAGE).start().await?;
        expect_warm(&sandbox)?;
        run_true(&sandbox).await?;
        let begun = Instant::now();
        let mount = sandbox.mount(Mount::new(directory.path(), "/mnt/host")).await?;
        ready.push(begun.elapsed().as_secs_f64());
        read.push(READ as f64 / timed(&sandbox, "cat /mnt/host/large > /dev/null", "").await?);
        let write = format!("dd if=/dev/zero of=/mnt/host/new bs=1000000 count={WRITTEN} conv=fsync status=none");
        written.push(WRITTEN as f64 / timed(&sandbox, &write, "").await?);
        // Last: the guest forgets so many files again before its next command.
        listed.push(timed(&sandbox, "ls /mnt/host/many | wc -l", "10000\n").await?);
        long.push(timed(&sandbox, "ls -l /mnt/host/many | wc -l", "10001\n").await?);
        let begun = Instant::now();
        sandbox.unmount(mount).await?;
        unmounted.push(begun.elapsed().as_secs_f64());
        sandbox.stop().await?;
        fs::remove_file(directory.path().join("new"))?;
    }
    results.add("mount_ready_s", &ready);
    results.add("mount_ls_10000_s", &listed);
    results.add("mount_read_mb_s", &read);
    results.add("mount_write_mb_s", &written);
    let [long, unmounted] = [long, unmounted].map(|times| median(&times).unwrap_or_default());
    results.note(format!("on a mount ls -l of 10,000 files takes {long:.2} s; taking it off takes {unmounted:.2} s"));
    Ok(())
}

fn fill(directory: &Path) -> Result<()> {
    let many = directory.join("many");
    fs::create_dir(&many)?;
    for number in 0..FILES {
        fs::write(many.join(format!("file-{number}")), "")?;
    }
    fs::write(directory.join("large"), vec![b'x'; READ * 1_000_000])?;
    Ok(())
}

/// The seconds that a line takes in the guest. It must print that.
async fn timed(sandbox: &Sandbox, line: &str, printed: &str) -> Result<f64> {
    let begun = Instant::now();
    let output = sandbox.execute(line).await?;
    let elapsed = begun.elapsed().as_secs_f64();
    if output.success() && output.stdout == printed { Ok(elapsed) } else { Err(format!("{line}: {output:?}").into()) }
}
