//! The machines that run on this host.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::run_dir;
use crate::{
    base::{
        cache::{Cache, CacheError},
        size::Size,
    },
    error::Result,
    qemu::machine::Accelerator,
};

/// A machine that runs now, of any process of this user that uses the same cache directory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunningMachine {
    /// The name of its directory in the cache, and in its QEMU's name.
    pub id: String,
    /// When it was started.
    pub started: SystemTime,
    /// What is known of it. `None` while it boots or is restored.
    pub details: Option<MachineDetails>,
}

/// What a running machine's directory says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MachineDetails {
    /// The image or save that it was started from.
    pub source: String,
    /// The process that owns it.
    pub owner: u32,
    /// Its QEMU's process.
    pub qemu: u32,
    /// Its memory.
    pub memory: Size,
    /// Its processors.
    pub cpus: u32,
    /// What carries out its instructions.
    pub accelerator: Accelerator,
}

impl MachineDetails {
    /// The file of that name in a machine's directory holds them.
    const FILE: &str = "machine.json";

    /// Writes them into a machine's directory.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        fs::write(directory.join(Self::FILE), serde_json::to_vec(self)?)
    }

    fn read(directory: &Path) -> Option<MachineDetails> {
        serde_json::from_slice(&fs::read(directory.join(Self::FILE)).ok()?).ok()
    }
}

/// The machines that run now, the oldest first.
///
/// # Errors
///
/// [`Error::Cache`](crate::Error::Cache) where the cache can't be read.
pub fn running_machines(cache: &Cache) -> Result<Vec<RunningMachine>> {
    let mut machines = Vec::new();
    for (id, path) in directories(&cache.run())? {
        let held = match File::open(path.join("lock")).map(|lock| lock.try_lock()) {
            Ok(Err(TryLockError::WouldBlock)) => true,
            // Nobody's: left by a killed process, and swept by the next start.
            Ok(_) | Err(_) => false,
        };
        // A frozen machine is none that runs.
        let held = held && !path.join(run_dir::FROZEN).exists();
        let started = fs::metadata(path.join("lock")).and_then(|lock| lock.modified());
        if let (true, Ok(started)) = (held, started) {
            machines.push(RunningMachine { id, started, details: MachineDetails::read(&path) });
        }
    }
    machines.sort_by_key(|machine| machine.started);
    Ok(machines)
}

/// The directories in a directory with their names, those under temporary names left out.
fn directories(all: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(all).map_err(CacheError::io("read", all))?;
    let named = |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, entry.path()));
    Ok(entries.flatten().filter_map(named).filter(|(name, path)| !name.starts_with('.') && path.is_dir()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_those_whose_lock_is_held() {
        let temp = tempfile::tempdir().unwrap();
        let cache = Cache::at(temp.path()).unwrap();
        let make = |id: &str| {
            let directory = cache.run().join(id);
            fs::create_dir(&directory).unwrap();
            (File::create(directory.join("lock")).unwrap(), directory)
        };
        let (lock, directory) = make("living");
        lock.lock().unwrap();
        let details = MachineDetails {
            source: "debian".into(),
            owner: 1,
            qemu: 2,
            memory: Size::from_mib(512),
            cpus: 1,
            accelerator: Accelerator::Tcg,
        };
        details.write(&directory).unwrap();
        make("dead");
        let machines = running_machines(&cache).unwrap();
        assert_eq!(machines.len(), 1);
        assert_eq!((machines[0].id.as_str(), machines[0].details.as_ref()), ("living", Some(&details)));
    }
}
