//! Disks of other systems, made of what the distribution has: none needs root to be made. Each of the tests that share this uses
//! some of it.
#![allow(dead_code)]

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// Where disks stay from run to run, so that what they were imported as is found again.
fn directory() -> PathBuf {
    let directory = Path::new(option_env!("CARGO_TARGET_TMPDIR").unwrap_or("target/tmp")).join("disks");
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// The disk of that name, made by `make` at a path if it is not there.
pub(crate) fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    static LOCK: Mutex<()> = Mutex::new(());
    let _in_this_process = LOCK.lock();
    let path = directory().join(name);
    let lock = File::create(directory().join(format!(".{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if !path.exists() {
        let unfinished = directory().join(format!(".{name}.new"));
        make(&unfinished);
        fs::rename(&unfinished, &path).unwrap();
    }
    path
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.unwrap_or_else(|e| panic!("start {program} (scripts/install-dependencies installs it): {e}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A system that is nothing but busybox.
pub(crate) fn busybox(tree: &Path) {
    for directory in ["bin", "sbin", "dev", "proc", "sys", "tmp", "root", "run", "etc/init.d", "var/log"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
    fs::copy(busybox.expect("busybox-static is installed"), tree.join("bin/busybox")).unwrap();
    for applet in
        ["sh", "true", "cat", "ls", "ps", "echo", "sleep", "uname", "mount", "id", "touch", "env", "seq", "grep"]
    {
        symlink("busybox", tree.join("bin").join(applet)).unwrap();
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n").unwrap();
    fs::write(tree.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
    fs::write(tree.join("etc/hostname"), "tiny\n").unwrap();
}

/// The root file system of a Debian with these packages, as an archive, after lines of shell whose `$1` is its root.
pub(crate) fn debian(path: &Path, packages: &str, hook: &str) {
    let (include, hook) = (format!("--include={packages}"), format!("--customize-hook={hook}"));
    let mirror = "--aptopt=Acquire::Retries \"5\"";
    let what = ["--format=tar", "--quiet", "--variant=minbase", mirror, &include, &hook, "bookworm"];
    // As root it mounts what it has to take away again, and does not where it is ended.
    let script = r#"target=$1; shift
        if [ "$(id -u)" -eq 0 ] && unshare --mount true 2>/dev/null; then
          exec unshare --mount --propagation private mmdebstrap --mode=root "$@" - >"$target"
        fi
        exec mmdebstrap "$@" - >"$target""#;
    let arguments = ["-c", script, "sh", text(path)].into_iter().chain(what);
    run("sh", &arguments.collect::<Vec<_>>());
}

/// Unpacks packages of Debian's with all that they depend on, without setting anything up.
pub(crate) fn packages(names: &str, tree: &Path) {
    let archive = tempfile::NamedTempFile::new().unwrap();
    let include = format!("--include={names}");
    let made = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=extract", "--format=tar", &include, "bookworm", "-"])
        .stdout(File::create(archive.path()).unwrap())
        .stderr(std::process::Stdio::inherit())
        .status();
    assert!(made.expect("mmdebstrap is installed").success());
    run("tar", &["-x", "--exclude=./dev/*", "-f", text(archive.path()), "-C", text(tree)]);
    // What is there is not Debian.
    fs::remove_dir_all(tree.join("var/lib/dpkg")).unwrap();
}

/// Gives that system busybox's init, with a start script that takes its time.
pub(crate) fn with_init(tree: &Path) {
    symlink("../bin/busybox", tree.join("sbin/init")).unwrap();
    fs::write(tree.join("etc/inittab"), "::sysinit:/etc/init.d/rcS\n::respawn:/bin/sleep 1000\n").unwrap();
    let script = tree.join("etc/init.d/rcS");
    fs::write(&script, "#!/bin/sh\nfor i in $(seq 4); do sleep 1; echo $i >>/root/boot.log; done\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A raw ext4 file system with what is in `tree`.
pub(crate) fn ext4(tree: &Path, path: &Path, size: &str) {
    run("mke2fs", &["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", text(tree), text(path), size]);
}

/// A raw disk with a partition table and the file system in `path` as its second partition.
pub(crate) fn partitioned(file_system: &Path, path: &Path) {
    partitions(&[file_system], path);
}

/// The same with several file systems, from the second partition on. The first has what boots a PC.
pub(crate) fn partitions(file_systems: &[&Path], path: &Path) {
    with_table(
        "label: gpt\nstart=2048, size=4096, type=21686148-6449-6E6F-744E-656564454649\n",
        "L",
        file_systems,
        path,
    );
}

/// The same with an MBR.
pub(crate) fn mbr(file_system: &Path, path: &Path) {
    with_table("label: dos\nstart=2048, size=4096, type=c\n", "83, bootable", &[file_system], path);
}

fn with_table(begin: &str, kind: &str, file_systems: &[&Path], path: &Path) {
    let mut disk = File::create(path).unwrap();
    let mut table = begin.to_owned();
    let mut start: u64 = 8 << 20;
    for file_system in file_systems {
        let len = file_system.metadata().unwrap().len();
        table += &format!("start={}, size={}, type={kind}\n", start / 512, len / 512);
        disk.seek(SeekFrom::Start(start)).unwrap();
        copy_data(&mut File::open(file_system).unwrap(), &mut disk).unwrap();
        start += len.next_multiple_of(1 << 20);
    }
    disk.set_len(start + (2 << 20)).unwrap();
    drop(disk);
    let mut sfdisk = Command::new("sfdisk")
        .args(["--quiet", text(path)])
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("fdisk is installed");
    sfdisk.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
    assert!(sfdisk.wait().unwrap().success());
}

/// Copies, and leaves out what is zero.
fn copy_data(from: &mut File, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        if buffer[..count].iter().any(|byte| *byte != 0) {
            to.write_all(&buffer[..count])?;
        } else {
            to.seek(SeekFrom::Current(count as i64))?;
        }
    }
}

/// The disk of that name: a system that is nothing but busybox, as a file system that `make` makes of a directory and `place` puts on a
/// disk.
pub(crate) fn busybox_disk(name: &str, make: fn(&Path, &Path), place: fn(&Path, &Path)) -> PathBuf {
    once(name, |path| {
        let (tree, file_system) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        busybox(tree.path());
        make(tree.path(), file_system.path());
        place(file_system.path(), path);
    })
}

/// A file system for [`busybox_disk`].
pub(crate) fn small_ext4(tree: &Path, path: &Path) {
    ext4(tree, path, "32M");
}

/// A disk that is a file system.
pub(crate) fn whole(file_system: &Path, path: &Path) {
    fs::copy(file_system, path).unwrap();
}

/// A raw btrfs with what is in `tree`.
pub(crate) fn btrfs(tree: &Path, path: &Path) {
    File::create(path).unwrap().set_len(160 << 20).unwrap();
    run("mkfs.btrfs", &["--quiet", "--rootdir", text(tree), text(path)]);
}

/// A raw xfs with what is in `tree`.
pub(crate) fn xfs(tree: &Path, path: &Path) {
    let mut prototype = String::from("/\n0 0\nd--755 0 0\n");
    describe(tree, &mut prototype);
    prototype.push_str("$\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), prototype).unwrap();
    File::create(path).unwrap().set_len(320 << 20).unwrap();
    run("mkfs.xfs", &["-q", "-p", text(file.path()), text(path)]);
}

/// What is in a directory, in the language of mkfs.xfs.
fn describe(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let metadata = path.symlink_metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_symlink() {
            into.push_str(&format!("{name} l--777 0 0 {}\n", text(&fs::read_link(&path).unwrap())));
        } else if metadata.is_dir() {
            into.push_str(&format!("{name} d--{mode:03o} 0 0\n"));
            describe(&path, into);
            into.push_str("$\n");
        } else {
            into.push_str(&format!("{name} ---{mode:03o} 0 0 {}\n", text(&path)));
        }
    }
}

/// The initramfs that belongs to an image's kernel, as a distribution would make one, compressed. It holds the image's modules.
pub(crate) fn initrd(modules: &[PathBuf], path: &Path) {
    let tree = tempfile::tempdir().unwrap();
    let at = tree.path().join("usr/lib/modules/1.2.3");
    fs::create_dir_all(at.join("kernel")).unwrap();
    let mut dependencies = String::new();
    let mut earlier: Vec<String> = Vec::new();
    for module in modules {
        // 00-virtio_ring.ko
        let name = format!("kernel/{}", module.file_name().unwrap().to_str().unwrap().split_once('-').unwrap().1);
        fs::copy(module, at.join(&name)).unwrap();
        let needs: Vec<_> = earlier.iter().rev().map(String::as_str).collect();
        dependencies.push_str(&format!("{name}: {}\n", needs.join(" ")));
        earlier.push(name);
    }
    fs::write(at.join("modules.dep"), dependencies).unwrap();
    fs::write(at.join("modules.builtin"), "kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c_generic.ko\n").unwrap();
    let script = "cd \"$1\" && find . | cpio --quiet -o -H newc | gzip >\"$2\"";
    run("sh", &["-c", script, "sh", text(tree.path()), text(path)]);
}
