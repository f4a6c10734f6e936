//! [`Guard`]: what stands between a request and the library that carries it out.
//!
//! Of each operation that is served it takes what a guest has no business with: names that lead elsewhere, flags that open
//! something else than a file, set-id bits, devices, users, and more files than a host should hold for a guest. An operation
//! that is not written here is not served.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fuse_backend_rs::{
    abi::fuse_abi::CreateIn,
    api::filesystem::{
        Context, DirEntry, Entry, FileSystem, FsOptions, OpenOptions, SetattrValid, ZeroCopyReader, ZeroCopyWriter,
    },
    passthrough::{CachePolicy, Config, PassthroughFs},
};
use nix::{
    errno::Errno,
    libc::{self, stat64, statvfs64},
};

use super::{
    Options,
    hard_link::{Named, hard_link},
    known::{Known, Limits},
    owners::{Owner, Owners},
};

/// How long a guest takes what it has seen for true, within one command. Each command of a guest begins by forgetting it.
const SHORT: Duration = Duration::from_secs(1);
/// The same where nobody else changes the directory.
const LONG: Duration = Duration::from_secs(3600);

/// What is negotiated, of what the guest's kernel offers: large reads and writes, several at once, and a cache of links' targets.
/// A change of a file's time empties the guest's cache of the file, unless only the guest can have made it.
const OFFERS: FsOptions = FsOptions::ASYNC_READ
    .union(FsOptions::ATOMIC_O_TRUNC)
    .union(FsOptions::BIG_WRITES)
    .union(FsOptions::AUTO_INVAL_DATA)
    .union(FsOptions::PARALLEL_DIROPS)
    .union(FsOptions::MAX_PAGES)
    .union(FsOptions::CACHE_SYMLINKS);

/// Flags with which a file may be opened. Among those that are left out: `O_PATH` and `O_TMPFILE`, which open something else,
/// `O_NOFOLLOW`, which the library needs as it is, and `O_DIRECT`, which is between a guest's program and its own kernel.
const OPEN_FLAGS: i32 =
    libc::O_ACCMODE | libc::O_APPEND | libc::O_TRUNC | libc::O_EXCL | libc::O_NONBLOCK | libc::O_SYNC;
/// Those that a file which is open may have.
const STATUS_FLAGS: i32 = OPEN_FLAGS & !(libc::O_TRUNC | libc::O_EXCL);
/// Kinds of files that a guest may make as nodes: devices would be the host's.
const NODES: [u32; 4] = [0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK];
const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

type Result<T> = io::Result<T>;
/// An open file: its handle, and how the guest's kernel is to treat it.
type Opened = (Option<u64>, OpenOptions, Option<u32>);

/// Guards the library's file system.
pub(super) struct Guard {
    inner: PassthroughFs,
    root: OwnedFd,
    options: Options,
    known: Mutex<Known>,
    handles: Mutex<usize>,
    most_handles: usize,
    owners: Mutex<Owners>,
}

impl Guard {
    pub(super) fn new(directory: BorrowedFd<'_>, options: Options, limits: Limits) -> Result<Guard> {
        let root = directory.try_clone_to_owned()?;
        let timeout = if options.cached { LONG } else { SHORT };
        let config = Config {
            // The directory that was opened, wherever it is by now. The dot makes the library follow the link.
            root_dir: format!("/proc/self/fd/{}/.", root.as_raw_fd()),
            entry_timeout: timeout,
            attr_timeout: timeout,
            cache_policy: CachePolicy::Auto,
            // Nothing of a file is remembered that the guest has forgotten.
            use_host_ino: true,
            ..Config::default()
        };
        Ok(Guard {
            inner: PassthroughFs::new(config)?,
            root,
            options,
            known: Mutex::new(Known::new(limits.files)),
            handles: Mutex::new(0),
            most_handles: limits.handles,
            owners: Mutex::new(Owners::new(options.owner, options.cached)),
        })
    }

    /// Whether the guest should be asked to forget files, now.
    pub(super) fn wants_room(&self) -> bool {
        self.known().wants_room()
    }

