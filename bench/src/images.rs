//! Images: a disk of somebody else's taken as one, and machines with other inits.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use quicksand::{Reporter, Sandbox, images};

use crate::{IMAGE, Result, clones::expect_warm, disks, results::Results};

pub(crate) const KEYS: [&str; 5] =
    ["image_import_400mb_s", "busybox_boot_s", "busybox_warm_s", "no_init_boot_s", "no_init_warm_s"];

pub(crate) async fn measure(results: &mut Results) -> Result<()> {
    let cache = images::Cache::from_environment()?;
    // Beside the cache's files, as a download is.
    let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(cache.root())?;
    import(&cache, directory.path(), results).await?;
    guest(directory.path(), "busybox", ("busybox_boot_s", "busybox_warm_s"), disks::with_init, results).await?;
    guest(directory.path(), "no-init", ("no_init_boot_s", "no_init_warm_s"), |_| {}, results).await
}

/// The disk of the image that we have: 390 MB, a Debian with its kernel inside.
async fn import(cache: &images::Cache, directory: &Path, results: &mut Results) -> Result<()> {
    let debian = images::ensure(cache, IMAGE, &Reporter::silent()).await?;
    let disk = directory.join("disk.qcow2");
    fs::copy(debian.disk(), &disk)?;
    let name = "bench-import";
    let _ = images::remove(cache, name).await;
    // The machine that reads disks has its warm state then.
    images::import_as(cache, &disk, name, &Reporter::silent()).await?;
    images::remove(cache, name).await?;
    let begun = Instant::now();
    images::import_as(cache, &disk, name, &Reporter::silent()).await?;
    results.add("image_import_400mb_s", &[begun.elapsed().as_secs_f64()]);
    images::remove(cache, name).await?;
    Ok(())
}

/// The first boot of a system that nobody has seen before, from its disk's file to its first command, and a warm start.
async fn guest(
    directory: &Path,
    name: &str,
    (boot, warm): (&'static str, &'static str),
    prepare: fn(&Path),
    results: &mut Results,
) -> Result<()> {
    let (tree, disk) = (tempfile::tempdir()?, directory.join(format!("{name}.raw")));
    disks::busybox(tree.path());
    prepare(tree.path());
    disks::ext4(tree.path(), &disk, "32M");
    let start = async |disk: &PathBuf| {
        let begun = Instant::now();
        let sandbox = Sandbox::builder(disks::text(disk)).start().await?;
        sandbox.execute("true").await?.check()?;
        Ok::<_, quicksand::Error>((sandbox, begun.elapsed().as_secs_f64()))
    };
    let (sandbox, seconds) = start(&disk).await?;
    sandbox.stop().await?;
    results.add(boot, &[seconds]);
    let (sandbox, seconds) = start(&disk).await?;
    expect_warm(&sandbox)?;
    sandbox.stop().await?;
    results.add(warm, &[seconds]);
    Ok(())
}
