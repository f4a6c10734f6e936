//! What is chosen, for the layouts of distributions and for nonsense.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{choose::choose, find};

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Root {
        Root(tempfile::tempdir().unwrap())
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) -> &Root {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn kernel(&self, path: &str, release: &str) -> &Root {
        let mut kernel = vec![0; 0x800];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20e..0x210].copy_from_slice(&0x400u16.to_le_bytes());
        let words = format!("{release} (me) #1");
        kernel[0x600..0x600 + words.len()].copy_from_slice(words.as_bytes());
        self.write(path, kernel)
    }

    fn chosen(&self) -> Option<String> {
        let root = fs::canonicalize(self.0.path()).unwrap();
        let chosen = choose(&root)?;
        Some(chosen.strip_prefix(&root).unwrap_or(&chosen).display().to_string())
    }
}

/// Lets the clock of the file system go on: it may tick but a few hundred times a second.
fn later() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let changed = || std::os::unix::fs::MetadataExt::ctime_nsec(&file.as_file().metadata().unwrap());
    let before = changed();
    while changed() == before {
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A Debian with two kernels.
fn debian() -> Root {
    let root = Root::new();
    root.kernel("boot/vmlinuz-6.1.0-9-amd64", "6.1.0-9-amd64").kernel("boot/vmlinuz-6.1.0-10-amd64", "6.1.0-10-amd64");
    root.write("boot/initrd.img-6.1.0-10-amd64", "x").write("boot/vmlinuz-junk", "junk");
    root
}

#[test]
fn without_a_boot_loader_it_is_the_newest_or_what_vmlinuz_leads_to() {
    assert_eq!(Root::new().chosen(), None);
    let root = debian();
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-6.1.0-10-amd64");
    root.write("lib/modules/6.1.0-9-amd64/modules.dep", "");
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-6.1.0-9-amd64");
    symlink("boot/vmlinuz-6.1.0-11-amd64", root.0.path().join("vmlinuz")).unwrap();
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-6.1.0-9-amd64");
    root.kernel("boot/vmlinuz-6.1.0-11-amd64", "6.1.0-11-amd64");
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-6.1.0-11-amd64");
    // What a script puts there knows nothing of the link. It counts once it has modules, and if it is newer.
    later();
    root.kernel("boot/vmlinuz-6.2.0", "6.2.0").kernel("boot/vmlinuz-6.0.0", "6.0.0");
    root.write("lib/modules/6.0.0/modules.dep", "");
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-6.1.0-11-amd64");
    root.write("lib/modules/6.2.0/modules.dep", "");
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-6.2.0");
    // What is older than the link was passed over by whoever made that.
    fs::remove_file(root.0.path().join("vmlinuz")).unwrap();
    later();
    symlink("boot/vmlinuz-6.1.0-9-amd64", root.0.path().join("vmlinuz")).unwrap();
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-6.1.0-9-amd64");

    // Arch, whose names tell no release, and Fedora without a /boot.
    let root = Root::new();
    root.kernel("boot/vmlinuz-linux", "6.9.1-arch1").kernel("boot/vmlinuz-linux-lts", "6.6.3-1-lts");
    root.kernel("boot/vmlinuz-0-rescue-ab", "9.9").kernel("boot/vmlinuz-linux.old", "9.9");
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-linux");
    root.kernel("usr/lib/modules/6.10.0/vmlinuz", "6.10.0");
    assert_eq!(root.chosen().unwrap(), "usr/lib/modules/6.10.0/vmlinuz");

    // kernel-install, whose entries are elsewhere.
    root.kernel("boot/0123456789abcdef0123456789abcdef/6.11.0/linux", "6.11.0");
    assert_eq!(root.chosen().unwrap(), "boot/0123456789abcdef0123456789abcdef/6.11.0/linux");
}

const GRUB: &str = r#"
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="DEFAULT"
fi
function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  fi
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
        load_video
        linux   /boot/vmlinuz-6.1.0-10-amd64 root=UUID=1 ro  quiet
        initrd  /boot/initrd.img-6.1.0-10-amd64
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-1' {
        menuentry 'Debian, with Linux 6.1.0-10-amd64' --class x $menuentry_id_option 'gnulinux-10' {
                linux   ($root)/boot/vmlinuz-6.1.0-10-amd64 root=UUID=1 ro
        }
        menuentry 'Debian, with Linux 6.1.0-9-amd64' --class x --id 'gnulinux-9' {
                linux   /vmlinuz-6.1.0-9-amd64 root=UUID=1 ro
        }
}
menuentry "Firmware" { 
        fwsetup
}
"#;

