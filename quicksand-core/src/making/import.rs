//! Disks that somebody else made, taken as images: a qcow2 or a raw disk, with partitions or without, with a kernel on it, beside
//! it or none at all.
//!
//! The disk stays as it is. The [helper](super::helper) finds the root file system on it, and the kernel with its modules.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use quicksand_protocol::{kernel::release_of, modules::needed};
use sha2::{Digest, Sha256};

use super::{
    Parts, cpio, disk,
    helper::Helper,
    kernel::{BUILT_IN, Bundle, DEPENDENCIES, LARGEST_FILE, module_path, store},
    making,
    tool::require,
};
use crate::{
    base::{blocking::blocking, cache::Cache, compression::unpacked, plain_file, progress::Reporter, random::hex},
    image::{
        Image,
        error::ImageError,
        metadata::{Boot, Defaults, Origin, Root, StoredFile},
    },
    qemu::qcow2,
};

const INSPECT: &str = include_str!("inspect.sh");
/// The most that a disk unpacks to, in bytes.
const LARGEST_DISK: u64 = 1 << 40;

/// What is given to be imported.
#[derive(Debug, Clone)]
pub(crate) struct DiskFile {
    pub(crate) disk: PathBuf,
    /// A kernel beside it, in place of one on the disk.
    pub(crate) kernel: Option<PathBuf>,
    /// The initramfs that belongs to that kernel, of which the kernel's modules are taken.
    pub(crate) initrd: Option<PathBuf>,
}

impl DiskFile {
    /// The disk at a path, with a kernel and an initrd of the same name beside it.
    pub(crate) fn at(disk: &Path) -> DiskFile {
        let beside = |extension| Some(disk.with_extension(extension)).filter(|path| path.is_file());
        DiskFile { disk: disk.to_owned(), kernel: beside("kernel"), initrd: beside("initrd") }
    }

    /// A name for an image of it, which is another one once any of its files has changed.
    pub(crate) fn image_name(&self) -> Result<String, ImageError> {
        Ok(format!("disk-{}", self.key()?))
    }

    /// Tells these files from others, and from themselves once they have changed.
    pub(crate) fn key(&self) -> Result<String, ImageError> {
        let mut hash = Sha256::new();
        for path in [Some(&self.disk), self.kernel.as_ref(), self.initrd.as_ref()].into_iter().flatten() {
            let path = fs::canonicalize(path).map_err(ImageError::io("find", path))?;
            let it = path.metadata().map_err(ImageError::io("look at", &path))?;
            let changed = (it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec());
            hash.update(format!("{} {} {} {changed:?}\n", path.display(), it.len(), it.ino()));
        }
        Ok(hex(&hash.finalize())[..32].to_owned())
    }
}

/// What the helper found on a disk.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// What follows the disk's own name in that of the root's device. `None` where there is no root.
    part: Option<String>,
    kind: String,
    flags: String,
    /// Kernels, the newest last.
    kernels: Vec<String>,
    /// Directories of modules, the newest last.
    modules: Vec<String>,
    /// The kinds of whatever is on the disk.
    seen: String,
}

impl Found {
    fn parse(text: &str) -> Found {
        let mut found = Found::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = value.to_owned();
            match name {
                "part" => found.part = Some(value),
                "kind" => found.kind = value,
                "flags" => found.flags = value,
                "kernel" => found.kernels.push(value),
                "modules" => found.modules.push(value),
                "seen" => found.seen = value,
                _ => {}
            }
        }
        found
    }
}

/// The image of that name, made from a disk where the cache does not have it. `origin` is where the disk is from.
pub(crate) async fn ensure(
    cache: &Cache,
    name: &str,
    file: &DiskFile,
    origin: Origin,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    making(
        cache,
        name,
        async |directory| {
            let disk_size = take_disk(&file.disk, &directory, reporter).await?.disk_size;
            reporter.report("inspect disk", 0, 1);
            let helper = Helper::start(cache, reporter).await?;
            let device = helper.add_disk(&directory.join(crate::image::DISK_FILE)).await?;
            let found = Found::parse(&helper.run(INSPECT, &[&device]).await?);
            let part = found.part.clone().ok_or_else(|| ImageError::NoRoot { seen: found.seen.clone() })?;
            reporter.report("inspect disk", 1, 1);
            let boot = take_boot(cache, &helper, file, &found, &directory, reporter).await?;
            let root = Root { device: format!("/dev/vda{part}"), flags: found.flags.clone() };
            let (file_system, origin) = (found.kind.clone(), Some(origin.clone()));
            Ok(Parts { disk_size, file_system, root, origin, defaults: Defaults::default(), boot })
        },
        reporter,
    )
    .await
}

/// The origin of what is taken now.
pub(crate) fn origin(source: impl Into<String>, digest: Option<String>) -> Origin {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Origin { source: source.into(), digest, trust: None, time }
}

