//! The directory of one running machine: its disk overlays, QEMU's log. Or of one that was frozen for as long as this process
//! runs.
//!
//! Removed with its last user. Where our process was killed, the next start of any process removes it, told by the free lock.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::base::{
    cache::{Cache, CacheError},
    random,
};

/// Names of directories whose lock may not be held yet start with this.
const NASCENT: &str = ".";
/// Where a frozen machine has its files.
pub(crate) const FROZEN: &str = "frozen";

/// The directory of one running machine.
#[derive(Debug)]
#[must_use = "dropping this removes the directory: keep it for as long as the machine runs"]
pub(crate) struct RunDir {
    path: PathBuf,
    name: String,
    overlays: AtomicUsize,
    _lock: File,
}

impl RunDir {
    /// Makes a new one, and removes those of machines that have gone.
    pub(crate) fn create(cache: &Cache) -> Result<RunDir, CacheError> {
        let all = cache.run();
        sweep(&all)?;
        let name = random::name().map_err(CacheError::io("draw a name for", &all))?;
        // Under its name it is always locked, so that a sweep never takes it for a dead one.
        let nascent = all.join(format!("{NASCENT}{name}"));
        DirBuilder::new().mode(0o700).create(&nascent).map_err(CacheError::io("create", &nascent))?;
        let lock_path = nascent.join("lock");
        let lock = File::create_new(&lock_path).map_err(CacheError::io("create", &lock_path))?;
        lock.lock().map_err(CacheError::io("lock", &lock_path))?;
        let path = all.join(&name);
        fs::rename(&nascent, &path).map_err(CacheError::io("rename", &nascent))?;
        Ok(RunDir { path, name, overlays: AtomicUsize::new(0), _lock: lock })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn qemu_log(&self) -> PathBuf {
        self.path.join("qemu.log")
    }

    pub(crate) fn memory(&self) -> PathBuf {
        self.path.join("memory")
    }

    /// A path for the disk's next file that is written, which no other has had.
    pub(crate) fn next_overlay(&self) -> PathBuf {
        self.path.join(format!("overlay-{}.qcow2", self.overlays.fetch_add(1, Ordering::Relaxed)))
    }

    /// Where a kernel is that the guest asks for, while it is booted.
    pub(crate) fn own_kernel(&self) -> PathBuf {
        self.path.join("own-kernel")
    }

    /// Where a frozen machine has its files.
    pub(crate) fn frozen(&self) -> PathBuf {
        self.path.join(FROZEN)
    }
}

impl crate::image::state::Home for RunDir {}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a machine's directory is left for the next start to remove");
        }
    }
}

fn sweep(all: &Path) -> Result<(), CacheError> {
    for path in dead(all)? {
        tracing::info!(path = %path.display(), "removing what a killed process left");
        // Another process may be at it too.
        let _ = fs::remove_dir_all(&path);
    }
    Ok(())
}

/// The directories of machines whose processes have gone.
pub(crate) fn dead(all: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let paths = fs::read_dir(all).map_err(CacheError::io("read", all))?.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| is_dead(path)).collect())
}

/// Whether the process that owns the directory has gone.
fn is_dead(path: &Path) -> bool {
    match File::open(path.join("lock")) {
        Ok(lock) => lock.try_lock().is_ok() && !is_young(path),
        // Being made, or being removed, or killed in between.
        Err(_) => !is_young(path),
    }
}

/// Whether a directory without a held lock may still be on its way to one.
fn is_young(path: &Path) -> bool {
    let nascent = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(NASCENT.as_bytes()));
    let age = fs::metadata(path).and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
    nascent && age.is_none_or(|age| age.as_secs() < 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_stay_and_the_dead_are_swept() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        let living = RunDir::create(&cache).unwrap();
        let dead = cache.run().join("dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::create_dir(cache.run().join(".nascent")).unwrap();
        let second = RunDir::create(&cache).unwrap();
        assert!(living.path.exists() && second.path.exists() && !dead.exists());
        assert!(cache.run().join(".nascent").exists());
        let path = living.path.clone();
        drop(living);
        assert!(!path.exists());
    }
}
