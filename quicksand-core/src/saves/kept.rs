//! Machines of tests, kept as they were when the tests failed, to be entered later.
//!
//! Each is a frozen [`state`](crate::image::state) under `failed/` in the cache directory, with a file `kept.json` that says whose it is. The
//! last few are kept, of all packages together: they are made by failures, not by anyone's wish.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    base::{
        accel::Accel,
        cache::{Cache, CacheError, discard},
        digest::short_key,
    },
    error::{Error, Result},
    qemu::machine::{Accelerator, NetworkMode},
    sandbox::Sandbox,
};

/// The version of `kept.json`. Raised with every change that an older reader would misread.
const VERSION: u32 = 1;
const RECORD: &str = "kept.json";
/// How long another process may take to keep a machine of the same name, or to remove one.
const PATIENCE: Duration = Duration::from_secs(20);

/// The machine of a test, kept as it was when the test ended.
#[derive(Debug, Clone)]
pub struct KeptMachine {
    directory: PathBuf,
    record: Record,
}

/// What `kept.json` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    version: u32,
    test: String,
    package: PathBuf,
    at: SystemTime,
    end: String,
    report: Option<PathBuf>,
    network: NetworkMode,
    accelerator: Accelerator,
}

/// Whose machine is kept, and why.
#[derive(Debug, Clone)]
pub struct KeepNote<'a> {
    /// Path of the test: module and function.
    pub test: &'a str,
    /// The directory of its package.
    pub package: &'a Path,
    /// How it ended, in a few words.
    pub end: &'a str,
    /// The directory with what is known of the failure.
    pub report: Option<&'a Path>,
}

impl KeptMachine {
    /// All that are kept, the newest first.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`]
    pub fn all() -> Result<Vec<KeptMachine>> {
        KeptMachine::in_cache(&Cache::from_environment()?)
    }

    /// That of a test, named by its path or the end of it. Of several, that of the package in which the current directory is, else the
    /// newest.
    ///
    /// # Errors
    ///
    /// [`Error::NotKept`], [`Error::Cache`]
    pub fn find(test: &str) -> Result<KeptMachine> {
        let all = KeptMachine::all()?;
        let tests = all.iter().map(|kept| kept.record.test.clone()).collect();
        let here = env::current_dir().unwrap_or_default();
        let mut found: Vec<_> = all.into_iter().filter(|kept| kept.is_of(test)).collect();
        // Stable: among equals the newest stays the first.
        found.sort_by_key(|kept| (kept.record.test != test, !here.starts_with(&kept.record.package)));
        found.into_iter().next().ok_or_else(|| Error::NotKept { test: test.to_owned(), tests })
    }

    /// Path of the test: module and function.
    pub fn test(&self) -> &str {
        &self.record.test
    }

    /// The directory of the test's package.
    pub fn package(&self) -> &Path {
        &self.record.package
    }

    /// When it was kept.
    pub fn at(&self) -> SystemTime {
        self.record.at
    }

    /// How the test ended, in a few words.
    pub fn end(&self) -> &str {
        &self.record.end
    }

    /// The directory with what is known of the failure, unless it was removed.
    pub fn report(&self) -> Option<&Path> {
        self.record.report.as_deref().filter(|report| report.exists())
    }

    /// Where it is kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Goes on with the machine where it stood: the same machine id, programs still running. What is kept stays as it is, so this
    /// can be done again. It starts at once, however many others run.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::start`], as where QEMU has changed since.
    pub async fn resume(&self) -> Result<Sandbox> {
        let accel = match self.record.accelerator {
            Accelerator::Kvm => Accel::Kvm,
            Accelerator::Hvf => Accel::Hvf,
            Accelerator::Whpx => Accel::Whpx,
            Accelerator::Tcg => Accel::Tcg,
        };
        let directory = self.directory.to_string_lossy();
        let builder = Sandbox::builder(directory).network_mode(self.record.network).accel(accel);
        builder.same_identity().at_once().start().await
    }

    /// Removes it. A machine that goes on from it is not disturbed.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`]
    pub fn remove(self) -> Result<()> {
        Ok(discard(&self.directory)?)
    }

    fn is_of(&self, test: &str) -> bool {
        let own = &self.record.test;
        own == test || own.strip_suffix(test).is_some_and(|module| module.ends_with("::"))
    }

