//! Clones of the frozen image: how fast they start, beside QEMU alone, and how much memory they have for themselves.

use std::{fs, time::Instant};

use quicksand::{Sandbox, StartKind};

use crate::{
    IMAGE, Result,
    floor::Floor,
    options::Options,
    results::{Results, median},
};

pub(crate) const KEYS: [&str; 4] = ["floor_s", "warm_ready_s", "warm_first_command_s", "clone_private_mb"];

/// Measures clones and QEMU alone in turns, so that whatever else the machine does falls on both.
pub(crate) async fn measure(options: &Options, results: &mut Results) -> Result<()> {
    let (mut floors, mut ready, mut first) = (Vec::new(), Vec::new(), Vec::new());
    let (mut dirty, mut clean) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        let begun = Instant::now();
        let sandbox = Sandbox::builder(IMAGE).start().await?;
        ready.push(begun.elapsed().as_secs_f64());
        run_true(&sandbox).await?;
        first.push(begun.elapsed().as_secs_f64());
        expect_warm(&sandbox)?;

        let pid = sandbox.qemu_pid().ok_or("the clone has ended")?;
        let own = OwnMemory::of(pid)?;
        dirty.push(own.dirty);
        clean.push(own.clean);

        // Its command line names the files of the clone, which are there for as long as it runs.
        let floor = Floor::from_running(pid)?;
        sandbox.stop().await?;
        floors.push(tokio::task::spawn_blocking(move || floor.measure()).await??.as_secs_f64());
    }
    results.add("floor_s", &floors);
    results.add("warm_ready_s", &ready);
    results.add("warm_first_command_s", &first);
    results.add("clone_private_mb", &dirty);
    if options.wants(&["warm_ready_s"]) {
        let ratios: Vec<f64> = ready.iter().zip(&floors).map(|(ready, floor)| ready / floor).collect();
        let ratio = median(&ratios).unwrap_or_default();
        results.note(format!("warm_ready_s is {ratio:.2} × floor_s, as the median of runs in turns"));
    }
    if options.wants(&["clone_private_mb"]) {
        let clean = median(&clean).unwrap_or_default();
        results.note(format!(
            "clone_private_mb is Private_Dirty, what a further clone adds; Private_Clean is {clean:.1} MB more, pages of \
             files that other clones would share and the kernel can drop"
        ));
    }
    Ok(())
}

/// Runs `/bin/true` in the guest.
pub(crate) async fn run_true(sandbox: &Sandbox) -> Result<()> {
    sandbox.command("/bin/true").output().await?.check()?;
    Ok(())
}

/// Fails where a sandbox was booted: its figures would be those of another thing.
pub(crate) fn expect_warm(sandbox: &Sandbox) -> Result<()> {
    match sandbox.start_report() {
        Some(report) if report.kind == StartKind::Warm => Ok(()),
        report => Err(format!("this start should have been warm: {report:?}").into()),
    }
}

/// What a process has for itself, in MB of 10^6 bytes.
///
/// `dirty` is what a clone costs: pages that it wrote or that hold a copy of its own, of guest memory and of QEMU. `clean`
/// are pages of files (guest memory that was only read, QEMU's program) that happen to be mapped by no other process at
/// this moment. With a second clone of the same state they count as shared, and without memory to spare the kernel
/// drops them; so they are no price of a clone and only noted.
#[derive(Debug, PartialEq)]
struct OwnMemory {
    dirty: f64,
    clean: f64,
}

impl OwnMemory {
    fn of(pid: u32) -> Result<OwnMemory> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).map_err(|e| format!("read {path}: {e}"))?;
        OwnMemory::parse(&text).ok_or_else(|| format!("{path} is not as the kernel writes it: {text:?}").into())
    }

    fn parse(smaps: &str) -> Option<OwnMemory> {
        let megabytes = |name: &str| {
            let line = smaps.lines().find_map(|line| line.strip_prefix(name))?;
            // proc(5) says kB and means KiB.
            Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0 / 1e6)
        };
        Some(OwnMemory { dirty: megabytes("Private_Dirty:")?, clean: megabytes("Private_Clean:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_read() {
        let smaps = "5500-7fff ---p 00000000 00:00 0 [rollup]\nRss:  9 kB\nPrivate_Clean:      1000 kB\nPrivate_Dirty: 62500 kB\n";
        assert_eq!(OwnMemory::parse(smaps), Some(OwnMemory { dirty: 64.0, clean: 1.024 }));
        assert_eq!(OwnMemory::parse("Private_Clean: 1 kB"), None);
    }
}
