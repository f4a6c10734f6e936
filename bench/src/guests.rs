//! Guests of each kind: their first boot, as of an image that nobody has started before, and a warm start.
//!
//! A boot leaves a warm state, so each is measured in a cache of its own, and in a process of its own, whose environment names that.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use quicksand::{Reporter, Sandbox, images};

use crate::{Result, clones::expect_warm, openrc, options::Options, results::Results};

pub(crate) const KEYS: [&str; 6] =
    ["debian12_boot_s", "debian12_warm_s", "debian13_boot_s", "debian13_warm_s", "openrc_boot_s", "openrc_warm_s"];
/// What this program is called with to be such a process; the image's name follows.
pub(crate) const WORD: &str = "--boot-and-start";
/// Warm starts of each, of which the median is shown.
const STARTS: usize = 3;

pub(crate) async fn measure(options: &Options, results: &mut Results) -> Result<()> {
    let cache = images::Cache::from_environment()?;
    for (name, boot, warm) in
        [("debian", KEYS[0], KEYS[1]), ("debian:13", KEYS[2], KEYS[3]), ("openrc", KEYS[4], KEYS[5])]
    {
        if !options.wants(&[boot, warm]) {
            continue;
        }
        let image = match name {
            "openrc" => {
                let archive = tokio::task::spawn_blocking(openrc::archive).await?;
                match images::show(&cache, BENCH_OPENRC)? {
                    Some(info) => info.image,
                    None => images::import_as(&cache, &archive, BENCH_OPENRC, &Reporter::silent()).await?,
                }
            }
            name => images::ensure(&cache, name, &Reporter::silent()).await?,
        };
        let own = tempfile::Builder::new().prefix("bench-").tempdir_in(cache.root())?;
        let directory = image.disk().parent().map(Path::to_owned).ok_or("an image has no directory")?;
        link_tree(&directory, &own.path().join("images").join(image.name()))?;
        // What was found out of this host is not part of a boot.
        for entry in
            fs::read_dir(cache.root())?.flatten().filter(|it| it.path().extension().is_some_and(|it| it == "json"))
        {
            fs::copy(entry.path(), own.path().join(entry.file_name()))?;
        }
        let (program, name) = (env::current_exe()?, image.name().to_owned());
        let path = own.path().to_owned();
        let output = tokio::task::spawn_blocking(move || {
            // Outside of any project, whose lock might name another image.
            Command::new(program).args([WORD, &name]).current_dir(&path).env("QUICKSAND_CACHE_DIR", &path).output()
        });
        let output = output.await??;
        let said = String::from_utf8_lossy(&output.stdout);
        let seconds: Vec<f64> = said.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [first, starts @ ..] = &seconds[..] else {
            return Err(format!("{boot}: {}", String::from_utf8_lossy(&output.stderr)).into());
        };
        results.add(boot, &[*first]);
        results.add(warm, starts);
    }
    Ok(())
}

const BENCH_OPENRC: &str = "bench-openrc";

/// What the process does whose cache that is.
pub(crate) async fn boot_and_start(name: &str) -> Result<()> {
    for number in 0..=STARTS {
        let begun = Instant::now();
        let sandbox = Sandbox::builder(name).start().await?;
        sandbox.execute("true").await?.check()?;
        let seconds = begun.elapsed().as_secs_f64();
        if number > 0 {
            expect_warm(&sandbox)?;
        }
        sandbox.stop().await?;
        println!("{seconds}");
    }
    Ok(())
}

fn link_tree(from: &Path, to: &PathBuf) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { link_tree(&from, &to)? } else { fs::hard_link(&from, &to)? }
    }
    Ok(())
}