    /// Refuses a name for a new file, or any new file where the guest knows of too many.
    fn check_new(&self, name: &CStr) -> Result<()> {
        check_name(name)?;
        if self.known().has_room() { Ok(()) } else { Err(Errno::ENFILE.into()) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// Opens one more file, unless the guest has enough of them open.
    fn opening(&self, open: impl FnOnce() -> Result<Opened>) -> Result<Opened> {
        let mut handles = lock(&self.handles);
        if *handles >= self.most_handles {
            return Err(Errno::ENFILE.into());
        }
        let (handle, mut opened, passthrough) = open()?;
        *handles += 1;
        if self.options.cached {
            opened |= OpenOptions::KEEP_CACHE;
        }
        Ok((handle, opened, passthrough))
    }

    fn closing(&self, close: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut handles = lock(&self.handles);
        close()?;
        *handles = handles.saturating_sub(1);
        Ok(())
    }

    /// Takes note of a file that the guest is about to know of, or gives it up where the guest knows of too many.
    fn admit(&self, entry: Entry) -> Result<Entry> {
        if !self.take_note(&entry) {
            return Err(Errno::ENFILE.into());
        }
        Ok(self.shown(entry))
    }

    /// Whether there is room for the file. Where there is none the library forgets it at once.
    fn take_note(&self, entry: &Entry) -> bool {
        let mut known = self.known();
        let room = known.has_room_for(entry.inode);
        if room {
            known.add(entry.inode);
        } else {
            self.inner.forget(&Context::default(), entry.inode, 1);
        }
        room
    }

    fn shown(&self, mut entry: Entry) -> Entry {
        (entry.attr, entry.attr_timeout) = self.owned((entry.attr, entry.attr_timeout));
        entry
    }

    /// Shows the owner as the guest is to see it, and for how long that holds.
    fn owned(&self, (file, timeout): (stat64, Duration)) -> (stat64, Duration) {
        let owners = self.owners();
        // Programs ask for the owners of directories before they trust what is in them, in one command as several users.
        let is_directory = file.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let timeout = if is_directory && owners.depends_on_caller(&file) { Duration::ZERO } else { timeout };
        (owners.shown(file), timeout)
    }

    fn owners(&self) -> MutexGuard<'_, Owners> {
        lock(&self.owners)
    }

    /// Like [`admit`](Guard::admit), for what the caller has just made.
    fn admit_new(&self, entry: Entry) -> Result<Entry> {
        self.owners().made(&entry.attr);
        self.admit(entry)
    }

    /// The file of a name that is about to go; `None` where it keeps others, or is not there.
    fn last_name(&self, context: &Context, parent: u64, name: &CStr) -> Option<stat64> {
        let entry = self.inner.lookup(context, parent, name).ok()?;
        self.inner.forget(context, entry.inode, 1);
        let is_last = entry.attr.st_nlink <= 1 || entry.attr.st_mode & libc::S_IFMT == libc::S_IFDIR;
        is_last.then_some(entry.attr)
    }

    /// Does what takes a name away, and forgets the owner of what has none left.
    fn taking_away(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        take: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let gone = self.last_name(context, parent, name);
        take()?;
        if let Some(file) = gone {
            self.owners().forget(&file);
        }
        Ok(())
    }

    /// Where the kernel says that a file is, and which one it is.
    fn named(&self, context: &Context, file: u64) -> Result<(PathBuf, stat64)> {
        let path = self.inner.readlinkat_proc_file(file)?;
        Ok((path, self.inner.getattr(context, file, None)?.0))
    }
}

impl FileSystem for Guard {
    type Inode = u64;
    type Handle = u64;

    fn init(&self, capable: FsOptions) -> Result<FsOptions> {
        let wanted = self.inner.init(capable)?;
        let known_here = FsOptions::DO_READDIRPLUS | FsOptions::READDIRPLUS_AUTO;
        let unneeded = if self.options.cached { FsOptions::AUTO_INVAL_DATA } else { FsOptions::empty() };
        Ok((wanted & known_here | OFFERS) - unneeded)
    }

    /// All is done as who serves, whoever of the guest asks.
    fn id_remap(&self, context: &mut Context) -> Result<()> {
        self.owners().set_caller(Owner { user: context.uid, group: context.gid });
        // For the library these mean: do not switch.
        (context.uid, context.gid) = (0, 0);
        Ok(())
    }

    fn lookup(&self, context: &Context, parent: u64, name: &CStr) -> Result<Entry> {
        check_name(name)?;
        self.admit(self.inner.lookup(context, parent, name)?)
    }

    fn forget(&self, context: &Context, file: u64, count: u64) {
        self.known().forget(file, count);
        self.inner.forget(context, file, count);
    }

