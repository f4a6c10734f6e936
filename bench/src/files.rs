//! A large file into a guest and out of it.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    time::Instant,
};

use quicksand::Sandbox;

use crate::{
    IMAGE, Result,
    clones::expect_warm,
    results::{Results, median},
};

pub(crate) const KEYS: [&str; 2] = ["upload_mb_s", "download_mb_s"];

const RUNS: usize = 3;
/// In bytes.
const SIZE: u64 = 100_000_000;
/// Guest memory, so that it is the way into the guest that is measured.
const IN_MEMORY: &str = "/dev/shm/file";
/// Where most uploads go; only noted.
const ON_DISK: &str = "/root/file";

pub(crate) async fn measure(results: &mut Results) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let from = directory.path().join("random");
    let random = random_bytes()?;
    fs::write(&from, &random)?;
    let (mut up, mut down, mut disk_up, mut disk_down) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        // A new clone for each: a test's upload is the first thing that it does.
        let sandbox = Sandbox::builder(IMAGE).start().await?;
        expect_warm(&sandbox)?;
        for (path, up, down) in [(IN_MEMORY, &mut up, &mut down), (ON_DISK, &mut disk_up, &mut disk_down)] {
            let to = directory.path().join("back");
            let (sent, fetched) = there_and_back(&sandbox, &from, path, &to).await?;
            if fs::read(&to)? != random {
                return Err(format!("what came back from {path} differs from what was sent").into());
            }
            fs::remove_file(&to)?;
            sandbox.execute(format!("rm {path}")).await?.check()?;
            up.push(sent);
            down.push(fetched);
        }
        sandbox.stop().await?;
    }
    results.add("upload_mb_s", &up);
    results.add("download_mb_s", &down);
    let [up, down] = [disk_up, disk_down].map(|speeds| median(&speeds).unwrap_or_default());
    results.note(format!("to the guest's disk the same file goes in at {up:.0} MB/s and comes out at {down:.0} MB/s"));
    Ok(())
}

/// The speeds of an upload and a download, in MB/s.
async fn there_and_back(sandbox: &Sandbox, from: &Path, path: &str, to: &Path) -> Result<(f64, f64)> {
    let speed = |begun: Instant| SIZE as f64 / 1e6 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    sandbox.upload(from, path).await?;
    let sent = speed(begun);
    let begun = Instant::now();
    sandbox.download(path, to).await?;
    Ok((sent, speed(begun)))
}

/// Nothing that anything on the way could compress or leave out.
fn random_bytes() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open("/dev/urandom")?.take(SIZE).read_to_end(&mut bytes)?;
    Ok(bytes)
}
