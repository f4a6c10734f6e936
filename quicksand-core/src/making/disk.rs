//! Makes a disk of a root file system's tar archive, and keeps owners and modes without being root on the host.

use std::{
    fs::{self, File},
    path::Path,
};

use nix::{sys::statvfs::statvfs, unistd::geteuid};

use super::{
    rootfs::Owners,
    tool::{Tool, require, unique},
};
use crate::{
    base::progress::Reporter,
    image::{DISK_FILE, error::ImageError},
};

/// The disk before it is a qcow2, in the image's directory.
const RAW: &str = "disk.raw";
/// What the script says between its two long steps.
const UNPACKED: &str = "=unpacked";

/// Tells which owners there are, where files can have other owners than us.
const PROBE: &str = "touch \"$1\" && chown 1:1 \"$1\" && rm -f \"$1\" && cat /proc/self/uid_map && echo =groups && cat /proc/self/gid_map";
/// What it says between the two lists.
const NEXT_MAP: &str = "=groups";

/// Unpacks the archive $1 to a new directory $2, makes a file system of it in $3 and removes what it unpacked, even if
/// it fails or is asked to end, when nobody reads its output any more. Numbers of users are the archive's, since names
/// may mean other numbers here. Device nodes take a right that a namespace's root does not have, and in a guest the
/// kernel makes them. Nothing of the file system is left for the guest's kernel to initialise, which would keep each
/// clone busy. ext4 lists a directory in the order of its names' hashes: with a random seed, `find` and `tar` would print
/// another order after the image was made anew, and snapshots would differ between two machines.
const MAKE_FILE_SYSTEM: &str = r#"
set -e
trap 'rm -rf --one-file-system -- "$2"' EXIT
trap 'exit 143' HUP INT TERM
trap '' PIPE
mkdir -- "$2"
tar --extract --verbose --file "$1" --directory "$2" --numeric-owner --same-owner --same-permissions \
  --xattrs --xattrs-include=security.capability --xattrs-include='user.*' --delay-directory-restore --exclude='./dev/*'
rm -f -- "$1"
echo =unpacked
mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0,hash_seed=c1ea2b5e-0d1f-4d3a-9c57-7a3f00000001 -L root -d "$2" "$3"
"#;

/// Checks what [`make`] needs, before anybody waits for what comes before it. Returns the owners that files on the disk can have.
pub(crate) async fn check(directory: &Path) -> Result<Owners, ImageError> {
    require(&[("tar", "tar"), ("mke2fs", "e2fsprogs"), ("qemu-img", "qemu-utils")])?;
    check_space(directory, 3 << 30)?;
    let is_root = geteuid().is_root();
    if !is_root {
        require(&[("unshare", "util-linux"), ("newuidmap", "uidmap")])?;
    }
    // Asks for a user beyond our own, which takes the range in /etc/subuid. Root may be that of a namespace, too.
    let (mut maps, mut map) = ([String::new(), String::new()], 0);
    let probe = Tool::root_script("unshare", directory, PROBE).args(["probe"]);
    let probed = probe.run(|line| match line {
        NEXT_MAP => map = 1,
        line => maps[map].extend([line, "\n"]),
    });
    match probed.await {
        Err(ImageError::Tool { last_words, .. }) if !is_root => {
            return Err(ImageError::NoNamespaces { said: last_words });
        }
        other => other?,
    }
    let [users, groups] = maps;
    Ok(Owners::parse(&users, &groups))
}

/// Checks that so many bytes are free where `path` is.
pub(crate) fn check_space(path: &Path, needed: u64) -> Result<(), ImageError> {
    let space = statvfs(path).map_err(|errno| ImageError::io("ask for the free space at", path)(errno.into()))?;
    // The types differ between platforms.
    #[allow(clippy::useless_conversion)]
    let free = u64::from(space.blocks_available()).saturating_mul(u64::from(space.fragment_size()));
    if free < needed { Err(ImageError::NoSpace { path: path.to_owned() }) } else { Ok(()) }
}

/// Makes the disk of `size` bytes in `directory` from the archive of that name in it, which is gone then.
pub(crate) async fn make(
    directory: &Path,
    archive: &str,
    entries: u64,
    size: u64,
    reporter: &Reporter,
) -> Result<(), ImageError> {
    let raw = directory.join(RAW);
    File::create(&raw).and_then(|file| file.set_len(size)).map_err(ImageError::io("write", &raw))?;
    let tree = unique("tree-")?;

    let mut unpacked = 0;
    let mut is_unpacked = false;
    reporter.report("unpack", 0, entries);
    let script = Tool::root_script("mke2fs", directory, MAKE_FILE_SYSTEM).args([archive, &tree, RAW]);
    let made = script.run(|line| {
        if line == UNPACKED {
            is_unpacked = true;
            reporter.report("unpack", entries, entries);
            reporter.report("make file system", 0, 1);
        } else if !is_unpacked {
            unpacked = entries.min(unpacked + 1);
            reporter.report("unpack", unpacked, entries);
        }
    });
    made.await.map_err(|error| match error {
        ImageError::Tool { status, last_words, .. } if !is_unpacked => {
            ImageError::Tool { program: "tar", status, last_words }
        }
        error => error,
    })?;
    reporter.report("make file system", 1, 1);

    convert(directory, RAW, reporter).await?;
    fs::remove_file(&raw).map_err(ImageError::io("remove", &raw))
}

/// Makes the image's disk of a raw one in `directory`.
pub(crate) async fn convert(directory: &Path, raw: &str, reporter: &Reporter) -> Result<(), ImageError> {
    reporter.report("convert disk", 0, 100);
    let convert = ["convert", "-p", "-f", "raw", "-O", "qcow2", raw, DISK_FILE];
    let convert = Tool::new("qemu-img", directory).args(convert);
    convert.run(|line| reporter.report("convert disk", percentage(line).unwrap_or(0), 100)).await?;
    reporter.report("convert disk", 100, 100);
    Ok(())
}

/// Removes what a killed maker left, some of which belongs to users of its namespace.
pub(crate) async fn remove_leftovers(path: &Path) -> Result<(), ImageError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    Tool::root_script("rm", parent, "rm -rf --one-file-system -- \"$1\"").args([path]).run(|_| {}).await
}

/// The whole part of qemu-img's `    (12.34/100%)`.
fn percentage(line: &str) -> Option<u64> {
    let (whole, _) = line.trim().strip_prefix('(')?.split_once('.')?;
    whole.parse().ok().filter(|whole| *whole <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_imgs_progress() {
        assert_eq!(percentage("    (0.00/100%)"), Some(0));
        assert_eq!(percentage("    (12.34/100%)"), Some(12));
        assert_eq!(percentage("(100.00/100%)"), Some(100));
        for other in ["", "x", "(x.1", "(101.0/100%)", "(7/100%)"] {
            assert_eq!(percentage(other), None, "{other}");
        }
    }

    #[test]
    fn the_markers_are_the_scripts() {
        assert!(PROBE.contains(&format!("echo {NEXT_MAP} ")));
        assert!(MAKE_FILE_SYSTEM.contains(&format!("echo {UNPACKED}\n")));
    }

    #[test]
    fn too_little_space_is_told() {
        let directory = tempfile::tempdir().unwrap();
        check_space(directory.path(), 1).unwrap();
        assert!(matches!(check_space(directory.path(), u64::MAX), Err(ImageError::NoSpace { .. })));
    }
}
