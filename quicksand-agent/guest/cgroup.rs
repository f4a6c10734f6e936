//! The control group of the agent, and of all that it starts.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use rustix::fs::{XattrFlags, setxattr};

/// Where control groups are, under every systemd.
const ROOT: &str = "/sys/fs/cgroup";
/// Ours: at the top, with none of the limits that systemd gives its units. No unit has such a name, and systemd leaves groups alone
/// that it has not made and that are in use.
const OURS: &str = "quicksand";
/// The one that systemd puts all into that runs before it does.
const OF_INIT: &str = "/init.scope";
/// Where systemd listens, once it has done that.
const SYSTEMD_LISTENS: &str = "/run/systemd/private";
/// How long it may take until it does. After that a program shares what systemd itself may have.
const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);
/// What tells systemd-oomd, which kills a group as a whole, to choose another one: ours has the agent in it.
const SPARED: &str = "user.oomd_omit";

/// Leaves the group of systemd's own process as soon as we are in it. That one may have a few hundred tasks: our programs would
/// get no more than these together, and where they took them all, systemd could start no service any more.
pub(crate) fn leave_inits() {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // In this order: one that listens has moved us before.
        let listens = Path::new(SYSTEMD_LISTENS).exists();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        if groups.lines().any(|line| of_init(line).is_some()) {
            // One that can't be left is lived in.
            return groups.lines().filter_map(of_init).filter_map(better).for_each(|group| drop(enter(&group)));
        }
        if listens || Instant::now() >= deadline {
            return;
        }
        thread::sleep(STEP);
    }
}

/// The controllers of a line `number:controllers:path` of `/proc/self/cgroup`, none in the second version, where the path is init's.
fn of_init(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    (path == OF_INIT).then_some(controllers)
}

/// Where processes belong that shared a group with systemd for these controllers.
fn better(controllers: &str) -> Option<PathBuf> {
    let root = Path::new(ROOT);
    match controllers {
        // Beside the first version, the second one limits nothing.
        "" => root.join("cgroup.procs").exists().then(|| root.join(OURS)),
        // The first version has a tree for each controller, in whose root processes may stay.
        "pids" => Some(root.join("pids")),
        _ => None,
    }
}

fn enter(group: &Path) -> io::Result<()> {
    fs::create_dir_all(group)?;
    // Kernels before 5.7 keep no such thing of a group.
    let _ = setxattr(group, SPARED, b"1", XattrFlags::empty());
    fs::write(group.join("cgroup.procs"), process::id().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_init_is_told_from_others() {
        assert_eq!(of_init("0::/init.scope"), Some(""));
        assert_eq!(of_init("7:pids:/init.scope"), Some("pids"));
        for line in
            ["0::/", "0::/quicksand", "1:name=systemd:/system.slice/a:b.service", "0::/user.slice/init.scope", ""]
        {
            assert_eq!(of_init(line), None, "{line}");
        }
    }
}