    fn batch_forget(&self, context: &Context, requests: Vec<(u64, u64)>) {
        let mut known = self.known();
        for &(file, count) in &requests {
            known.forget(file, count);
        }
        self.inner.batch_forget(context, requests);
    }

    fn getattr(&self, context: &Context, file: u64, handle: Option<u64>) -> Result<(stat64, Duration)> {
        Ok(self.owned(self.inner.getattr(context, file, handle)?))
    }

    fn setattr(
        &self,
        context: &Context,
        file: u64,
        mut attributes: stat64,
        handle: Option<u64>,
        mut valid: SetattrValid,
    ) -> Result<(stat64, Duration)> {
        // The host's owner stays; the guest's is kept by us.
        let owner = valid & (SetattrValid::UID | SetattrValid::GID);
        if !owner.is_empty() {
            let (file, _) = self.inner.getattr(context, file, handle)?;
            self.owners().change(&file, &attributes, owner)?;
        }
        valid.remove(owner);
        attributes.st_mode &= !SET_ID;
        Ok(self.owned(self.inner.setattr(context, file, attributes, handle, valid)?))
    }

    fn readlink(&self, context: &Context, file: u64) -> Result<Vec<u8>> {
        self.inner.readlink(context, file)
    }

    fn symlink(&self, context: &Context, target: &CStr, parent: u64, name: &CStr) -> Result<Entry> {
        self.check_new(name)?;
        self.admit_new(self.inner.symlink(context, target, parent, name)?)
    }

    fn mknod(&self, context: &Context, parent: u64, name: &CStr, mode: u32, device: u32, umask: u32) -> Result<Entry> {
        self.check_new(name)?;
        if !NODES.contains(&(mode & libc::S_IFMT)) {
            return Err(Errno::EPERM.into());
        }
        self.admit_new(self.inner.mknod(context, parent, name, mode & !SET_ID, device, umask)?)
    }

    fn mkdir(&self, context: &Context, parent: u64, name: &CStr, mode: u32, umask: u32) -> Result<Entry> {
        self.check_new(name)?;
        self.admit_new(self.inner.mkdir(context, parent, name, mode & !SET_ID, umask)?)
    }

    fn unlink(&self, context: &Context, parent: u64, name: &CStr) -> Result<()> {
        check_name(name)?;
        self.taking_away(context, parent, name, || self.inner.unlink(context, parent, name))
    }

    fn rmdir(&self, context: &Context, parent: u64, name: &CStr) -> Result<()> {
        check_name(name)?;
        self.taking_away(context, parent, name, || self.inner.rmdir(context, parent, name))
    }

    fn rename(&self, context: &Context, from: u64, name: &CStr, to: u64, new_name: &CStr, flags: u32) -> Result<()> {
        check_name(name)?;
        check_name(new_name)?;
        // That would leave a device node.
        if flags & libc::RENAME_WHITEOUT != 0 {
            return Err(Errno::EINVAL.into());
        }
        let rename = || self.inner.rename(context, from, name, to, new_name, flags);
        if flags & libc::RENAME_EXCHANGE != 0 { rename() } else { self.taking_away(context, to, new_name, rename) }
    }

    fn link(&self, context: &Context, file: u64, parent: u64, name: &CStr) -> Result<Entry> {
        self.check_new(name)?;
        let (file_path, file) = self.named(context, file)?;
        let (parent_path, directory) = self.named(context, parent)?;
        let file = Named { path: &file_path, device: file.st_dev, number: file.st_ino };
        let directory = Named { path: &parent_path, device: directory.st_dev, number: directory.st_ino };
        hard_link(self.root.as_fd(), &file, &directory, name)?;
        self.admit(self.inner.lookup(context, parent, name)?)
    }

    fn open(&self, context: &Context, file: u64, flags: u32, fuse_flags: u32) -> Result<Opened> {
        let flags = flags as i32;
        let changes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & (libc::O_TRUNC | libc::O_CREAT) != 0;
        if self.options.read_only && changes {
            return Err(Errno::EROFS.into());
        }
        self.opening(|| self.inner.open(context, file, (flags & OPEN_FLAGS) as u32, fuse_flags))
    }

