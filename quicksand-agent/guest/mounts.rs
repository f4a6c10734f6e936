//! Directories of the host, mounted: FUSE file systems whose requests a [pump](crate::pump) carries to the host.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::MetadataExt,
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    mount::{MntFlags, MsFlags, mount as mount_at, umount2},
};
use quicksand_protocol::message::{Done, Failure, Mount};

use crate::{port, pump, serve::STACK};

/// How long a port may take to appear after the host has added it.
const PORT_DEADLINE: Duration = Duration::from_secs(10);
/// How often a mount that is busy is tried again, and after how long.
const UNMOUNT_TRIES: u32 = 5;
const UNMOUNT_STEP: Duration = Duration::from_millis(20);
/// How far the kernel reads ahead of a program, in KiB: the largest request that the host serves. With its own default of 128 a large
/// file comes a sixth slower.
const READ_AHEAD: u32 = 1024;
/// What is said of who keeps a mount busy: so many, since it must fit into a line.
const MOST_HOLDERS: usize = 5;

/// Mounts that there are, in the order in which they came.
static MOUNTED: Mutex<Vec<Mounted>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Mounted {
    port: String,
    path: PathBuf,
    /// Tells the file system at `path` from one that was mounted over it.
    device: u64,
    cached: bool,
}

/// Mounts a directory of the host.
pub(crate) fn mount(wanted: Mount) -> Result<Done, Failure> {
    let asked = Path::new(OsStr::from_bytes(&wanted.path));
    let at = |what: &str, e: io::Error| failure(&format!("{what} {}", asked.display()), &e);
    if !asked.is_absolute() {
        let message = format!("mount at {}: it is not an absolute path", asked.display());
        return Err(Failure { errno: 0, message });
    }
    DirBuilder::new().recursive(true).create(asked).map_err(|e| at("create", e))?;
    let path = fs::canonicalize(asked).map_err(|e| at("find", e))?;
    // By another name, as over a link or `..`. One that was put over another would hide it, and keep it when it is to go.
    if mounted().iter().any(|one| one.path == path && is_at(&path, one.device)) {
        let message = format!("mount at {}: there is a mount at {} already", asked.display(), path.display());
        return Err(Failure { errno: libc::EEXIST, message });
    }
    let port = port::open_named(&wanted.port, PORT_DEADLINE).map_err(|e| at("open the port of", e))?;
    let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(|e| at("open /dev/fuse for", e))?;

    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", fuse.as_raw_fd());
    let kind = Some("fuse.quicksand");
    mount_at(Some("quicksand"), &path, kind, flags(wanted.read_only), Some(&*options))
        .map_err(|e| at("mount at", e.into()))?;
    // The first look waits until host and kernel have agreed on how they talk.
    let ready = start_pump(fuse, port, &path).and_then(|()| fs::metadata(&path));
    match ready {
        Ok(root) => {
            read_far_ahead(root.dev());
            let Mount { port, cached, .. } = wanted;
            mounted().push(Mounted { port, path, device: root.dev(), cached });
            Ok(Done::Nothing)
        }
        Err(error) => {
            let _ = umount2(&path, MntFlags::MNT_DETACH);
            Err(at("mount at", error))
        }
    }
}

/// Has the kernel ask the host for more at once than it does by default. A guest without sysfs goes without.
fn read_far_ahead(device: u64) {
    let (major, minor) = (libc::major(device), libc::minor(device));
    let _ = fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), READ_AHEAD.to_string());
}

/// Takes a mount off, unless it is in use.
pub(crate) fn unmount(port: &str) -> Result<Done, Failure> {
    let found = mounted().iter().find(|mounted| mounted.port == port).map(|found| (found.path.clone(), found.device));
    // A guest that has unmounted it itself, or was started anew, has none.
    let Some((path, device)) = found else { return Ok(Done::Nothing) };
    let unmounted = if is_at(&path, device) { unmount_unused(&path) } else { Ok(()) };
    match unmounted {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {
            mounted().retain(|mounted| mounted.port != port);
            Ok(Done::Nothing)
        }
        Err(error) => {
            let users = if error == Errno::EBUSY { holders(&path) } else { error.desc().to_owned() };
            Err(Failure { errno: error as i32, message: users })
        }
    }
}

fn unmount_unused(path: &Path) -> Result<(), Errno> {
    for _ in 0..UNMOUNT_TRIES {
        match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
            // A service that looks at each new mount may be at it just now.
            Err(Errno::EBUSY) => thread::sleep(UNMOUNT_STEP),
            other => return other,
        }
    }
    umount2(path, MntFlags::UMOUNT_NOFOLLOW)
}

/// Has the guest look anew at what the host may have changed: what begins now sees the host's files as they are now.
pub(crate) fn refresh() {
    let paths: Vec<PathBuf> = mounted().iter().filter(|one| !one.cached).map(|one| one.path.clone()).collect();
    paths.iter().for_each(|path| forget_unused(path));
}

/// Has the kernel forget all files of a mount that nobody uses at this moment.
#[allow(unsafe_code)]
pub(crate) fn forget_unused(path: &Path) {
    const FSPICK_CLOEXEC: u32 = 1;
    const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return };
    // A change of a file system's options has the kernel drop the names that it keeps of it, also where nothing is to change, and
    // FUSE drops a file with its last name. Kernels before 5.2 have no such call: what a guest has seen there holds for a second.
    // SAFETY: the path is a C string that outlives the call.
    let picked = unsafe { libc::syscall(libc::SYS_fspick, libc::AT_FDCWD, path.as_ptr(), FSPICK_CLOEXEC) };
    if picked >= 0 {
        // SAFETY: the number is a descriptor that the call above has just made, and nobody else has.
        let picked = unsafe { OwnedFd::from_raw_fd(picked as i32) };
        let none = std::ptr::null::<libc::c_void>();
        // SAFETY: this command takes no key and no value.
        unsafe { libc::syscall(libc::SYS_fsconfig, picked.as_raw_fd(), FSCONFIG_CMD_RECONFIGURE, none, none, 0) };
    }
}

