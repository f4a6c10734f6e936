//! Which kernel a machine boots: the one that its disk asks for, its image's where that can't be, and the image's where that is wanted.

use std::time::Instant;

use quicksand::{Kernel, NetworkMode, Sandbox, SandboxBuilder, StartKind};

async fn shell(sb: &Sandbox, line: &str) -> String {
    sb.execute(line).await.unwrap().check().unwrap().stdout
}

/// Another release than that of the image's kernel, of as many letters.
fn other_release(release: &str) -> String {
    format!("9{}", &release[1..])
}

/// The kernel with another release in its header.
fn with_release(kernel: &[u8], release: &str, other: &str) -> Vec<u8> {
    let mut kernel = kernel.to_vec();
    let at = 0x200 + usize::from(u16::from_le_bytes([kernel[0x20e], kernel[0x20f]]));
    assert!(kernel[at..].starts_with(format!("{release} (").as_bytes()), "its header tells its release");
    kernel[at..at + other.len()].copy_from_slice(other.as_bytes());
    kernel
}

/// The same kernel, which ends the machine at its first instruction: the processor knows none that is `ud2`.
fn broken(kernel: &[u8]) -> Vec<u8> {
    let setup = (usize::from(kernel[0x1f1]) + 1) * 512;
    let body = [0x0f, 0x0b].into_iter().cycle().take(kernel.len() - setup);
    kernel[..setup].iter().copied().chain(body).collect()
}

/// Puts the image's own kernel into `/boot` once more, as another release, as a script would: no link leads to it. What tells a machine
/// that has booted it is the module `dummy`, which is loaded before the root is there.
async fn install(sb: &Sandbox) -> (String, String, Vec<u8>) {
    let release = shell(sb, "uname -r").await.trim().to_owned();
    let other = other_release(&release);
    let kernel = with_release(&sb.read_file(format!("/boot/vmlinuz-{release}")).await.unwrap(), &release, &other);
    let modules = format!("/lib/modules/{other}");
    let copy = format!(
        "cp -a /lib/modules/{release} {modules} && sed -i '/virtio_blk.ko:/s|$| kernel/drivers/net/dummy.ko|' {modules}/modules.dep"
    );
    shell(sb, &copy).await;
    sb.write_file(format!("/boot/vmlinuz-{other}"), &kernel).await.unwrap();
    (release, other, kernel)
}

const BOOTED: &str = "if grep -q ^dummy /proc/modules; then echo other; else echo image; fi";

/// A kernel that a script put into /boot boots, on each way that boots a machine from its disk.
#[tokio::test]
async fn a_kernel_that_was_put_into_boot_boots() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = |source: &str| Sandbox::builder(source).saves_dir(saves.path());
    let sb = builder("debian").start().await.unwrap();
    assert_eq!(shell(&sb, BOOTED).await, "image\n");
    install(&sb).await;
    sb.reboot().await.unwrap();
    assert_eq!(shell(&sb, BOOTED).await, "other\n");
    assert_eq!(sb.warnings().unwrap(), Vec::<String>::new());
    assert_eq!(shell(&sb, "env | grep -i kernel || echo none").await, "none\n");

    // What goes on from its memory goes on by its kernel.
    let twin = sb.fork().await.unwrap();
    assert_eq!(shell(&twin, BOOTED).await, "other\n");
    drop(twin);
    sb.save("s").await.unwrap();
    drop(sb);
    let sb = builder("s").kernel(Kernel::Image).start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
    assert_eq!(shell(&sb, BOOTED).await, "other\n");
    // The switch is for what boots.
    shell(&sb, "reboot -f >/dev/null 2>&1 &").await;
    while sb.reboots().unwrap() == 0 {
        sb.ping().await.ok();
    }
    assert_eq!(shell(&sb, BOOTED).await, "image\n");
    assert_eq!(sb.warnings().unwrap(), Vec::<String>::new());
    drop(sb);
    // Without its memory, it boots what the disk asks for.
    let sb = builder("s").memory("640M").start().await.unwrap();
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Disk);
    assert_eq!(shell(&sb, BOOTED).await, "other\n");
}

/// What can't be booted is told, and the image's kernel boots.
#[tokio::test]
async fn a_kernel_that_does_not_boot_is_told_and_the_images_does() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sb = Sandbox::builder("debian").saves_dir(saves.path()).start().await.unwrap();
    let (release, other, kernel) = install(&sb).await;
    let path = format!("/boot/vmlinuz-{other}");
    sb.checkpoint("installed").await.unwrap();
    let expect = async |sb: &Sandbox, words: &str| {
        assert_eq!(shell(sb, BOOTED).await, "image\n");
        assert_eq!(shell(sb, "uname -r; systemctl is-system-running").await, format!("{release}\nrunning\n"));
        let warnings = sb.warnings().unwrap();
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.contains(&other) && warning.contains(words), "{warning}");
    };

    sb.write_file(&path, broken(&kernel)).await.unwrap();
    sb.reboot().await.unwrap();
    expect(&sb, "its image's was booted").await;
    // Whoever goes on from there is told as well.
    expect(&sb.fork().await.unwrap(), "its image's was booted").await;
    sb.save("s").await.unwrap();
    let again = Sandbox::builder("s").saves_dir(saves.path()).start().await.unwrap();
    expect(&again, "its image's was booted").await;
    assert_eq!(again.start_report().unwrap().warnings, again.warnings().unwrap());
    drop(again);

    sb.revert("installed").await.unwrap();
    shell(&sb, &format!("truncate -s 1M {path}")).await;
    sb.reboot().await.unwrap();
    expect(&sb, "is cut off").await;

    // It was removed again, and so was more than that.
    shell(&sb, &format!("rm -r {path} /lib/modules/{other} /lib/modules/{release}")).await;
    sb.reboot().await.unwrap();
    assert_eq!(shell(&sb, BOOTED).await, "image\n");
    let warnings = sb.warnings().unwrap();
    assert!(warnings.len() == 1 && warnings[0].starts_with("no module can be loaded"), "{warnings:?}");
}

