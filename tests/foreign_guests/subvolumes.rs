//! Disks with their root in a subvolume of a btrfs, as distributions lay them out. Subvolumes are made by a kernel: that of a machine,
//! since this needs no root on the host.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use quicksand::blocking::Sandbox;

use crate::disks::{self, partitions, run, text};

/// Defines `subvolume DIRECTORY NAME` and `default DIRECTORY ID`, the requests of the kernel's `linux/btrfs.h`. The first subvolume
/// has the id 256.
const FUNCTIONS: &str = r#"
set -eu
subvolume() {
  perl -e 'sysopen(D, $ARGV[0], 0) && ioctl(D, 0x5000940e, pack("q a4088", 0, $ARGV[1])) or die $!' "$1" "$2"
}
default() { perl -e 'sysopen(D, $ARGV[0], 0) && ioctl(D, 0x40089413, pack("Q", $ARGV[1])) or die $!' "$1" "$2"; }
modprobe -a btrfs loop
mount -o loop /root/disk /mnt
"#;

/// As openSUSE has it: the root is a snapshot, which is the default subvolume.
const SNAPSHOT: &str = r#"
subvolume /mnt @
subvolume /mnt/@ .snapshots
mkdir /mnt/@/.snapshots/1
subvolume /mnt/@/.snapshots/1 snapshot
tar -xf /root/tree.tar -C /mnt/@/.snapshots/1/snapshot
default /mnt 258
"#;

/// As Ubuntu and others have it: nothing but the name tells.
const AT: &str = r#"
subvolume /mnt @
subvolume /mnt @home
tar -xf /root/tree.tar -C /mnt/@
"#;

/// As Fedora has it. The kernel is on a partition of its own, and its modules are not.
const FEDORA: &str = r#"
subvolume /mnt home
subvolume /mnt root
tar -xf /root/tree.tar -C /mnt/root
release=$(uname -r)
at=lib/modules/$release
mkdir -p "/mnt/root/$at"
cp "/$at/modules.dep" "/$at/modules.builtin" "/mnt/root/$at/"
for module in virtio_pci virtio_blk virtio_console virtio_net fuse crc32c_generic crc32c xxhash_generic blake2b_generic \
  sha256_generic btrfs; do
  modprobe --show-depends "$module" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | sort -u | while read -r file; do
  # Named relative to the directory of modules, however that is spelled.
  file=${file#*"$release/"}
  mkdir -p "/mnt/root/$at/${file%/*}"
  cp "/$at/$file" "/mnt/root/$at/$file"
done
cp "/boot/vmlinuz-$release" /root/vmlinuz
"#;

/// A disk with that layout in its second partition.
fn disk(name: &str, layout: &str, finish: impl FnOnce(&Sandbox, &Path, &Path) + Send) -> PathBuf {
    // On a thread of its own, since a test's thread is no place to wait on.
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            disks::once(name, |path| {
                let (temp, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
                disks::busybox(tree.path());
                fs::write(tree.path().join("etc/os-release"), format!("ID={name}\n")).unwrap();
                let (archive, btrfs) = (temp.path().join("tree.tar"), temp.path().join("btrfs"));
                run("tar", &["-C", text(tree.path()), "-cf", text(&archive), "."]);
                // The smallest that there is.
                File::create(&btrfs).unwrap().set_len(64 << 20).unwrap();
                run("mkfs.btrfs", &["--quiet", "--mixed", text(&btrfs)]);
                let sandbox = Sandbox::builder("debian").start().unwrap_or_else(|error| panic!("failed to {error}"));
                sandbox.upload(&archive, "/root/tree.tar").unwrap();
                sandbox.upload(&btrfs, "/root/disk").unwrap();
                let script = format!("{FUNCTIONS}{layout}\numount /mnt");
                sandbox.command("sh").args(["-c", &script]).output().unwrap().check().unwrap();
                sandbox.download("/root/disk", &btrfs).unwrap();
                finish(&sandbox, &btrfs, path);
                sandbox.stop().unwrap();
            })
        });
        made.join().unwrap()
    })
}

pub(crate) fn default_snapshot() -> PathBuf {
    disk("snapshot.raw", SNAPSHOT, |_, btrfs, path| partitions(&[btrfs], path))
}

pub(crate) fn at() -> PathBuf {
    disk("at.raw", AT, |_, btrfs, path| partitions(&[btrfs], path))
}

/// The root is in the third partition, and `/boot` in the second.
pub(crate) fn with_boot() -> PathBuf {
    disk("with-boot.raw", FEDORA, |sandbox, btrfs, path| {
        let (boot, ext4) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        sandbox.download("/root/vmlinuz", boot.path().join("vmlinuz-1")).unwrap();
        disks::ext4(boot.path(), ext4.path(), "32M");
        partitions(&[ext4.path(), btrfs], path);
    })
}