/// Puts the disk into the image's directory, as a qcow2.
async fn take_disk(from: &Path, directory: &Path, reporter: &Reporter) -> Result<qcow2::Header, ImageError> {
    let first = first_bytes(from)?;
    let target = directory.join(crate::image::DISK_FILE);
    // The copy is ours: what is wrong with it is wrong with the user's.
    let refused = |why| ImageError::Disk(qcow2::Qcow2Error::Refused { path: from.to_owned(), why });
    let check = || match qcow2::check(&target) {
        Err(qcow2::Qcow2Error::Refused { why, .. }) => Err(refused(why)),
        checked => Ok(checked?),
    };
    if let Some(kind) = foreign_kind(&first) {
        return Err(refused(format!(
            "it is a disk of the kind {kind}; `qemu-img convert -O qcow2` makes a qcow2 of it"
        )));
    }
    let packed = first.starts_with(&[0x1f, 0x8b])
        || first.starts_with(b"\xfd7zXZ\0")
        || first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let (original, to) = (from.to_owned(), target.clone());
    let shown = reporter.clone();
    blocking(move || {
        if packed {
            let total = original.metadata().map_or(0, |metadata| metadata.len());
            shown.report("unpack", 0, total);
            let input = plain_file::open(&original).map_err(ImageError::io("read", &original))?;
            let mut current = 0;
            let input = Counted {
                from: input,
                count: |read| {
                    current += read;
                    shown.report("unpack", current, total);
                },
            };
            let write = || copy_sparsely(unpacked(input, LARGEST_DISK)?, &mut File::create(&to)?);
            write().map_err(ImageError::io("unpack", &original))
        } else {
            // The original may change.
            plain_file::copy(&original, &to).map_err(ImageError::io("copy", &original))
        }
    })
    .await?;
    if first_bytes(&target)?.starts_with(&qcow2::MAGIC) {
        return check();
    }
    let len = target.metadata().map_err(ImageError::io("look at", &target))?.len();
    if len == 0 || len % 512 != 0 {
        let why = format!("it has {len} bytes, which no disk has: it is neither a qcow2 nor a whole number of sectors");
        return Err(refused(why));
    }
    require(&[("qemu-img", "qemu-utils")])?;
    let raw = directory.join("disk.raw");
    fs::rename(&target, &raw).map_err(ImageError::io("rename", &target))?;
    disk::convert(directory, "disk.raw", reporter).await?;
    fs::remove_file(&raw).map_err(ImageError::io("remove", &raw))?;
    check()
}

fn first_bytes(path: &Path) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let read = plain_file::open(path).and_then(|file| file.take(512).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(ImageError::io("read", path))
}

/// Disks of other programs, which would else be taken for raw ones.
fn foreign_kind(first: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 6] = [
        (b"KDMV", "VMDK"),
        (b"# Disk DescriptorFile", "VMDK"),
        (b"conectix", "VHD"),
        (b"vhdxfile", "VHDX"),
        (b"<<< ", "VDI"),
        (b"QED\0", "QED"),
    ];
    kinds.into_iter().find(|(magic, _)| first.starts_with(magic)).map(|(_, kind)| kind)
}

struct Counted<R, F> {
    from: R,
    count: F,
}

impl<R: Read, F: FnMut(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        (self.count)(count as u64);
        Ok(count)
    }
}

/// Copies, and leaves holes where there are only zeros: an unpacked disk is mostly empty.
fn copy_sparsely(mut from: impl Read, to: &mut File) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    let mut buffer = vec![0; 256 << 10];
    let mut len = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match from.read(&mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            return to.set_len(len);
        }
        if buffer[..filled].iter().any(|byte| *byte != 0) {
            to.write_all(&buffer[..filled])?;
        } else {
            to.seek(SeekFrom::Current(filled as i64))?;
        }
        len += filled as u64;
    }
}

