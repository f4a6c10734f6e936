//! What every start on this host shares: the cache directory, and the QEMU in use.

pub(crate) mod admission;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};

use crate::{
    base::{
        accel::Accel,
        cache::{Cache, CacheError},
        environment::Environment,
        size::Size,
    },
    error::Error,
    qemu::{Version, VersionError, version_of},
};
use admission::Limits;

/// The least free space that a start needs: a clone writes little, but QEMU stops the guest when nothing is left.
const LEAST_FREE: Size = Size::from_mib(64);
/// The least memory that a start needs: what a clone of the default size takes for itself after a few commands.
const LEAST_MEMORY_FREE: Size = Size::from_mib(128);

/// The cache directory, and the QEMU in use.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) cache: Cache,
    pub(crate) qemu: PathBuf,
    pub(crate) version: Version,
    /// The passt to use, a path or a name. It need not be there.
    pub(crate) passt: PathBuf,
    /// What runs the guest's code where a sandbox doesn't choose.
    pub(crate) accel: Accel,
    /// How many machines may run at once.
    pub(crate) limits: Limits,
}

/// What was found out about a QEMU program, for later processes: asking it takes as long as a tenth of a start.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    program: PathBuf,
    len: u64,
    modified_ns: u128,
    version: (u16, u16, u16),
}

impl Host {
    /// Finds QEMU: the program that `QUICKSAND_QEMU` names, else `qemu-system-ARCH` on the path.
    pub(crate) fn discover() -> Result<Host, Error> {
        let environment = Environment::read()?;
        let cache = Cache::chosen(environment.cache_dir.clone())?;
        Host::of(environment, cache)
    }

    /// The same with a cache of the caller's.
    pub(crate) fn with(cache: &Cache) -> Result<Host, Error> {
        Host::of(Environment::read()?, cache.clone())
    }

    fn of(environment: Environment, cache: Cache) -> Result<Host, Error> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(Error::UnsupportedHost { arch: format!("{} on {}", env::consts::OS, env::consts::ARCH) });
        }
        let limits = Limits::from(&environment);
        let name = environment.qemu.unwrap_or_else(|| format!("qemu-system-{}", env::consts::ARCH).into());
        let program = on_path(&name).ok_or(VersionError::Missing { program: name })?;
        let version = remembered_version(&cache, &program)?;
        let passt = environment.passt.unwrap_or_else(|| "passt".into());
        Ok(Host { cache, qemu: program, version, passt, accel: environment.accel, limits })
    }

    /// Refuses to start where it could only fail: no room on the disk, or less memory than the guest is to have.
    pub(crate) fn check_room(&self, memory: Size) -> Result<(), Error> {
        let path = self.cache.root();
        let stat = nix::sys::statvfs::statvfs(path).map_err(|e| CacheError::io("look at", path)(e.into()))?;
        let free = Size::from_bytes(stat.blocks_available() * stat.fragment_size());
        if free < LEAST_FREE {
            return Err(Error::NoSpace { path: path.to_owned(), needed: LEAST_FREE, free });
        }
        admission::memory().map_or(Ok(()), |(total, _)| fits_at_all(memory, total))
    }

    /// Refuses to start where hardly any memory is left. Asked when it is our turn, for machines of others take memory, too.
    pub(crate) fn check_memory_left(&self, memory: Size) -> Result<(), Error> {
        admission::memory().map_or(Ok(()), |(_, available)| is_left(memory, available))
    }
}

/// A guest's memory is taken as the guest touches it, and hardly any guest touches all that it has. So several that come to more than
/// there is may run; one that alone comes to more may not.
fn fits_at_all(memory: Size, total: Size) -> Result<(), Error> {
    if memory > total { Err(Error::NotEnoughMemory { wanted: memory, available: total }) } else { Ok(()) }
}

fn is_left(memory: Size, available: Size) -> Result<(), Error> {
    let needed = memory.min(LEAST_MEMORY_FREE);
    if available < needed { Err(Error::NoMemoryLeft { wanted: memory, available, needed }) } else { Ok(()) }
}

/// The file that a program's path or name means.
pub(crate) fn on_path(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.is_file().then(|| name.to_owned());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
}

fn remembered_version(cache: &Cache, program: &Path) -> Result<Version, Error> {
    let metadata = fs::metadata(program).map_err(Error::io("look at", program))?;
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let current = |(major, minor, micro): (u16, u16, u16)| Known {
        program: program.to_owned(),
        len: metadata.len(),
        modified_ns: modified.map_or(0, |since| since.as_nanos()),
        version: (major, minor, micro),
    };
    let path = cache.root().join("qemu.json");
    let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Known>(&bytes).ok());
    if let Some(known) = known.filter(|known| *known == current(known.version)) {
        let (major, minor, micro) = known.version;
        return Ok(Version { major, minor, micro });
    }
    let version = version_of(program)?;
    let found = current((version.major, version.minor, version.micro));
    cache.publish(&path, &serde_json::to_vec(&found).unwrap_or_default())?;
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_version_is_asked_for_once_for_each_program() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(&directory.path().join("cache")).unwrap();
        let (program, log) = (directory.path().join("qemu"), directory.path().join("log"));
        let install = |version: &str| {
            let script = format!("#!/bin/sh\necho >> {}\necho QEMU emulator version {version}\n", log.display());
            fs::write(&program, script).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        };
        install("8.0.1");
        for _ in 0..3 {
            assert_eq!(remembered_version(&cache, &program).unwrap().to_string(), "8.0.1");
        }
        assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 1);
        install("10.20.30");
        assert_eq!(remembered_version(&cache, &program).unwrap().to_string(), "10.20.30");
        install("6.2.0");
        assert!(matches!(remembered_version(&cache, &program), Err(Error::Qemu(VersionError::TooOld { .. }))));
    }

    #[test]
    fn more_memory_than_there_is_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let version = Version { major: 8, minor: 0, micro: 0 };
        let host = Host {
            cache: Cache::at(directory.path()).unwrap(),
            qemu: "qemu".into(),
            passt: "passt".into(),
            version,
            accel: Accel::Auto,
            limits: Limits::default(),
        };
        host.check_room(Size::from_mib(1)).unwrap();
        let error = host.check_room(Size::from_bytes(1 << 60)).unwrap_err();
        assert!(matches!(error, Error::NotEnoughMemory { .. }), "{error}");
        host.check_memory_left(Size::from_bytes(1)).unwrap();
    }

    #[test]
    fn guests_may_have_more_than_is_left_but_not_more_than_there_is() {
        let mib = Size::from_mib;
        fits_at_all(mib(4096), mib(4096)).unwrap();
        fits_at_all(mib(4097), mib(4096)).unwrap_err();
        is_left(mib(4096), mib(128)).unwrap();
        is_left(mib(64), mib(64)).unwrap();
        is_left(mib(64), mib(63)).unwrap_err();
        let error = is_left(mib(4096), mib(127)).unwrap_err().to_string();
        assert!(error.contains("4G") && error.contains("127M") && error.contains("128M"), "{error}");
    }
}