    fn in_cache(cache: &Cache) -> Result<Vec<KeptMachine>> {
        let all = cache.failed();
        let entries = fs::read_dir(&all).map_err(CacheError::io("read", &all))?.flatten();
        let mut kept: Vec<_> = entries.filter_map(|entry| KeptMachine::read(entry.path())).collect();
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.record.at));
        Ok(kept)
    }

    /// `None` where there is none, or one of another version.
    pub(crate) fn read(directory: PathBuf) -> Option<KeptMachine> {
        let bytes = fs::read(directory.join(RECORD)).ok()?;
        let record: Record = serde_json::from_slice(&bytes).ok()?;
        (record.version == VERSION).then_some(KeptMachine { directory, record })
    }
}

impl Sandbox {
    /// Keeps its machine as it is at this moment, in place of an older one of the same test, and removes all that are kept but the
    /// `most` newest. The machine runs on.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], and whatever keeps a machine from being written down.
    pub(crate) async fn keep(&self, note: KeepNote<'_>, most: usize) -> Result<KeptMachine> {
        let (host, network, accelerator) = self.kind_of_machine()?;
        let record = Record {
            version: VERSION,
            test: note.test.to_owned(),
            package: note.package.to_owned(),
            at: SystemTime::now(),
            end: note.end.to_owned(),
            report: note.report.map(Path::to_owned),
            network,
            accelerator,
        };
        let name = directory_name(&record);
        let directory = host.cache.failed().join(&name);
        let lock = host.cache.lock(&format!("failed-{name}"), PATIENCE).await?;
        let text = serde_json::to_vec_pretty(&record).unwrap_or_default();
        self.keep_in(&directory, RECORD, text).await?;
        drop(lock);
        let _lock = host.cache.lock("failed", PATIENCE).await?;
        for old in KeptMachine::in_cache(&host.cache)?.into_iter().skip(most) {
            tracing::debug!(test = old.test(), "no longer kept");
            old.remove()?;
        }
        Ok(KeptMachine { directory, record })
    }
}

/// A name for a directory: the test's, as far as it goes, and what tells it from others.
fn directory_name(record: &Record) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '.' };
    let test: String = record.test.replace("::", ".").chars().map(plain).take(100).collect();
    let key = short_key(&format!("{}\n{}", record.package.display(), record.test));
    format!("{}-{}", test.trim_start_matches('.'), &key[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(test: &str, package: &str) -> Record {
        Record {
            version: VERSION,
            test: test.into(),
            package: package.into(),
            at: SystemTime::now(),
            end: "panicked".into(),
            report: None,
            network: NetworkMode::Full,
            accelerator: Accelerator::Tcg,
        }
    }

    #[test]
    fn names_are_fit_for_directories_and_differ() {
        let name = |test: &str, package: &str| directory_name(&record(test, package));
        let plain = name("install::works::debian", "/p");
        assert!(plain.starts_with("install.works.debian-") && plain.len() == 29, "{plain}");
        assert_ne!(plain, name("install::works::debian", "/q"));
        assert!(name("../é\0", "/").starts_with("_-") || !name("../é\0", "/").contains(['/', '\0']));
        assert!(name(&"x".repeat(1000), "/").len() < 120);
        assert_ne!(name(&"x".repeat(1000), "/"), name(&"x".repeat(1001), "/"));
    }

    #[test]
    fn a_test_is_named_by_its_path_or_the_end_of_it() {
        let kept = KeptMachine { directory: PathBuf::new(), record: record("a::b::works", "/p") };
        assert!(kept.is_of("a::b::works") && kept.is_of("works") && kept.is_of("b::works"));
        assert!(!kept.is_of("orks") && !kept.is_of("") && !kept.is_of("a::b"));
    }

    #[test]
    fn only_those_of_this_version_are_read_the_newest_first() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        let put = |name: &str, text: String| {
            fs::create_dir(cache.failed().join(name)).unwrap();
            fs::write(cache.failed().join(name).join(RECORD), text).unwrap();
        };
        for (name, seconds) in [("one", 1), ("three", 3), ("two", 2)] {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            put(name, serde_json::to_string(&Record { at, ..record(name, "/p") }).unwrap());
        }
        put("later", serde_json::to_string(&Record { version: 9, ..record("later", "/p") }).unwrap());
        put("damaged", "{".into());
        let tests: Vec<_> = KeptMachine::in_cache(&cache).unwrap().into_iter().map(|kept| kept.record.test).collect();
        assert_eq!(tests, ["three", "two", "one"]);
    }
}
