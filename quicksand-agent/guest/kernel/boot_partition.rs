//! A `/boot` that is a file system of its own, found as `/etc/fstab` names it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount as mount_device, umount2};

use super::{choose::names, text};

/// What is mounted on `/boot` while its kernels are looked at.
#[derive(Debug)]
pub(super) struct BootPartition(PathBuf);

/// Mounts it where the root's `/etc/fstab` has one. What can't be mounted here is not there for us.
pub(super) fn mount(root: &Path) -> Option<BootPartition> {
    let place = root.join("boot");
    let table = text(&root.join("etc/fstab")).ok()?;
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.get(1) == Some(&"/boot") && !words[0].starts_with('#'))?;
    let devices = names(Path::new("/sys/class/block")).into_iter().filter(|name| name.starts_with("vd"));
    let found = devices.map(|name| PathBuf::from("/dev").join(name)).find_map(|device| {
        let it = FileSystem::of(&device)?;
        it.is(line[0], &device).then_some((device, it.kind))
    });
    let (device, kind) = found?;
    // To be written, since a boot loader forgets there what it was to boot once.
    mount_device(Some(&device), &place, Some(kind), MsFlags::empty(), None::<&str>).ok()?;
    Some(BootPartition(place))
}

impl BootPartition {
    pub(super) fn unmount(&self) {
        let _ = umount2(&self.0, MntFlags::empty());
    }
}

/// What a file system says of itself in its first block.
#[derive(Debug)]
struct FileSystem {
    kind: &'static str,
    id: String,
    label: String,
}

impl FileSystem {
    fn of(device: &Path) -> Option<FileSystem> {
        let mut head = vec![0; 2048];
        File::open(device).ok()?.read_exact_at(&mut head, 0).ok()?;
        FileSystem::parse(&head)
    }

    fn parse(head: &[u8]) -> Option<FileSystem> {
        let (kind, id, label) = if head.get(0x438..0x43a)? == [0x53, 0xef] {
            ("ext4", uuid(&head[0x468..0x478]), &head[0x478..0x488])
        } else if head.starts_with(b"XFSB") {
            ("xfs", uuid(&head[32..48]), &head[108..120])
        } else if head[0x52..].starts_with(b"FAT32") {
            ("vfat", serial_number(&head[0x43..0x47]), &head[0x47..0x52])
        } else if head[0x36..].starts_with(b"FAT1") {
            ("vfat", serial_number(&head[0x27..0x2b]), &head[0x2b..0x36])
        } else {
            return None;
        };
        let label = label.iter().take_while(|byte| **byte != 0).copied().collect();
        let label = String::from_utf8(label).ok()?.trim_end().to_owned();
        Some(FileSystem { kind, id, label })
    }

    /// Whether it is what a line of `/etc/fstab` names.
    fn is(&self, named: &str, device: &Path) -> bool {
        let plain = |value: &str| value.trim_matches(['"', '\'']).to_owned();
        let link = named.strip_prefix("/dev/disk/by-").and_then(|link| link.split_once('/'));
        let link = link.map(|(kind, value)| (kind.to_ascii_uppercase(), value));
        match link.as_ref().map(|(kind, value)| (kind.as_str(), *value)).or(named.split_once('=')) {
            Some(("UUID", value)) => plain(value).eq_ignore_ascii_case(&self.id),
            Some(("LABEL", value)) => plain(value) == self.label,
            Some(("PARTUUID", value)) => {
                let name = device.file_name().unwrap_or_default().to_string_lossy();
                let said = fs::read_to_string(format!("/sys/class/block/{name}/uevent")).unwrap_or_default();
                said.lines().any(|line| line.eq_ignore_ascii_case(&format!("PARTUUID={}", plain(value))))
            }
            _ => fs::canonicalize(named).is_ok_and(|named| named == device),
        }
    }
}

/// Of a FAT, as tools write it.
fn serial_number(bytes: &[u8]) -> String {
    format!("{:02X}{:02X}-{:02X}{:02X}", bytes[3], bytes[2], bytes[1], bytes[0])
}

fn uuid(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        text += if [4, 6, 8, 10].contains(&index) { "-" } else { "" };
        text += &format!("{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_known_by_what_fstab_may_name() {
        let mut head = vec![0; 2048];
        assert!(FileSystem::parse(&head).is_none());
        head[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
        head[0x468..0x478].copy_from_slice(&[0xab; 16]);
        head[0x478..0x47c].copy_from_slice(b"BOOT");
        let ext4 = FileSystem::parse(&head).unwrap();
        let device = Path::new("/dev/vda1");
        for named in
            ["UUID=ABABABAB-abab-abab-abab-abababababab", "UUID=\"abababab-abab-abab-abab-abababababab\"", "LABEL=BOOT"]
        {
            assert!(ext4.is(named, device), "{named}");
        }
        for named in ["UUID=abababab", "LABEL=boot", "LABEL=", "/dev/vdb1", "tmpfs", "PARTUUID=1-2"] {
            assert!(!ext4.is(named, device), "{named}");
        }
        assert!(ext4.is("/dev/disk/by-uuid/abababab-abab-abab-abab-abababababab", device));
        assert!(ext4.is("/dev/disk/by-label/BOOT", device) && !ext4.is("/dev/disk/by-id/BOOT", device));
        head[..4].copy_from_slice(b"XFSB");
        head[0x438] = 0;
        assert_eq!(FileSystem::parse(&head).unwrap().kind, "xfs");
        let mut head = vec![0; 2048];
        head[0x43..0x5a].copy_from_slice(b"\x78\x56\x34\x12ESP        FAT32   ");
        let fat = FileSystem::parse(&head).unwrap();
        assert_eq!(fat.kind, "vfat");
        assert!(fat.is("UUID=1234-5678", device) && fat.is("LABEL=ESP", device));
    }
}
