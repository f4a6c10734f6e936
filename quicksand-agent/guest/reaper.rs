//! Process 1 of an image without an init, as those of containers: it gives programs what they take for granted, and takes leave of
//! orphans.

use std::{error::Error, fs, os::unix::fs::PermissionsExt, path::Path, process::Child};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::wait::{WaitStatus, wait},
    unistd::sethostname,
};

use crate::interface;

/// What tells an agent that its process 1 is this.
pub(crate) const WORD: &str = "no-init";

/// What is mounted, unless the image has no place for it.
const MOUNTS: [(&str, &str, &str); 4] = [
    ("devpts", "/dev/pts", "gid=5,mode=0620,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("mqueue", "/dev/mqueue", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
];
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];
/// What is made where it is missing, with its mode.
const DIRECTORIES: [(&str, u32); 3] = [("/run", 0o755), ("/tmp", 0o1777), ("/var/tmp", 0o1777)];

/// Sets up what an init would. What fails is missing: nearly every program can do without any one of these.
pub(crate) fn prepare() {
    for (kind, target, options) in MOUNTS {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        let flags = if kind == "devpts" { flags } else { flags | MsFlags::MS_NODEV };
        let _ = fs::create_dir_all(target);
        let _ = mount(Some(kind), target, Some(kind), flags, Some(options));
    }
    for (target, link) in LINKS {
        let _ = std::os::unix::fs::symlink(target, link);
    }
    for (path, mode) in DIRECTORIES {
        if !Path::new(path).exists() && fs::create_dir_all(path).is_ok() {
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
        }
    }
    // As every init has it: else container engines can't share mounts with what they run.
    let _ = mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>);
    let name = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name = name.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("localhost");
    let _ = sethostname(name);
    let _ = interface::bring_up("lo");
}

/// Waits for orphans until the agent is gone.
pub(crate) fn run(agent: &Child) -> Result<(), Box<dyn Error>> {
    loop {
        match wait() {
            Ok(status @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)))
                if pid.as_raw() as u32 == agent.id() =>
            {
                return Err(format!("keep the agent alive: {status:?}").into());
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(format!("wait for orphans: {error}").into()),
        }
    }
}
