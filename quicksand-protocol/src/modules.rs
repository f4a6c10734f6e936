//! Which of a kernel's modules a guest needs before its root file system is there, and in what order.
//!
//! A kernel's `modules.dep` has a line `PATH: PATH...` for each module: what it needs, and what these need.
//! `modules.builtin` names the modules that are part of the kernel itself.
//!
//! The host asks that of an image's kernel, and the guest of one that was installed in it.

use std::collections::{HashMap, HashSet};

/// Modules that a guest needs and its kernel does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("find the kernel's modules {}", .names.join(", "))]
pub struct Missing {
    /// Their names.
    pub names: Vec<String>,
}

/// What a guest can't do without: its devices.
const REQUIRED: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_console", "virtio_net"];
/// What it has where its kernel has it: mounts from the host; and what file systems ask the kernel for by an algorithm's name,
/// which no `modules.dep` knows. Kernels differ in which of them there is.
const OPTIONAL: [&str; 6] = ["fuse", "crc32c_generic", "crc32c", "xxhash_generic", "blake2b_generic", "sha256_generic"];

/// The files of the modules that a guest needs, relative to the directory of `modules.dep`, in the order to load them. The last
/// is its root file system, of the kind that `file_system` names.
///
/// # Errors
///
/// [`Missing`].
pub fn needed(dependencies: &str, built_in: &str, file_system: &str) -> Result<Vec<String>, Missing> {
    let mut resolver = Resolver::new(dependencies, built_in);
    for name in REQUIRED {
        resolver.add(name, true);
    }
    // Algorithms only where they may be asked for, which is where the file system is a module or may use more than one.
    let algorithms = if file_system == "btrfs" { OPTIONAL.len() } else { 3 };
    for name in &OPTIONAL[..algorithms] {
        resolver.add(name, false);
    }
    resolver.add(file_system, true);
    resolver.finish()
}

/// The same, with other modules at the end, as far as there are any.
///
/// # Errors
///
/// [`Missing`].
pub fn needed_with(
    dependencies: &str,
    built_in: &str,
    file_system: &str,
    extras: &[&str],
) -> Result<Vec<String>, Missing> {
    let mut all = needed(dependencies, built_in, file_system)?;
    let mut resolver = Resolver::new(dependencies, built_in);
    for name in extras {
        resolver.add(name, false);
    }
    let more: Vec<_> = resolver.finish()?.into_iter().filter(|path| !all.contains(path)).collect();
    all.extend(more);
    Ok(all)
}

struct Resolver<'a> {
    /// For each module's name its file and the files that it needs.
    table: HashMap<String, (&'a str, Vec<&'a str>)>,
    built_in: HashSet<String>,
    seen: HashSet<String>,
    order: Vec<&'a str>,
    missing: Vec<String>,
}

impl<'a> Resolver<'a> {
    fn new(dependencies: &'a str, built_in: &str) -> Resolver<'a> {
        let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
        let table = lines
            .map(|(path, needs)| (name_of(path.trim()), (path.trim(), needs.split_ascii_whitespace().collect())))
            .collect();
        let built_in = built_in.lines().map(|path| name_of(path.trim())).collect();
        Resolver { table, built_in, seen: HashSet::new(), order: Vec::new(), missing: Vec::new() }
    }

    /// Adds a module after all that it needs. One that was seen is there, or is about to be: that ends cycles too.
    fn add(&mut self, name: &str, required: bool) {
        let name = name_of(name);
        if self.built_in.contains(&name) || self.seen.contains(&name) {
            return;
        }
        let Some((path, needs)) = self.table.get(&name).cloned() else {
            if required {
                self.seen.insert(name.clone());
                self.missing.push(name);
            }
            return;
        };
        self.seen.insert(name);
        // The line lists a module before what that one needs; modprobe too goes through it from its end.
        for need in needs.into_iter().rev() {
            self.add(need, true);
        }
        self.order.push(path);
    }

    fn finish(self) -> Result<Vec<String>, Missing> {
        if !self.missing.is_empty() {
            return Err(Missing { names: self.missing });
        }
        Ok(self.order.into_iter().map(str::to_owned).collect())
    }
}

/// A module's name from its name or path: the kernel takes `-` and `_` for the same.
pub fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let file = [".xz", ".zst", ".gz"].into_iter().find_map(|ending| file.strip_suffix(ending)).unwrap_or(file);
    file.strip_suffix(".ko").unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As of Debian 12's cloud kernel.
    const DEBIAN: &str = "\
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_pci_modern_dev.ko:
kernel/drivers/virtio/virtio_pci_legacy_dev.ko:
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_legacy_dev.ko \
kernel/drivers/virtio/virtio_pci_modern_dev.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/virtio_console.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/net/core/failover.ko:
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko \
kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/fs/fuse/fuse.ko:
";

