//! Disks that are larger than what a machine starts from.

use std::{path::Path, time::Instant};

use quicksand::{Sandbox, SandboxBuilder};

use crate::{IMAGE, Result, disks, options::Options, results::Results};

pub(crate) const KEYS: [&str; 4] = ["disk_grow_s", "grow_ext4_s", "grow_xfs_s", "grow_btrfs_s"];

pub(crate) async fn measure(options: &Options, results: &mut Results) -> Result<()> {
    // Ten times the image's.
    results.add("disk_grow_s", &added(&Sandbox::builder(IMAGE), "40G", options.runs).await?);
    type Make = fn(&Path, &Path);
    for (key, name, make) in [
        ("grow_ext4_s", "grow-ext4.raw", (|tree, path| disks::ext4(tree, path, "1G")) as Make),
        ("grow_xfs_s", "xfs.raw", disks::xfs),
        ("grow_btrfs_s", "btrfs.raw", disks::btrfs),
    ] {
        let disk = disks::busybox_disk(name, make, disks::partitioned);
        results.add(key, &added(&Sandbox::builder(disks::text(&disk)), "10G", options.runs).await?);
    }
    Ok(())
}

/// What a disk of that size adds to a warm start, in seconds.
async fn added(builder: &SandboxBuilder, size: &str, runs: usize) -> Result<Vec<f64>> {
    let start = async |builder: SandboxBuilder| {
        let begun = Instant::now();
        let sandbox = builder.start().await?;
        sandbox.ping().await?;
        let seconds = begun.elapsed().as_secs_f64();
        sandbox.stop().await?;
        Ok::<_, quicksand::Error>(seconds)
    };
    // There is a warm state then.
    start(builder.clone()).await?;
    let mut seconds = Vec::new();
    for _ in 0..runs {
        let plain = start(builder.clone()).await?;
        seconds.push(start(builder.clone().disk_size(size)).await? - plain);
    }
    Ok(seconds)
}