/// The kernel beside the disk, else the newest on it that has modules, else the one that images without a kernel share.
async fn take_boot(
    cache: &Cache,
    helper: &Helper,
    file: &DiskFile,
    found: &Found,
    directory: &Path,
    reporter: &Reporter,
) -> Result<Boot, ImageError> {
    let kernel_path = directory.join("kernel");
    let (release, size) = if let Some(kernel) = &file.kernel {
        let content = plain_file::read(kernel).map_err(ImageError::io("read", kernel))?;
        (release_of(&content), store(&content[..], &kernel_path)?)
    } else {
        let mut chosen = None;
        for path in found.kernels.iter().rev() {
            let content = helper.read(path).await?;
            let release = release_of(&content).or_else(|| Some(path.split_once("vmlinuz-")?.1.to_owned()));
            let with_modules = release.as_deref().is_some_and(|release| modules_of(found, release).is_some());
            if with_modules || chosen.is_none() {
                chosen = Some((release, content));
            }
            if with_modules {
                break;
            }
        }
        let Some((release, content)) = chosen else {
            tracing::info!(target: "quicksand::image", "no kernel on the disk: taking the one that such images share");
            return Bundle::ensure(cache, reporter).await?.put_into(directory, &found.kind);
        };
        (release, store(&content[..], &kernel_path)?)
    };
    tracing::debug!(target: "quicksand::image", ?release, "kernel");
    let kernel = StoredFile { path: "kernel".into(), size };
    let modules_directory = directory.join("modules");
    fs::create_dir(&modules_directory).map_err(ImageError::io("create", &modules_directory))?;
    let mut modules = Vec::new();
    let put = |number: usize, path: &str, content: &[u8]| {
        let stored = module_path(number, path);
        Ok::<_, ImageError>(StoredFile { size: store(content, &directory.join(&stored))?, path: stored })
    };
    if let Some(at) = release.as_deref().and_then(|release| modules_of(found, release)) {
        let text = async |name: &str| {
            let bytes = helper.read(&format!("{at}/{name}")).await?;
            Ok::<_, ImageError>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let order = needed(&text(DEPENDENCIES).await?, &text(BUILT_IN).await?, &found.kind)?;
        for (number, path) in order.iter().enumerate() {
            reporter.report("take kernel", number as u64, order.len() as u64);
            modules.push(put(number, path, &helper.read(&format!("{at}/{path}")).await?)?);
        }
        reporter.report("take kernel", order.len() as u64, order.len() as u64);
    } else if let Some(initrd) = &file.initrd {
        let bytes = plain_file::read(initrd).map_err(ImageError::io("read", initrd))?;
        let files = cpio::files(&bytes, LARGEST_FILE, |path| path.contains("lib/modules/"));
        let files = files.map_err(ImageError::io("read", initrd))?;
        let text = |name: &str| {
            let found = files.iter().find(|(path, _)| path.ends_with(&format!("/{name}")));
            found.map(|(path, content)| (path.trim_end_matches(name), String::from_utf8_lossy(content)))
        };
        let (at, dependencies) =
            text(DEPENDENCIES).ok_or(ImageError::Incomplete { what: "modules.dep of the initrd" })?;
        let built_in = text(BUILT_IN).map_or_else(Default::default, |(_, text)| text);
        for (number, path) in needed(&dependencies, &built_in, &found.kind)?.iter().enumerate() {
            let content = files.get(&format!("{at}{path}"));
            let content = content.ok_or_else(|| ImageError::MissingModules { names: vec![path.clone()] })?;
            modules.push(put(number, path, content)?);
        }
    }
    // Else all that it needs is part of the kernel, or its boot will say what is not.
    Ok(Boot { kernel, lent: file.kernel.is_some(), modules })
}

fn modules_of<'a>(found: &'a Found, release: &str) -> Option<&'a str> {
    let suffix = format!("/{release}");
    found.modules.iter().map(String::as_str).find(|path| path.ends_with(&suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_helper_says_is_read() {
        let text = "part=1\nkind=btrfs\nflags=subvol=root\nseen=vfat btrfs\nkernel=/mnt/boot/vmlinuz-6.1\n\
                    kernel=/mnt/boot/vmlinuz-6.2\nmodules=/mnt/root/usr/lib/modules/6.1\nnoise\n";
        let found = Found::parse(text);
        assert_eq!(
            (found.part.as_deref(), found.kind.as_str(), found.flags.as_str()),
            (Some("1"), "btrfs", "subvol=root")
        );
        assert_eq!(found.kernels, ["/mnt/boot/vmlinuz-6.1", "/mnt/boot/vmlinuz-6.2"]);
        assert_eq!(modules_of(&found, "6.1"), Some("/mnt/root/usr/lib/modules/6.1"));
        assert_eq!(modules_of(&found, "1"), None);
        assert_eq!(Found::parse("seen=LVM2_member").part, None);
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_disk_is_told_of_the_file_that_was_given() {
        let temp = tempfile::tempdir().unwrap();
        let (given, own) = (temp.path().join("given.img"), temp.path().join("own"));
        fs::create_dir(&own).unwrap();
        for (content, why) in [(&b"no disk"[..], "it has 7 bytes"), (&qcow2::MAGIC[..], "within its header")] {
            fs::write(&given, content).unwrap();
            let error = take_disk(&given, &own, &Reporter::silent()).await.unwrap_err().to_string();
            assert!(error.contains(&given.display().to_string()) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_disk_is_another_one_once_its_files_change() {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("x.qcow2");
        fs::write(&disk, "1").unwrap();
        let plain = DiskFile::at(&disk);
        assert!(plain.kernel.is_none() && plain.initrd.is_none());
        let first = plain.image_name().unwrap();
        assert_eq!(first, plain.image_name().unwrap());
        fs::write(directory.path().join("x.kernel"), "k").unwrap();
        let with_kernel = DiskFile::at(&disk);
        assert!(with_kernel.kernel.is_some());
        assert_ne!(with_kernel.image_name().unwrap(), first);
        fs::write(&disk, "12").unwrap();
        assert_ne!(plain.image_name().unwrap(), first);
    }

    #[test]
    fn holes_stay_holes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let mut content = vec![0; 3 << 20];
        content[1 << 20] = 7;
        copy_sparsely(&content[..], &mut File::create(&path).unwrap()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        assert!(path.metadata().unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn disks_of_other_programs_are_told() {
        assert_eq!(foreign_kind(b"KDMV\x01"), Some("VMDK"));
        assert_eq!(foreign_kind(b"QFI\xfb"), None);
        assert_eq!(foreign_kind(b""), None);
    }
}
