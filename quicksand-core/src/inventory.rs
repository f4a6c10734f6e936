//! What there is on this host: machines that run, and warm states in the cache; and the removal of what can be made again.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    Accelerator, Result, Size,
    cache::{Cache, CacheError, discard},
    run_dir,
    state::State,
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

/// A warm state in the cache.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WarmState {
    /// Its key, which is the name of its directory.
    pub key: String,
    /// The image that it was booted from. `None` where the state is damaged.
    pub image: Option<String>,
    /// What it takes on the disk, without what it shares with other states and its image.
    pub size: Size,
    /// When a machine was last started from it.
    pub used: SystemTime,
    /// Whether a machine runs from it now.
    pub in_use: bool,
}

/// What to remove of the warm states.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PruneRule {
    /// Those that were not used for that long.
    pub older_than: Option<Duration>,
    /// Then those that were not used for the longest time, until the rest is no larger than this.
    pub max_size: Option<Size>,
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

/// The warm states, those used last first.
///
/// # Errors
///
/// [`Error::Cache`](crate::Error::Cache) where the cache can't be read.
pub fn warm_states(cache: &Cache) -> Result<Vec<WarmState>> {
    let mut states = Vec::new();
    for (key, path) in directories(&cache.states())? {
        // It may go while we look.
        let Ok(used) = fs::metadata(&path).and_then(|metadata| metadata.modified()) else { continue };
        let in_use =
            File::open(&path).is_ok_and(|directory| matches!(directory.try_lock(), Err(TryLockError::WouldBlock)));
        let image = State::read(&path).ok().flatten().map(|state| state.image().name().to_owned());
        states.push(WarmState { key, image, size: own_size(&path), used, in_use });
    }
    states.sort_by_key(|state| std::cmp::Reverse(state.used));
    Ok(states)
}

/// What a rule removes of the warm states. None of them is in use.
///
/// # Errors
///
/// [`Error::Cache`](crate::Error::Cache) where the cache can't be read.
pub fn prunable(cache: &Cache, rule: &PruneRule) -> Result<Vec<WarmState>> {
    Ok(choose(warm_states(cache)?, rule, SystemTime::now()))
}

/// Removes a warm state. One that came into use meanwhile goes once it no longer is.
///
/// # Errors
///
/// [`Error::Cache`](crate::Error::Cache) where it can't be removed.
pub fn remove_warm_state(cache: &Cache, state: &WarmState) -> Result<()> {
    Ok(discard(&cache.states().join(&state.key))?)
}

/// `states` are sorted by their last use.
fn choose(states: Vec<WarmState>, rule: &PruneRule, now: SystemTime) -> Vec<WarmState> {
    let mut kept = 0;
    let mut removed = Vec::new();
    for state in states {
        let age = now.duration_since(state.used).unwrap_or_default();
        let old = rule.older_than.is_some_and(|limit| age >= limit);
        let too_much = rule.max_size.is_some_and(|limit| kept + state.size.bytes() > limit.bytes());
        if !state.in_use && (old || too_much) {
            removed.push(state);
        } else {
            kept += state.size.bytes();
        }
    }
    removed
}

/// What a directory takes on the disk, without files that have other names elsewhere: removing it would not free these.
pub fn own_size(directory: &Path) -> Size {
    let mut bytes = 0;
    let mut queue = vec![directory.to_owned()];
    while let Some(path) = queue.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            queue.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if metadata.nlink() == 1 {
            bytes += metadata.blocks() * 512;
        }
    }
    Size::from_bytes(bytes)
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

    fn state(key: &str, mib: u32, days: u64, in_use: bool) -> WarmState {
        let used = SystemTime::UNIX_EPOCH + Duration::from_secs((100 - days) * 86_400);
        WarmState { key: key.into(), image: None, size: Size::from_mib(mib), used, in_use }
    }

    #[test]
    fn the_old_go_and_then_the_least_used_and_never_what_is_in_use() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100 * 86_400);
        let states = || {
            vec![
                state("a", 10, 1, false),
                state("b", 10, 2, false),
                state("c", 10, 40, true),
                state("d", 10, 50, false),
            ]
        };
        let chosen = |older_than: Option<u64>, mib: Option<u32>| {
            let older_than = older_than.map(|days| Duration::from_secs(days * 86_400));
            let rule = PruneRule { older_than, max_size: mib.map(Size::from_mib) };
            choose(states(), &rule, now).into_iter().map(|state| state.key).collect::<String>()
        };
        assert_eq!(chosen(None, None), "");
        assert_eq!(chosen(Some(30), None), "d");
        assert_eq!(chosen(Some(2), None), "bd");
        assert_eq!(chosen(None, Some(20)), "d");
        assert_eq!(chosen(None, Some(15)), "bd");
        assert_eq!(chosen(Some(30), Some(0)), "abd");
    }

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
