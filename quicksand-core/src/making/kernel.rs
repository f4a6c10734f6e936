//! What a machine boots besides its disk: a kernel, and the modules that it needs before it can read the disk.
//!
//! Images without a kernel, as those of containers, share one: the [bundle](Bundle), which is taken out of the image `debian` once
//! and kept in the cache. Their directories have hard links to its files, so that each image is whole and the bundle is there once.
//! Root file systems that become a disk here get all of its modules, too, where programs look for them.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use quicksand_protocol::modules::{name_of, needed_with};
use serde::{Deserialize, Serialize};

use super::helper::Helper;
use crate::{
    base::{
        blocking::blocking,
        cache::{Cache, Unfinished, hold},
        compression::unpacked,
        progress::Reporter,
    },
    image::{
        error::ImageError,
        metadata::{Boot, StoredFile},
    },
};

/// The most that a kernel or a module has, unpacked, in bytes.
pub(crate) const LARGEST_FILE: u64 = 1 << 30;
/// How long to wait for another process that makes the same bundle.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// The kinds of root file systems that machines with the bundle's kernel can have.
const FILE_SYSTEMS: [&str; 3] = ["ext4", "xfs", "btrfs"];
/// What is there besides: a disk without a kernel has no modules that it could load later, and an image of a container no program
/// that would.
const EXTRAS: [&str; 9] =
    ["af_packet", "overlay", "loop", "isofs", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "dm_mod"];

/// The files that a kernel's release is told by, relative to the directory of its modules.
pub(crate) const DEPENDENCIES: &str = "modules.dep";
pub(crate) const BUILT_IN: &str = "modules.builtin";

/// The kernel that images without one share.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    directory: PathBuf,
    description: Description,
    /// What keeps it in the cache while it is used.
    _held: Arc<File>,
}

/// `bundle.json`, written last.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Description {
    version: u32,
    /// As `uname -r` says it.
    release: String,
    /// For each kind of root file system its modules' files in the order to load them.
    orders: Vec<(String, Vec<String>)>,
}

const VERSION: u32 = 2;
const DESCRIPTION: &str = "bundle.json";
const KERNEL: &str = "kernel";
/// All of the kernel's modules, as a tar archive whose paths begin with `lib/modules`.
const MODULES: &str = "modules.tar";
/// Packs the modules of release $1 in the helper.
const PACK_MODULES: &str = "tar --create --file /mnt/modules.tar --directory / --numeric-owner \"lib/modules/$1\"";
const PACKED_MODULES: &str = "/mnt/modules.tar";

