//! The user's cache directory: everything that can be made again.
//!
//! ```text
//! images/NAME/     one directory an image, see the module `image`
//! kernels/KEY/     the kernel that images without one share, see the module `image`
//! downloads/KEY    what was fetched and not yet made an image of, see `quicksand_fetch::download`
//! initramfs/KEY    archives that guests start from
//! states/KEY/      frozen machines, see the module `state`
//! baselines/KEY    what guests have when they start from a frozen machine, see the module `changes`
//! run/ID/          one directory a running machine; its file `lock` is held by the process that owns it
//! failed/TEST/     machines of failed tests, see the module `kept`
//! blobs/, tags/    what comes from registries, see the module `image::oci`
//! projects/KEY     projects that were seen, whose images are theirs, see the module `project`
//! slots/, queue/   machines that run and those that wait, see the module `admission`
//! locks/NAME       held by the process that makes the thing of that name
//! ```
//!
//! Locks are the kernel's (`flock`), which frees them however a process dies. What is made stands under a temporary name until
//! it is whole, and is then renamed into place; leftovers of a killed process are removed by the next one that holds the lock.

use std::{
    env,
    ffi::OsStr,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use tokio::time::{Instant, sleep};

use super::{
    environment::{Environment, EnvironmentError},
    random,
};

/// Names of unfinished things start with this. No name that a user may choose does.
pub(crate) const UNFINISHED: &str = ".new-";
/// Names of things that are to go start with this.
pub(crate) const ASIDE: &str = ".old-";

/// What is in the cache directory.
const DIRECTORIES: [&str; 15] = [
    "baselines",
    "blobs",
    "downloads",
    "failed",
    "images",
    "initramfs",
    "kernels",
    "locks",
    "overlays",
    "projects",
    "queue",
    "run",
    "slots",
    "states",
    "tags",
];

/// Why the cache directory could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// There is no telling where it is.
    #[error("find the cache directory: set QUICKSAND_CACHE_DIR to an absolute path, or HOME")]
    NoPlace,
    /// The environment doesn't say, since it can't be followed.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// A file or directory in it failed us.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// Another process holds a lock for too long.
    #[error("wait for another process to finish {name}: it holds {} for over {} s", path.display(), waited.as_secs())]
    Busy {
        /// What the lock stands for.
        name: String,
        /// The lock file.
        path: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
}

impl CacheError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError + use<> {
        let path = path.to_owned();
        move |source| CacheError::Io { what, path, source }
    }

    /// Whether the disk is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self, CacheError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull
            || source.kind() == io::ErrorKind::QuotaExceeded)
    }
}

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// The lock of the download that has that key.
pub(crate) fn download_lock_name(key: &str) -> String {
    format!("download-{}", &key[..key.len().min(100)])
}

/// The lock of the layer that has these digits.
pub(crate) fn blob_lock_name(digits: &str) -> String {
    format!("blob-{}", &digits[..digits.len().min(32)])
}

/// A lock, held until dropped.
#[derive(Debug)]
#[must_use = "dropping a lock releases it: keep it in a variable for as long as the work lasts"]
pub struct Lock {
    _file: File,
}

impl Cache {
    /// The cache directory that the environment names: `QUICKSAND_CACHE_DIR`, else `quicksand` below `XDG_CACHE_HOME`, else
    /// `.cache/quicksand` below `HOME`.
    ///
    /// # Errors
    ///
    /// [`CacheError`] where there is none or it can't be made.
    pub fn from_environment() -> Result<Cache, CacheError> {
        Cache::chosen(Environment::read()?.cache_dir)
    }

    /// The cache directory at `own`, else where the user's cache directories are.
    pub(crate) fn chosen(own: Option<PathBuf>) -> Result<Cache, CacheError> {
        let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Cache::at(&locate(own, path("XDG_CACHE_HOME"), path("HOME"))?)
    }