#[test]
fn grub_boots_its_default_entry() {
    let (nine, ten) = ("boot/vmlinuz-6.1.0-9-amd64", "boot/vmlinuz-6.1.0-10-amd64");
    for (default, expected) in [
        ("0", ten),
        ("1>1", nine),
        ("gnulinux-advanced-1>gnulinux-9", nine),
        ("Advanced options for Debian GNU/Linux>Debian, with Linux 6.1.0-9-amd64", nine),
        ("1", ten),
        ("99", ten),
        ("2", ten),
        ("nonsense>>>", ten),
        ("${saved_entry}", ten),
    ] {
        let root = debian();
        root.write("boot/grub/grub.cfg", GRUB.replace("DEFAULT", default));
        assert_eq!(root.chosen().as_deref(), Some(expected), "{default}");
    }
    let root = debian();
    root.write("boot/grub/grub.cfg", GRUB.replace("DEFAULT", "${saved_entry}"));
    root.write("boot/grub/grubenv", "# GRUB Environment Block\nsaved_entry=gnulinux-advanced-1>gnulinux-9\n####");
    assert_eq!(root.chosen().as_deref(), Some(nine));
    // A kernel that is gone is none.
    fs::remove_file(root.0.path().join(nine)).unwrap();
    assert_eq!(root.chosen().as_deref(), Some(ten));
}

#[test]
fn an_entry_for_one_boot_is_forgotten() {
    let root = debian();
    root.write("boot/grub/grub.cfg", GRUB.replace("DEFAULT", "0"));
    let mut block = "# GRUB Environment Block\nkernelopts=a\nnext_entry=1>1\n".to_owned();
    block.extend(std::iter::repeat_n('#', 1024 - block.len()));
    root.write("boot/grub/grubenv", &block);
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-6.1.0-9-amd64");
    let left = fs::read_to_string(root.0.path().join("boot/grub/grubenv")).unwrap();
    assert_eq!(left.len(), 1024);
    assert!(left.starts_with("# GRUB Environment Block\nkernelopts=a\nnext_entry=\n###"), "{left}");
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-6.1.0-10-amd64");
}

#[test]
fn entries_in_files_of_their_own() {
    let root = Root::new();
    let entry = |name: &str, text: &str| _ = root.write(&format!("boot/loader/entries/{name}.conf"), text);
    for release in ["6.8.5-301.fc40.x86_64", "6.11.4-201.fc40.x86_64"] {
        root.kernel(&format!("boot/vmlinuz-{release}"), release);
        let text =
            format!("title Fedora ({release})\nversion {release}\nlinux /vmlinuz-{release}\noptions root=UUID=1\n");
        entry(&format!("0123456789abcdef0123456789abcdef-{release}"), &text);
    }
    root.kernel("boot/vmlinuz-0-rescue-0123", "6.8.5-301.fc40.x86_64");
    entry(
        "0123456789abcdef0123456789abcdef-0-rescue",
        "title Rescue\nversion 0-rescue\nlinux /vmlinuz-0-rescue-0123\n",
    );
    let (old, new) = ("boot/vmlinuz-6.8.5-301.fc40.x86_64", "boot/vmlinuz-6.11.4-201.fc40.x86_64");
    // systemd-boot.
    assert_eq!(root.chosen().as_deref(), Some(new));
    root.write("boot/loader/loader.conf", "timeout 3\ndefault *-6.8.5-*\n");
    assert_eq!(root.chosen().as_deref(), Some(old));
    // GRUB, as on Fedora.
    root.write("boot/grub2/grub.cfg", "set default=\"${saved_entry}\"\ninsmod blscfg\nblscfg\n");
    assert_eq!(root.chosen().as_deref(), Some(new));
    for saved in ["0123456789abcdef0123456789abcdef-6.8.5-301.fc40.x86_64", "1", "Fedora (6.8.5-301.fc40.x86_64)"] {
        root.write("boot/grub2/grubenv", format!("# GRUB Environment Block\nsaved_entry={saved}\n#"));
        assert_eq!(root.chosen().as_deref(), Some(old), "{saved}");
    }
}