impl Bundle {
    /// The bundle, made from the image `debian` where the cache does not have it.
    pub(crate) async fn ensure(cache: &Cache, reporter: &Reporter) -> Result<Bundle, ImageError> {
        let debian = super::ensure_local(cache, reporter).await?;
        let directory = cache.kernels().join(&debian.digest()[..32]);
        if let Some(bundle) = Bundle::read(&directory) {
            return Ok(bundle);
        }
        let name = format!("kernel-{}", &debian.digest()[..32]);
        let _lock = cache.lock(&name, PATIENCE).await?;
        if let Some(bundle) = Bundle::read(&directory) {
            return Ok(bundle);
        }
        let unfinished = Unfinished::beside(&directory)?;
        let helper = Helper::start(cache, reporter).await?;
        let release = helper.run("uname -r", &[]).await?.trim().to_owned();
        let source = format!("/lib/modules/{release}");
        let text = async |file: &str| {
            let bytes = helper.read(&format!("{source}/{file}")).await?;
            Ok::<_, ImageError>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (dependencies, built_in) = (text(DEPENDENCIES).await?, text(BUILT_IN).await?);
        let mut orders = Vec::new();
        let mut paths: Vec<String> = Vec::new();
        for file_system in FILE_SYSTEMS {
            let order = needed_with(&dependencies, &built_in, file_system, &EXTRAS)?;
            paths.extend(order.iter().cloned());
            orders.push((file_system.to_owned(), order.iter().map(|path| format!("{}.ko", name_of(path))).collect()));
        }
        paths.sort_unstable();
        paths.dedup();
        let total = paths.len() as u64;
        for (current, path) in paths.iter().enumerate() {
            reporter.report("take kernel", current as u64, total);
            let content = helper.read(&format!("{source}/{path}")).await?;
            store(&content[..], &unfinished.path().join(format!("{}.ko", name_of(path))))?;
        }
        helper.run(PACK_MODULES, &[&release]).await?;
        let path = unfinished.path().join(MODULES);
        fs::write(&path, helper.read(PACKED_MODULES).await?).map_err(ImageError::io("write", &path))?;
        reporter.report("take kernel", total, total);
        let kernel = debian.kernel();
        link_or_copy(&kernel, &unfinished.path().join(KERNEL))?;

        let description = Description { version: VERSION, release, orders };
        let path = unfinished.path().join(DESCRIPTION);
        let json =
            serde_json::to_vec_pretty(&description).map_err(|error| ImageError::io("write", &path)(error.into()))?;
        fs::write(&path, json).map_err(ImageError::io("write", &path))?;
        blocking(move || unfinished.finish()).await?;
        Bundle::read(&directory).ok_or(ImageError::Incomplete { what: "the kernel bundle, just written," })
    }

    /// A damaged one counts as absent: it is made again.
    fn read(directory: &Path) -> Option<Bundle> {
        let held = hold(directory).ok()??;
        let description: Description = serde_json::from_slice(&fs::read(directory.join(DESCRIPTION)).ok()?).ok()?;
        let whole = |file: &str| directory.join(file).is_file();
        let complete = description.orders.iter().flat_map(|(_, files)| files).all(|file| whole(file));
        let complete = complete && whole(KERNEL) && whole(MODULES);
        let _ = held.set_modified(SystemTime::now());
        let bundle = Bundle { directory: directory.to_owned(), description, _held: Arc::new(held) };
        (bundle.description.version == VERSION && complete).then_some(bundle)
    }

    /// The archive of all of its modules, whose paths begin with `lib/modules`.
    pub(crate) fn modules(&self) -> PathBuf {
        self.directory.join(MODULES)
    }

    /// Puts the kernel, and the modules for a root file system of that kind, into an image's directory.
    pub(crate) fn put_into(&self, directory: &Path, file_system: &str) -> Result<Boot, ImageError> {
        let order = self.description.orders.iter().find(|(name, _)| name == file_system).map(|(_, files)| files);
        let order = order.ok_or_else(|| ImageError::FileSystem { kind: file_system.to_owned() })?;
        let modules_directory = directory.join("modules");
        fs::create_dir(&modules_directory).map_err(ImageError::io("create", &modules_directory))?;
        let put = |from: &str, to: PathBuf| {
            let size = link_or_copy(&self.directory.join(from), &directory.join(&to))?;
            Ok(StoredFile { path: to, size })
        };
        let modules = order.iter().enumerate().map(|(number, file)| put(file, module_path(number, file)));
        let modules = modules.collect::<Result<_, ImageError>>()?;
        Ok(Boot { kernel: put(KERNEL, KERNEL.into())?, lent: true, modules })
    }
}

/// Where an image keeps the module that is loaded as that number, by its file's name or path.
pub(crate) fn module_path(number: usize, file: &str) -> PathBuf {
    Path::new("modules").join(format!("{number:02}-{}.ko", name_of(file)))
}

/// Writes a kernel or a module, which may be compressed, to a file, and returns its size there.
pub(crate) fn store(from: impl Read, to: &Path) -> Result<u64, ImageError> {
    let written = || io::copy(&mut unpacked(from, LARGEST_FILE)?, &mut File::create(to)?);
    match written().map_err(ImageError::io("write", to))? {
        0 => Err(ImageError::Incomplete { what: "a file of the kernel or of its modules that has content" }),
        size => Ok(size),
    }
}

/// Gives a file that nobody writes a second name, or copies it where there is no linking. Returns its size.
fn link_or_copy(from: &Path, to: &Path) -> Result<u64, ImageError> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).map_err(ImageError::io("copy to", to))?;
    }
    Ok(to.metadata().map_err(ImageError::io("look at", to))?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_put_into_images_and_stays_once() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("bundle");
        fs::create_dir(&directory).unwrap();
        for (file, content) in [("kernel", "K"), (MODULES, "M"), ("ext4.ko", "E"), ("virtio.ko", "V")] {
            fs::write(directory.join(file), content).unwrap();
        }
        assert!(Bundle::read(&directory).is_none());
        let orders = vec![("ext4".to_owned(), vec!["virtio.ko".to_owned(), "ext4.ko".to_owned()])];
        let description = Description { version: VERSION, release: "6.1".into(), orders };
        fs::write(directory.join(DESCRIPTION), serde_json::to_vec(&description).unwrap()).unwrap();
        let bundle = Bundle::read(&directory).unwrap();

        let image = temp.path().join("image");
        fs::create_dir(&image).unwrap();
        let boot = bundle.put_into(&image, "ext4").unwrap();
        let paths: Vec<_> = boot.modules.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!((paths, boot.kernel.size), (vec!["modules/00-virtio.ko", "modules/01-ext4.ko"], 1));
        assert_eq!(fs::read(image.join("modules/01-ext4.ko")).unwrap(), b"E");
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&fs::metadata(image.join("kernel")).unwrap()), 2);
        assert!(matches!(bundle.put_into(&image, "ntfs"), Err(ImageError::FileSystem { .. })));
        fs::remove_file(directory.join("ext4.ko")).unwrap();
        assert!(Bundle::read(&directory).is_none());
    }
}