    /// The cache directory at a path, made where it is missing, for its owner alone.
    ///
    /// # Errors
    ///
    /// [`CacheError`] where it can't be made.
    pub fn at(root: &Path) -> Result<Cache, CacheError> {
        let cache = Cache { root: root.to_owned() };
        for name in DIRECTORIES {
            let path = root.join(name);
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(CacheError::io("create", &path))?;
        }
        Ok(cache)
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// Empty overlays, which are copied rather than made.
    pub(crate) fn overlays(&self) -> PathBuf {
        self.root.join("overlays")
    }

    pub(crate) fn kernels(&self) -> PathBuf {
        self.root.join("kernels")
    }

    pub(crate) fn states(&self) -> PathBuf {
        self.root.join("states")
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(crate) fn slots(&self) -> PathBuf {
        self.root.join("slots")
    }

    pub(crate) fn queue(&self) -> PathBuf {
        self.root.join("queue")
    }

    pub(crate) fn failed(&self) -> PathBuf {
        self.root.join("failed")
    }

    pub(crate) fn baselines(&self) -> PathBuf {
        self.root.join("baselines")
    }

    pub(crate) fn initramfs(&self) -> PathBuf {
        self.root.join("initramfs")
    }

    /// Layers of container images, until the image is made of them.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// What tags mean in registries.
    pub(crate) fn tags(&self) -> PathBuf {
        self.root.join("tags")
    }

    /// The projects that were seen.
    pub(crate) fn projects(&self) -> PathBuf {
        self.root.join("projects")
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// Puts a file in place whole, over one that is there. Of several processes that do so at once, one wins.
    ///
    /// # Errors
    ///
    /// [`CacheError::Io`] where it can't be written.
    pub fn publish(&self, path: &Path, content: &[u8]) -> Result<(), CacheError> {
        let name = random::name().map_err(CacheError::io("draw a name for", path))?;
        let unfinished = path.with_file_name(format!("{UNFINISHED}{name}"));
        let written = fs::write(&unfinished, content).and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written.map_err(CacheError::io("write", path))
    }

    /// Waits for the lock of that name, for at most `patience`. `name` must be fit for a file name.
    ///
    /// # Errors
    ///
    /// [`CacheError::Busy`] where another process still holds it then.
    pub async fn lock(&self, name: &str, patience: Duration) -> Result<Lock, CacheError> {
        let path = self.locks().join(name);
        let start = Instant::now();
        // Asking again and again, since a blocked flock can't be given up. The step grows: what is waited for takes a minute.
        let mut step = Duration::from_millis(5);
        loop {
            if let Some(lock) = self.try_lock(name)? {
                return Ok(lock);
            }
            let waited = start.elapsed();
            if waited > patience {
                return Err(CacheError::Busy { name: name.to_owned(), path, waited });
            }
            if step == Duration::from_millis(5) {
                tracing::info!(target: "quicksand::cache", name, "waiting for another process to finish it");
            }
            sleep(step).await;
            step = (step * 2).min(Duration::from_millis(200));
        }
    }
}

impl Cache {
    /// The lock of that name, unless somebody holds it.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<Lock>, CacheError> {
        let path = self.locks().join(name);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(CacheError::io("open the lock", &path))?;
        match file.try_lock() {
            // Removed meanwhile, as nobody's, by one who held it: there is another one by that name, or none.
            Ok(()) if !is_named(&file, &path) => Ok(None),
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(CacheError::io("lock", &path)(source)),
        }
    }
}

fn locate(own: Option<PathBuf>, xdg: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf, CacheError> {
    if let Some(own) = own {
        return Ok(own);
    }
    // The XDG specification has relative paths ignored.
    let base = xdg.filter(|path| path.is_absolute()).or_else(|| home.map(|home| home.join(".cache")));
    base.map(|base| base.join("quicksand")).ok_or(CacheError::NoPlace)
}

/// A directory that takes its name once it is whole. Dropping it before removes it.
#[derive(Debug)]
#[must_use = "dropping this removes the directory: call `.finish()` to give it its name"]
pub(crate) struct Unfinished {
    path: PathBuf,
    target: PathBuf,
}

impl Unfinished {
    /// Makes the directory beside `target`. The caller holds the lock of whatever `target` is: leftovers of killed makers of
    /// the same thing are removed.
    pub(crate) fn beside(target: &Path) -> Result<Unfinished, CacheError> {
        let name = target.file_name().unwrap_or(OsStr::new(""));
        let mut unfinished = std::ffi::OsString::from(UNFINISHED);
        unfinished.push(name);
        let path = target.with_file_name(unfinished);
        discard(&path)?;
        DirBuilder::new().mode(0o700).create(&path).map_err(CacheError::io("create", &path))?;
        Ok(Unfinished { path, target: target.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all to disk and gives the directory its name, in place of one that had it.
    pub(crate) fn finish(self) -> Result<(), CacheError> {
        sync_tree(&self.path)?;
        let parent = self.target.parent().map(Path::to_owned);
        self.finish_unsynced()?;
        parent.map_or(Ok(()), |parent| sync(&parent))
    }

    /// Gives the directory its name, in place of one that had it. Where the host crashes soon after, its files may be empty.
    pub(crate) fn finish_unsynced(self) -> Result<(), CacheError> {
        if !self.target.exists() {
            return fs::rename(&self.path, &self.target).map_err(CacheError::io("rename", &self.path));
        }
        // A directory can't be renamed over another, but the two can trade names.
        renameat2(AT_FDCWD, &self.path, AT_FDCWD, &self.target, RenameFlags::RENAME_EXCHANGE)
            .map_err(|e| CacheError::io("replace", &self.target)(e.into()))?;
        discard(&self.path)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After `finish` there is nothing at this path.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Notes that a file or directory is used now, by which those that nobody uses are found.
pub(crate) fn touch(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

/// Opens a directory that is not to go while we use it: whoever [discards](discard) or [takes](take) it waits for us, or does without.
/// `None` where there is none.
pub(crate) fn hold(directory: &Path) -> io::Result<Option<File>> {
    // It may be replaced between two looks, but hardly time and again.
    for _ in 0..10 {
        let file = match File::open(directory) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(e),
        };
        // Whoever removes it holds the lock alone, and has put it under another name before.
        if file.try_lock_shared().is_ok() && is_named(&file, directory) {
            return Ok(Some(file));
        }
        // Or looks whether anybody does.
        thread::sleep(Duration::from_millis(1));
    }
    Ok(None)
}

/// Whether somebody [holds](hold) a directory.
pub(crate) fn is_held(directory: &Path) -> bool {
    File::open(directory).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Removes a directory that nobody holds. `false` where somebody does, or where it has gone.
pub(crate) fn take(directory: &Path) -> Result<bool, CacheError> {
    let Ok(file) = File::open(directory) else { return Ok(false) };
    if file.try_lock().is_err() || !is_named(&file, directory) {
        return Ok(false);
    }
    // Under its lock, so that nobody comes to hold it before it has another name.
    discard_as(directory)?;
    drop(file);
    sweep_aside(directory)?;
    Ok(true)
}

/// Whether that is what the path leads to by now.
fn is_named(file: &File, path: &Path) -> bool {
    let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(named)) => inode(ours) == inode(named),
        _ => false,
    }
}

/// Removes a directory once nobody holds a lock on it: whoever uses what is in one does. One that is in use is put aside, and goes
/// with a later call for any of its neighbours.
pub(crate) fn discard(path: &Path) -> Result<(), CacheError> {
    discard_as(path)?;
    sweep_aside(path)
}

/// Gives a directory a name that says that it is to go.
fn discard_as(path: &Path) -> Result<(), CacheError> {
    let aside = random::name().map_err(CacheError::io("draw a name for", path))?;
    match fs::rename(path, path.with_file_name(format!("{ASIDE}{aside}"))) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(CacheError::io("put aside", path)(e)),
        _ => Ok(()),
    }
}

/// Removes what is to go of a path's neighbours and held by nobody.
fn sweep_aside(path: &Path) -> Result<(), CacheError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    for entry in fs::read_dir(parent).map_err(CacheError::io("read", parent))?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(ASIDE.as_bytes()) {
            let path = entry.path();
            // Another process may be at it as well.
            let Ok(directory) = File::open(&path) else { continue };
            if directory.try_lock().is_ok() {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
    Ok(())
}

fn sync_tree(path: &Path) -> Result<(), CacheError> {
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(CacheError::io("read", path))? {
            sync_tree(&entry.map_err(CacheError::io("read", path))?.path())?;
        }
    }
    sync(path)
}

fn sync(path: &Path) -> Result<(), CacheError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(CacheError::io("write to disk", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(&directory.path().join("a/b")).unwrap();
        (directory, cache)
    }

    #[test]
    fn the_place_is_found_in_order() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(locate(path("/own"), path("/x"), path("/h")).unwrap(), Path::new("/own"));
        assert_eq!(locate(None, path("/x"), path("/h")).unwrap(), Path::new("/x/quicksand"));
        assert_eq!(locate(None, path("x"), path("/h")).unwrap(), Path::new("/h/.cache/quicksand"));
        assert!(matches!(locate(None, None, None), Err(CacheError::NoPlace)));
    }

    #[tokio::test]
    async fn a_lock_keeps_others_out_until_dropped() {
        let (_directory, cache) = cache();
        let lock = cache.lock("x", Duration::ZERO).await.unwrap();
        let error = cache.lock("x", Duration::from_millis(30)).await.unwrap_err();
        assert!(matches!(&error, CacheError::Busy { name, .. } if name == "x"), "{error}");
        drop(cache.lock("y", Duration::ZERO).await.unwrap());
        let (waited, ()) = tokio::join!(cache.lock("x", Duration::from_secs(5)), async { drop(lock) });
        drop(waited.unwrap());
    }

    #[test]
    fn what_is_in_use_goes_later() {
        let (_directory, cache) = cache();
        let (one, two) = (cache.states().join("one"), cache.states().join("two"));
        fs::create_dir(&one).unwrap();
        let user = File::open(&one).unwrap();
        user.lock_shared().unwrap();
        discard(&one).unwrap();
        let count = || fs::read_dir(cache.states()).unwrap().count();
        assert!(!one.exists() && count() == 1);
        drop(user);
        discard(&two).unwrap();
        assert_eq!(count(), 0);
    }

    #[test]
    fn unfinished_things_are_not_seen_and_finished_ones_replace() {
        let (_directory, cache) = cache();
        let target = cache.images().join("debian");
        let first = Unfinished::beside(&target).unwrap();
        fs::write(first.path().join("f"), "1").unwrap();
        assert!(!target.exists());
        first.finish().unwrap();
        assert_eq!(fs::read(target.join("f")).unwrap(), b"1");

        // Killed in the middle: forgotten, not dropped.
        let second = Unfinished::beside(&target).unwrap();
        fs::write(second.path().join("half"), "2").unwrap();
        std::mem::forget(second);
        let third = Unfinished::beside(&target).unwrap();
        assert!(!third.path().join("half").exists());
        fs::write(third.path().join("f"), "3").unwrap();
        assert_eq!(fs::read(target.join("f")).unwrap(), b"1");
        third.finish().unwrap();
        assert_eq!(fs::read(target.join("f")).unwrap(), b"3");
        assert_eq!(fs::read_dir(cache.images()).unwrap().count(), 1);
    }
}