    fn names(paths: &[String]) -> Vec<String> {
        paths.iter().map(|path| name_of(path)).collect()
    }

    #[test]
    fn debians_cloud_kernel() {
        let order = needed(DEBIAN, "kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c_generic.ko\n", "ext4").unwrap();
        let expected = "virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk \
                        virtio_console failover net_failover virtio_net fuse";
        assert_eq!(names(&order).join(" "), expected);
        assert_eq!(order[0], "kernel/drivers/virtio/virtio_ring.ko");
    }

    #[test]
    fn ext4_as_a_module_comes_after_its_checksum() {
        let more = "kernel/fs/mbcache.ko:\nkernel/fs/jbd2/jbd2.ko:\nkernel/crypto/crc32c_generic.ko:\n\
                    kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko\n";
        let order = names(&needed(&format!("{DEBIAN}{more}"), "", "ext4").unwrap());
        assert_eq!(order[11..].join(" "), "crc32c_generic mbcache jbd2 ext4");
    }

    #[test]
    fn another_file_system_brings_what_it_needs() {
        let more = "kernel/lib/libcrc32c.ko:\nkernel/lib/raid6_pq.ko:\nkernel/crypto/crc32c_generic.ko:\n\
                    kernel/crypto/xxhash_generic.ko:\nkernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko\n\
                    kernel/fs/btrfs/btrfs.ko: kernel/lib/raid6_pq.ko kernel/lib/libcrc32c.ko\n";
        let of = |file_system| names(&needed(&format!("{DEBIAN}{more}"), "", file_system).unwrap())[11..].join(" ");
        assert_eq!(of("xfs"), "crc32c_generic libcrc32c xfs");
        assert_eq!(of("btrfs"), "crc32c_generic xxhash_generic libcrc32c raid6_pq btrfs");
    }

    #[test]
    fn all_built_in_is_nothing_to_load() {
        let built_in = REQUIRED.map(|name| format!("kernel/x/{}.ko", name.replace('_', "-"))).join("\n") + "\next4.ko";
        assert!(needed("", &built_in, "ext4").unwrap().is_empty());
    }

    #[test]
    fn a_dependency_may_be_built_in() {
        let order = needed(DEBIAN, "kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio-ring.ko", "ext4").unwrap();
        assert_eq!(name_of(&order[0]), "virtio");
    }

    #[test]
    fn missing_ones_are_all_named() {
        let without: String =
            DEBIAN.lines().filter(|line| !line.contains("virtio_net")).map(|line| format!("{line}\n")).collect();
        assert_eq!(needed(&without, "", "ext4").unwrap_err().names, ["virtio_net", "ext4"]);
        // A line that needs a file without a line of its own.
        let error = needed("a/virtio_pci.ko: a/lost-one.ko\n", DEBIAN, "ext4").unwrap_err();
        assert!(error.names.contains(&"lost_one".to_owned()), "{error}");
    }

    #[test]
    fn cycles_end() {
        let mut resolver = Resolver::new("a.ko: b.ko a.ko\nb.ko: a.ko\n", "");
        resolver.add("a", true);
        assert_eq!(resolver.finish().unwrap(), ["b.ko", "a.ko"]);
    }

    #[test]
    fn dash_and_underscore_are_one() {
        let mut resolver = Resolver::new("k/snd-core.ko:\nk/snd_pcm.ko: k/snd-core.ko\n", "");
        resolver.add("snd-pcm", true);
        resolver.add("snd_core", true);
        assert_eq!(resolver.finish().unwrap(), ["k/snd-core.ko", "k/snd_pcm.ko"]);
    }

    #[test]
    fn compressed_modules_are_found_by_the_same_names() {
        for compression in ["xz", "zst", "gz"] {
            let compressed = DEBIAN.replace(".ko", &format!(".ko.{compression}"));
            let order = needed(&compressed, "kernel/fs/ext4/ext4.ko", "ext4").unwrap();
            assert_eq!(names(&order), names(&needed(DEBIAN, "kernel/fs/ext4/ext4.ko", "ext4").unwrap()));
            assert!(order.iter().all(|path| path.ends_with(compression)));
        }
    }

    #[test]
    fn garbage_is_missing_modules() {
        assert!(needed("\0:::\n: :\nx", "\n\n/", "ext4").is_err());
    }
}