    fn create(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mut arguments: CreateIn,
    ) -> Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        self.check_new(name)?;
        arguments.flags &= OPEN_FLAGS as u32;
        arguments.mode &= !SET_ID;
        // A file of another may be there by now: it keeps its owner.
        let existed = self.inner.lookup(context, parent, name).inspect(|entry| {
            self.inner.forget(context, entry.inode, 1);
        });
        let existed = existed.is_ok();
        let mut made = None;
        let (handle, opened, passthrough) = self.opening(|| {
            let (entry, handle, opened, passthrough) = self.inner.create(context, parent, name, arguments)?;
            made = Some(entry);
            Ok((handle, opened, passthrough))
        })?;
        let entry = made.ok_or(Errno::EIO)?;
        let entry = if existed { self.admit(entry)? } else { self.admit_new(entry)? };
        Ok((entry, handle, opened, passthrough))
    }

    fn read(
        &self,
        context: &Context,
        file: u64,
        handle: u64,
        to: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> Result<usize> {
        let flags = flags & STATUS_FLAGS as u32;
        self.inner.read(context, file, handle, to, size, offset, lock_owner, flags)
    }

    fn write(
        &self,
        context: &Context,
        file: u64,
        handle: u64,
        from: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed_write: bool,
        flags: u32,
        fuse_flags: u32,
    ) -> Result<usize> {
        let flags = flags & STATUS_FLAGS as u32;
        self.inner.write(context, file, handle, from, size, offset, lock_owner, delayed_write, flags, fuse_flags)
    }

    fn fsync(&self, context: &Context, file: u64, data_only: bool, handle: u64) -> Result<()> {
        self.inner.fsync(context, file, data_only, handle)
    }

    fn fallocate(&self, context: &Context, file: u64, handle: u64, mode: u32, offset: u64, length: u64) -> Result<()> {
        self.inner.fallocate(context, file, handle, mode, offset, length)
    }

    fn release(
        &self,
        context: &Context,
        file: u64,
        flags: u32,
        handle: u64,
        flush: bool,
        flock_release: bool,
        lock_owner: Option<u64>,
    ) -> Result<()> {
        self.closing(|| self.inner.release(context, file, flags, handle, flush, flock_release, lock_owner))
    }

    fn statfs(&self, context: &Context, file: u64) -> Result<statvfs64> {
        self.inner.statfs(context, file)
    }

    fn opendir(&self, context: &Context, file: u64, _flags: u32) -> Result<(Option<u64>, OpenOptions)> {
        let (handle, opened, _) = self.opening(|| {
            let (handle, opened) = self.inner.opendir(context, file, 0)?;
            Ok((handle, opened, None))
        })?;
        // What is kept of a directory is kept by names; its listing is read anew each time.
        Ok((handle, opened - OpenOptions::KEEP_CACHE))
    }

    fn readdir(
        &self,
        context: &Context,
        file: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>) -> Result<usize>,
    ) -> Result<()> {
        self.inner.readdir(context, file, handle, size, offset, add)
    }

    fn readdirplus(
        &self,
        context: &Context,
        file: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>, Entry) -> Result<usize>,
    ) -> Result<()> {
        self.inner.readdirplus(context, file, handle, size, offset, &mut |name, entry| {
            if !self.known().has_room_for(entry.inode) {
                // The name is listed, and nothing is said of the file: that is what 0 means here.
                let number = entry.inode;
                let added = add(name, Entry { inode: 0, ..self.shown(entry) })?;
                if added > 0 {
                    self.inner.forget(context, number, 1);
                }
                return Ok(added);
            }
            let number = entry.inode;
            let added = add(name, self.shown(entry))?;
            if added > 0 {
                self.known().add(number);
            }
            Ok(added)
        })
    }

    fn fsyncdir(&self, context: &Context, file: u64, data_only: bool, handle: u64) -> Result<()> {
        self.inner.fsyncdir(context, file, data_only, handle)
    }

    fn releasedir(&self, context: &Context, file: u64, flags: u32, handle: u64) -> Result<()> {
        self.closing(|| self.inner.releasedir(context, file, flags, handle))
    }

    fn access(&self, context: &Context, file: u64, mask: u32) -> Result<()> {
        self.inner.access(context, file, mask)
    }

    fn lseek(&self, context: &Context, file: u64, handle: u64, offset: u64, whence: u32) -> Result<u64> {
        self.inner.lseek(context, file, handle, offset, whence)
    }
}

/// Refuses what is no name of a file in a directory. The library itself would look up `.` and `..`.
fn check_name(name: &CStr) -> Result<()> {
    let name = name.to_bytes();
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
