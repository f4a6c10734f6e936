//! How much memory this process's control groups allow, version 1 and 2 (`Documentation/admin-guide/cgroup-v2.rst`,
//! `cgroup-v1/memory.rst`).

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Memory under one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// All of it, in bytes.
    pub(crate) total: u64,
    /// What could still be taken, in bytes: what is free, and caches of files.
    pub(crate) available: u64,
}

/// The names of a version's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    limit: &'static str,
    usage: &'static str,
    /// In `memory.stat`: what can be had back, including that of groups below.
    caches: [&'static str; 2],
}

const ONE: Version = Version {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    caches: ["total_inactive_file", "total_active_file"],
};
const TWO: Version = Version { limit: "memory.max", usage: "memory.current", caches: ["inactive_file", "active_file"] };
/// Version 1 writes the largest number of pages where there is no limit.
const NO_LIMIT: u64 = 1 << 60;

/// The memory of each of our groups that has a limit, from ours to the outermost that we see.
pub(crate) fn memory() -> Vec<Memory> {
    // A process is put into its groups before it runs, and hardly ever moved.
    static GROUPS: OnceLock<Vec<(PathBuf, Version)>> = OnceLock::new();
    let groups = GROUPS.get_or_init(|| {
        let read = |name| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        groups(&read("cgroup"), &read("mountinfo"))
    });
    groups.iter().filter_map(|(directory, version)| read(directory, *version)).collect()
}

/// The directories of our groups.
fn groups(cgroup: &str, mountinfo: &str) -> Vec<(PathBuf, Version)> {
    let mut groups = Vec::new();
    for line in cgroup.lines() {
        // `hierarchy:controllers:path`; version 2 is hierarchy 0 and names no controllers.
        let mut fields = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let version = if hierarchy == "0" { TWO } else { ONE };
        if version == ONE && !controllers.split(',').any(|controller| controller == "memory") {
            continue;
        }
        let Some((root, mount)) = mountinfo.lines().find_map(|line| mount(line, version)) else { continue };
        // Where a container's groups are mounted, the path may be as the host sees it.
        let within = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        groups.extend(within.ancestors().map(|group| (mount.join(group), version)));
    }
    groups
}

/// `id parent device root mountpoint options - type source super-options`: the root and the mount point, where it is what we
/// look for.
fn mount(line: &str, version: Version) -> Option<(&Path, PathBuf)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let mut fields = file_system.split(' ');
    let (kind, options) = (fields.next()?, fields.nth(1)?);
    let found = match version {
        TWO => kind == "cgroup2",
        _ => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
    };
    found.then(|| (Path::new(root), PathBuf::from(point)))
}

fn read(directory: &Path, version: Version) -> Option<Memory> {
    let number = |name: &str| fs::read_to_string(directory.join(name)).ok()?.trim().parse::<u64>().ok();
    // "max" is no number.
    let total = number(version.limit).filter(|limit| *limit < NO_LIMIT)?;
    let usage = number(version.usage)?;
    let stat = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let caches: u64 = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| version.caches.contains(name))
        .filter_map(|(_, bytes)| bytes.parse::<u64>().ok())
        .sum();
    Some(Memory { total, available: total.saturating_sub(usage.saturating_sub(caches)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        35 31 0:32 /docker/a /sys/fs/cgroup/memory rw,relatime shared:1 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn the_groups_of_both_versions_are_found() {
        let paths = |cgroup: &str| -> Vec<String> {
            groups(cgroup, MOUNTS).into_iter().map(|(path, _)| path.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(
            paths("5:cpu:/x\n4:memory:/docker/a/b\n"),
            ["/sys/fs/cgroup/memory/b", "/sys/fs/cgroup/memory/"],
            "as a container sees them"
        );
        assert_eq!(
            paths("0::/user.slice/me:1\n"),
            ["unified/user.slice/me:1", "unified/user.slice", "unified/"].map(|end| format!("/sys/fs/cgroup/{end}"))
        );
        assert_eq!(paths("4:memory:/elsewhere\n"), ["/sys/fs/cgroup/memory/"], "out of sight: what we do see");
        assert_eq!(paths("nonsense"), [""; 0]);
    }

    #[test]
    fn caches_can_be_had_back() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        assert_eq!(read(directory.path(), TWO), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(read(directory.path(), TWO), None);
        write("memory.max", "1000\n");
        write("memory.stat", "anon 1\ninactive_file 100\nactive_file 50\nfile 999\n");
        assert_eq!(read(directory.path(), TWO), Some(Memory { total: 1000, available: 450 }));
        write("memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(read(directory.path(), ONE), None);
        write("memory.limit_in_bytes", "1000\n");
        write("memory.usage_in_bytes", "2000\n");
        assert_eq!(read(directory.path(), ONE), Some(Memory { total: 1000, available: 0 }));
    }
}
