//! Which kernel the guest's boot loader would boot; without a boot loader, the one that `/vmlinuz` leads to or a newer one that came
//! later, else the newest.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use quicksand_protocol::kernel::compare;

use super::{banner_of, bls, grub, modules_of, syslinux};

/// Most files that are looked at in a directory.
const MOST_FILES: usize = 1000;

/// The kernel's file. `None` where there is none: something else boots this system.
pub(super) fn choose(root: &Path) -> Option<PathBuf> {
    let loaders = [grub::choose, bls::systemd_boot, syslinux::choose];
    loaders.into_iter().find_map(|loader| loader(root)).or_else(|| newest_or_linked(root))
}

/// A file that a boot loader's configuration names, which it sees from the top of a disk: that may be the root, or what is mounted
/// on `/boot`, or a subvolume above. `base` is where the configuration is.
pub(super) fn named(root: &Path, base: &Path, name: &str) -> Option<PathBuf> {
    // GRUB names a disk before it: (hd0,1)/vmlinuz, ($root)/vmlinuz.
    let name = name.strip_prefix('(').and_then(|rest| Some(rest.split_once(')')?.1)).unwrap_or(name);
    let (relative, file) = (name.trim_start_matches('/'), Path::new(name).file_name()?);
    let places = if name.starts_with('/') {
        [root.join(relative), root.join("boot").join(relative), root.join("boot").join(file)]
    } else {
        [base.join(relative), root.join("boot").join(relative), root.join(relative)]
    };
    places.into_iter().find(|path| path.is_file())
}

/// Distributions keep a link to the kernel that was installed last, whose version need not be the highest; scripts that put a kernel
/// into `/boot` know nothing of it. So a newer kernel counts where it came after the link.
fn newest_or_linked(root: &Path) -> Option<PathBuf> {
    let newest = newest(root);
    let links = ["vmlinuz", "boot/vmlinuz"].map(|link| root.join(link));
    let links = links.into_iter().filter(|link| link.is_symlink());
    let linked = links.filter_map(|link| Some((fs::canonicalize(&link).ok()?, link))).find(|(to, _)| to.is_file());
    let Some((target, link)) = linked else { return newest };
    let changed = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|it| (it.ctime(), it.ctime_nsec()));
    let came_later = |newest: &PathBuf| changed(fs::metadata(newest)) > changed(fs::symlink_metadata(&link));
    let is_newer = |newest: &PathBuf| {
        let of = |path| banner_of(path).filter(|banner| modules_of(root, &banner.release).is_some());
        let (newest, target) = (of(newest), banner_of(&target));
        newest.zip(target).is_some_and(|(newest, target)| compare(&newest.release, &target.release).is_gt())
    };
    newest.filter(|newest| came_later(newest) && is_newer(newest)).or(Some(target))
}

/// The newest kernel, and rather one that has modules.
fn newest(root: &Path) -> Option<PathBuf> {
    let boot = root.join("boot");
    let in_boot = names(&boot).into_iter().filter(|name| is_kernel(name)).map(|name| boot.join(name));
    // As kernel-install puts them: MACHINE/RELEASE/linux.
    let entries = |place: &Path| names(place).into_iter().map(|name| place.join(name)).collect::<Vec<_>>();
    let machines = entries(&boot).into_iter().filter(|path| path.is_dir());
    let installed = machines.flat_map(|machine| entries(&machine)).map(|release| release.join("linux"));
    let in_boot = in_boot.chain(installed.filter(|path| path.is_file()).take(MOST_FILES));
    let with_modules = ["lib/modules", "usr/lib/modules"]
        .map(|place| root.join(place))
        .into_iter()
        .flat_map(|place| names(&place).into_iter().map(move |release| place.join(release).join("vmlinuz")));
    let kernels = in_boot.chain(with_modules).filter_map(|path| {
        let release = banner_of(&path)?.release;
        Some((modules_of(root, &release).is_some(), release, path))
    });
    let newest = kernels.reduce(|best, other| {
        let newer = other.0.cmp(&best.0).then_with(|| compare(&other.1, &best.1));
        if newer.is_gt() { other } else { best }
    });
    newest.map(|(_, _, path)| path)
}

/// Whether a file of that name in `/boot` is a kernel that is booted by itself.
fn is_kernel(name: &str) -> bool {
    ["vmlinuz", "kernel-", "bzImage"].iter().any(|beginning| name.starts_with(beginning))
        && ![".old", ".bak", ".sig", ".hmac"].iter().any(|ending| name.ends_with(ending))
        && !name.contains("rescue")
}

/// The names in a directory, in their order.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(MOST_FILES);
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}