const GRUB: &str = r#"
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
else
   set default="${saved_entry}"
fi
submenu 'Advanced options' $menuentry_id_option 'advanced' {
        menuentry 'Linux NEW' --class os $menuentry_id_option 'new' {
                linux   /vmlinuz-NEW root=UUID=1 ro
                initrd  /initrd.img-NEW
        }
        menuentry 'Linux OLD' --class os $menuentry_id_option 'old' {
                linux   /vmlinuz-OLD root=UUID=1 ro
        }
}
"#;

/// GRUB's default entry counts, and before that the one that was chosen for the next boot. All of it is on a `/boot` of its own.
#[tokio::test]
async fn the_boot_loaders_choice_counts() {
    let disk = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    disk.as_file().set_len(64 << 20).unwrap();
    let file = format!("driver=raw,node-name=more,file.driver=file,file.filename={}", disk.path().display());
    let more = ["-blockdev", &file, "-device", "virtio-blk-pci,drive=more,id=more,addr=0x10"];
    let sb = Sandbox::builder("debian").extra_qemu_args(more).start().await.unwrap();
    let (old, new, _) = install(&sb).await;
    let line =
        "mkfs.ext4 -q -L BOOT /dev/vdb && mv /boot /old && mkdir /boot && mount /dev/vdb /boot && mv /old/* /boot &&
                echo LABEL=BOOT /boot ext4 defaults 0 2 >> /etc/fstab && mkdir /boot/grub";
    shell(&sb, line).await;
    sb.write_file("/boot/grub/grub.cfg", GRUB.replace("NEW", &new).replace("OLD", &old)).await.unwrap();
    let mut environment = "# GRUB Environment Block\nsaved_entry=advanced>old\nnext_entry=advanced>new\n".to_owned();
    environment.push_str(&"#".repeat(1024 - environment.len()));
    sb.write_file("/boot/grub/grubenv", &environment).await.unwrap();
    for expected in ["other\n", "image\n"] {
        sb.reboot().await.unwrap();
        assert_eq!((shell(&sb, BOOTED).await.as_str(), sb.warnings().unwrap()), (expected, vec![]));
    }
    let environment = sb.read_file("/boot/grub/grubenv").await.unwrap();
    assert_eq!(environment.len(), 1024);
    assert!(environment.starts_with(b"# GRUB Environment Block\nsaved_entry=advanced>old\nnext_entry=\n##"));
}

/// A package of the distribution's, over the network: another kernel, which is in use after a reboot, and its modules load.
#[tokio::test]
async fn a_kernel_from_a_package_boots_and_goes_with_it() {
    let machine = |builder: SandboxBuilder| builder.network_mode(NetworkMode::Full).memory("1G").disk_size("6G");
    let sb = machine(Sandbox::builder("debian")).start().await.unwrap();
    let old = shell(&sb, "uname -r").await;
    // One of the same small flavour, where the mirror has several; else the large one. The package's initramfs takes minutes to be made
    // and is not used. A mirror may hiccup.
    let line = "export INITRD=No DEBIAN_FRONTEND=noninteractive
        get='apt-get -o Acquire::Retries=5 -o Acquire::Languages=none -qq'
        for n in 1 2 3; do
          $get update
          other=$(apt-cache pkgnames linux-image- | grep -E '^linux-image-[0-9.-]+-cloud-amd64$' | grep -v $(uname -r) | sort -V | tail -n 1)
          $get install --no-install-recommends -y ${other:-linux-image-amd64} && exit
          sleep 5
        done
        exit 1";
    let begun = Instant::now();
    let installed = sb.command("sh").args(["-c", line]).timeout(std::time::Duration::from_secs(900)).output().await;
    installed.unwrap().check().unwrap();
    println!("installed in {:?}", begun.elapsed());
    // As autoremove would one day.
    shell(&sb, "rm -rf /lib/modules/$(uname -r) /boot/*$(uname -r)").await;
    sb.reboot().await.unwrap();
    let new = shell(&sb, "uname -r").await;
    assert_eq!(sb.warnings().unwrap(), Vec::<String>::new());
    assert_ne!(new, old, "{}", shell(&sb, "ls -l / /boot /lib/modules").await);
    shell(&sb, "modprobe dummy && ls /lib/modules/$(uname -r)/modules.dep").await;
}