/// Whether the file system at `path` is that one. Asks no host: the answer lies in the kernel.
fn is_at(path: &Path, device: u64) -> bool {
    // The root of a mount whose server has gone can't be asked any more, but it is still the mount.
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let device = format!("{major}:{minor}");
    let top = table.split(|&b| b == b'\n').map(|line| line.split(|&b| b == b' ').collect::<Vec<_>>());
    let mut top = top.filter(|fields| fields.len() > 4 && unescape(fields[4]) == path.as_os_str().as_bytes());
    // The last one in the table lies over the others.
    top.next_back().is_some_and(|fields| fields[2] == device.as_bytes())
}

/// A path from `/proc/self/mountinfo`, where space, tab, newline and backslash are written as octal numbers.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        let number = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let number = number.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(number.unwrap_or(*first));
        rest = if number.is_some() { &tail[3..] } else { tail };
    }
    plain
}

fn flags(read_only: bool) -> MsFlags {
    let read_only = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    read_only | MsFlags::MS_NOSUID | MsFlags::MS_NODEV
}

/// Starts this program as a pump between the two. A process of its own: when it ends, however that comes, the kernel sees the file
/// system's server as gone at once, and whoever waits for it gets an error.
fn start_pump(fuse: File, port: File, path: &Path) -> io::Result<()> {
    let mut child = Command::new("/proc/self/exe")
        .arg0("@quicksand-mount")
        .arg(pump::WORD)
        .arg(path)
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(fuse)))
        .stdout(Stdio::from(OwnedFd::from(port)))
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    // Reaped when it ends; there is nothing to be done then.
    thread::Builder::new().stack_size(STACK).spawn(move || child.wait()).map(drop)
}

/// Who keeps a mount busy, in words.
fn holders(path: &Path) -> String {
    let mut found: Vec<String> = Vec::new();
    let mut more = 0;
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Some(how) = hold(&process.path(), path) else { continue };
        if found.len() == MOST_HOLDERS {
            more += 1;
            continue;
        }
        let name = fs::read(process.path().join("comm")).unwrap_or_default();
        found.push(format!("{} (process {pid}) {how}", String::from_utf8_lossy(&name).trim_end()));
    }
    match (found.is_empty(), more) {
        (true, _) => "something other than a process uses it, as a mount inside it".to_owned(),
        (false, 0) => found.join(", "),
        (false, more) => format!("{}, and {more} more", found.join(", ")),
    }
}

/// How a process uses what is below `path`.
fn hold(process: &Path, path: &Path) -> Option<String> {
    let inside = |link: PathBuf| fs::read_link(link).ok().filter(|target| target.starts_with(path));
    if let Some(directory) = inside(process.join("cwd")) {
        return Some(format!("is in {}", directory.display()));
    }
    if inside(process.join("root")).is_some() {
        return Some("has its root there".to_owned());
    }
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().find_map(|fd| inside(fd.path()));
    if let Some(file) = open {
        return Some(format!("has {} open", file.display()));
    }
    // Programs that run, and files that are mapped.
    let maps = fs::read(process.join("maps")).unwrap_or_default();
    let mapped =
        maps.split(|&b| b == b'\n').filter_map(|line| line.iter().position(|&b| b == b'/').map(|at| &line[at..]));
    let mut mapped = mapped.map(|file| PathBuf::from(OsString::from_vec(file.to_vec())));
    mapped.find(|file| file.starts_with(path)).map(|file| format!("has {} mapped", file.display()))
}

fn failure(what: &str, error: &io::Error) -> Failure {
    Failure { errno: error.raw_os_error().unwrap_or(0), message: format!("{what}: {error}") }
}

fn mounted() -> MutexGuard<'static, Vec<Mounted>> {
    MOUNTED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_mount_table_are_read() {
        assert_eq!(unescape(b"/a\\040b\\134c"), b"/a b\\c");
        assert_eq!(unescape(b"/x\\"), b"/x\\");
        assert_eq!(unescape(b"/x\\999"), b"/x\\999");
    }

    #[test]
    fn a_file_system_is_known_by_its_device() {
        let device = fs::metadata("/proc").unwrap().dev();
        assert!(is_at(Path::new("/proc"), device));
        assert!(!is_at(Path::new("/proc"), device + 1) && !is_at(Path::new("/proc/self"), device));
    }

    #[test]
    fn holders_are_named() {
        let directory = tempfile_in_target();
        assert_eq!(hold(Path::new("/proc/self"), &directory), None);
        let file = File::create(directory.join("held")).unwrap();
        let how = hold(Path::new("/proc/self"), &directory).unwrap();
        assert!(how.ends_with("held open"), "{how}");
        assert!(holders(&directory).contains(&format!("(process {})", std::process::id())));
        drop(file);
        fs::remove_dir_all(&directory).unwrap();
    }

    fn tempfile_in_target() -> PathBuf {
        let directory = std::env::temp_dir().join(format!("quicksand-holders-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::canonicalize(directory).unwrap()
    }
}