#[test]
fn syslinux_as_on_alpine() {
    let root = Root::new();
    root.kernel("boot/vmlinuz-virt", "6.6.1-0-virt").kernel("boot/vmlinuz-lts", "6.6.9-0-lts");
    let text = "DEFAULT menu.c32\nPROMPT 0\nLABEL lts\n  LINUX vmlinuz-lts\n  INITRD initramfs-lts\n\
                LABEL virt\n  MENU DEFAULT\n  LINUX vmlinuz-virt\n  APPEND root=UUID=1\n";
    root.write("boot/extlinux.conf", text);
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-virt");
    root.write("boot/extlinux.conf", text.replace("menu.c32", "lts").replace("vmlinuz-lts", "/boot/vmlinuz-lts"));
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-lts");
    root.write("boot/extlinux.conf", "DEFAULT\nLABEL\nKERNEL\n");
    assert_eq!(root.chosen().unwrap(), "boot/vmlinuz-lts");
}

#[test]
fn nonsense_is_no_choice_and_takes_no_time() {
    let root = debian();
    for text in
        ["menuentry {\n".repeat(50_000), "}\n".repeat(50_000), "'".repeat(100_000), "set default=\nlinux\n".into()]
    {
        root.write("boot/grub/grub.cfg", &text).write("boot/extlinux.conf", &text);
        root.write("boot/loader/entries/a.conf", &text).write("boot/loader/loader.conf", "default **************b\n");
        assert_eq!(root.chosen().as_deref(), Some("boot/vmlinuz-6.1.0-10-amd64"));
    }
}

#[test]
fn what_keeps_a_kernel_from_being_offered_is_told() {
    let root = Root::new();
    let found = || find(root.0.path(), "ext4").map(|found| found.map(|found| found.modules));
    assert_eq!(found(), Ok(None));
    root.write("boot/vmlinuz", "");
    assert_eq!(found(), Ok(None));
    root.write("boot/grub/grub.cfg", "menuentry a {\nlinux /boot/vmlinuz\n}\n");
    assert!(found().unwrap_err().contains("is no Linux kernel"), "{:?}", found());
    root.kernel("boot/vmlinuz", "6.1.0");
    let whole = fs::read(root.0.path().join("boot/vmlinuz")).unwrap();
    let mut longer = whole.clone();
    longer[0x1f4..0x1f8].copy_from_slice(&0x1_0000u32.to_le_bytes());
    root.write("boot/vmlinuz", longer);
    assert!(found().unwrap_err().contains("is cut off"), "{:?}", found());
    root.write("boot/vmlinuz", whole);
    assert!(found().unwrap_err().contains("there is no /lib/modules/6.1.0/modules.dep"), "{:?}", found());
    let modules = root.0.path().join("usr/lib/modules/6.1.0");
    root.write("usr/lib/modules/6.1.0/modules.dep", "k/virtio_pci.ko.xz:\nk/ext4.ko:\n");
    assert!(found().unwrap_err().contains("modules.builtin"), "{:?}", found());
    root.write("usr/lib/modules/6.1.0/modules.builtin", "k/virtio_blk.ko\nk/virtio_console.ko\n");
    assert!(found().unwrap_err().contains("virtio_net"), "{:?}", found());
    root.write("usr/lib/modules/6.1.0/modules.builtin", "k/virtio_blk.ko\nk/virtio_console.ko\nk/virtio_net.ko\n");
    assert!(found().unwrap_err().contains("virtio_pci.ko.xz is missing"), "{:?}", found());
    root.write("usr/lib/modules/6.1.0/k/virtio_pci.ko.xz", "x").write("usr/lib/modules/6.1.0/k/ext4.ko", "y");
    let expected: Vec<PathBuf> = ["k/virtio_pci.ko.xz", "k/ext4.ko"].map(|path| modules.join(Path::new(path))).into();
    assert_eq!(found(), Ok(Some(expected)));
}
