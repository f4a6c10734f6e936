//! How images are made, in machines of our own where that takes a kernel. What an image is on disk is told by
//! [`image`](crate::image).

mod archive;
mod boot;
mod catalogue;
mod collection;
mod cpio;
mod debian;
mod disk;
pub(crate) mod helper;
mod import;
mod kernel;
mod known;
mod layers;
pub(crate) mod oci;
mod recipe;
mod rootfs;
mod tool;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::{
    base::blocking::blocking,
    image::{
        Image, ImageError, check_name,
        metadata::{Defaults, Origin},
    },
};

pub use collection::{ImageInfo, import_as, list, remove, show};
pub use known::{Update, update};
pub(crate) use oci::{Descriptor, Manifest};

use crate::{
    base::{
        cache::{Cache, CacheError, Unfinished},
        progress::Reporter,
        random::hex,
    },
    image::{
        metadata::{Boot, Metadata, Root, StoredFile},
        project::{Locked, Project},
        project_list,
    },
};

/// How long to wait for another process that makes the same image.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// The image that is made from packages on this host, with which all others are read and written.
pub(crate) async fn ensure_local(cache: &Cache, reporter: &Reporter) -> Result<Image, ImageError> {
    if let Some(image) = Image::find(cache, debian::NAME)? {
        image.touch();
        return Ok(image);
    }
    let make = async |directory: PathBuf| debian::make(&directory, debian::SUITE, reporter).await;
    making(cache, debian::NAME, make, reporter).await
}

/// The image of that name, made if it is not in the cache. Of processes that ask at once, one makes it and the others
/// wait.
///
/// What it started is ended, and what it wrote is removed, if this is dropped.
///
/// # Errors
///
/// [`ImageError`]; the cache is then as it was.
pub async fn ensure(cache: &Cache, name: &str, reporter: &Reporter) -> Result<Image, ImageError> {
    let image = if let Some(reference) = oci::Reference::parse(name) {
        oci::ensure(cache, reference?, reporter).await?
    } else if let Some(found) = recipe::find(name)? {
        found.ensure(cache, reporter).await?
    } else {
        known::ensure(cache, name, reporter).await?
    };
    image.touch();
    if let Some(project) = Project::find() {
        project_list::note(cache, &project);
    }
    Ok(image)
}

/// The name in the cache of the image that a lock names.
pub(crate) fn name_in_cache(name: &str, locked: &Locked) -> Option<String> {
    if name.starts_with("oci:") { oci::name_in_cache(locked) } else { known::name_in_cache(name, locked) }
}

/// The image that a file holds, a disk or an archive of a root file system, taken from it where the cache does not have it.
///
/// # Errors
///
/// [`ImageError`]; the cache is then as it was.
pub async fn ensure_disk(cache: &Cache, path: &Path, reporter: &Reporter) -> Result<Image, ImageError> {
    let file = import::DiskFile::at(path);
    let name = file.image_name()?;
    if let Some(image) = Image::find(cache, &name)? {
        image.touch();
        return Ok(image);
    }
    if archive::is_archive(path) {
        return archive::ensure(cache, path, None, reporter).await;
    }
    let source = fs::canonicalize(path).map_err(ImageError::io("find", path))?;
    import::ensure(cache, &name, &file, import::origin(source.to_string_lossy(), None), reporter).await
}

/// What an image is made of, beside its disk, which is a file in its directory already.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The size of the disk as a guest sees it, in bytes.
    pub(crate) disk_size: u64,
    /// The kind of its root file system.
    pub(crate) file_system: String,
    pub(crate) root: Root,
    pub(crate) origin: Option<Origin>,
    pub(crate) defaults: Defaults,
    pub(crate) boot: Boot,
}

/// The image of that name, made by `make` in the directory that it is given where the cache does not have it. Of processes that
/// ask at once, one makes it and the others wait.
pub(crate) async fn making(
    cache: &Cache,
    name: &str,
    make: impl AsyncFnOnce(PathBuf) -> Result<Parts, ImageError>,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    check_name(name)?;
    let _lock = cache.lock(&format!("image-{name}"), PATIENCE).await?;
    if let Some(image) = Image::find(cache, name)? {
        return Ok(image);
    }
    make_locked(cache, name, make, reporter).await
}

/// The same, in place of the image that the cache may have. That one stays if this fails.
pub(crate) async fn making_anew(
    cache: &Cache,
    name: &str,
    make: impl AsyncFnOnce(PathBuf) -> Result<Parts, ImageError>,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    check_name(name)?;
    let _lock = cache.lock(&format!("image-{name}"), PATIENCE).await?;
    make_locked(cache, name, make, reporter).await
}

async fn make_locked(
    cache: &Cache,
    name: &str,
    make: impl AsyncFnOnce(PathBuf) -> Result<Parts, ImageError>,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    tracing::info!(target: "quicksand::image", name, "making an image");
    let target = cache.images().join(name);
    let unfinished = match Unfinished::beside(&target) {
        Err(CacheError::Io { path, source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            disk::remove_leftovers(&path).await?;
            Unfinished::beside(&target)?
        }
        other => other?,
    };
    let directory = unfinished.path().to_owned();
    let Parts { disk_size, file_system, root, origin, defaults, boot } = make(directory.clone()).await?;

    let reporter = reporter.clone();
    blocking(move || {
        let (digest, size) = digest(&directory.join(crate::image::DISK_FILE), &reporter)?;
        let disk = StoredFile { path: crate::image::DISK_FILE.into(), size };
        let metadata = Metadata::new(digest, (disk, disk_size), &file_system, boot);
        let metadata = Metadata { root, origin, defaults, ..metadata };
        let path = directory.join(crate::image::metadata::FILE);
        let json = metadata.to_json().map_err(|error| ImageError::io("write", &path)(error.into()))?;
        fs::write(&path, json).map_err(ImageError::io("write", &path))?;
        Ok::<_, ImageError>(unfinished.finish()?)
    })
    .await?;
    let lost = || ImageError::Incomplete { what: "the image's files, just written," };
    Image::find(cache, name)?.ok_or_else(lost)
}

/// Checks whether this host can make images by itself.
pub(crate) async fn check_tools(cache: &Cache) -> Result<(), ImageError> {
    debian::check(&cache.images()).await
}

/// A file's SHA-256 and size.
fn digest(path: &Path, reporter: &Reporter) -> Result<(String, u64), ImageError> {
    let read = || {
        let mut file = File::open(path)?;
        let total = file.metadata()?.len();
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut current = 0;
        reporter.report("digest", 0, total);
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok((hex(&hash.finalize()), current));
            }
            hash.update(&buffer[..count]);
            current += count as u64;
            reporter.report("digest", current, total);
        }
    };
    read().map_err(ImageError::io("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        (directory, cache)
    }

    fn put(cache: &Cache, name: &str) -> PathBuf {
        let directory = cache.images().join(name);
        fs::create_dir_all(directory.join("modules")).unwrap();
        let file = |path: &str, content: &str| {
            fs::write(directory.join(path), content).unwrap();
            StoredFile { path: path.into(), size: content.len() as u64 }
        };
        let modules = vec![file("modules/00-virtio.ko", "virtio"), file("modules/01-fuse.ko", "fuse")];
        let boot = Boot { kernel: file("kernel", "Linux"), lent: false, modules };
        let metadata = Metadata::new("d1".into(), (file("disk.qcow2", "disk"), 99), "ext4", boot);
        fs::write(directory.join("image.json"), metadata.to_json().unwrap()).unwrap();
        directory
    }

    #[test]
    fn names() {
        for good in ["debian", "a", "9", "debian:12", "my-image_v1.2", &"x".repeat(200)] {
            check_name(good).unwrap();
        }
        let too_long = "x".repeat(201);
        let bad = [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/",
            ".new-debian",
            "-x",
            "_x",
            "Debian",
            "dEbian",
            "a b",
            "a,b",
            "ä",
            "a\0",
        ];
        for bad in bad.into_iter().chain([too_long.as_str()]) {
            assert!(matches!(check_name(bad), Err(ImageError::BadName { name }) if name == bad), "{bad}");
        }
    }

    #[test]
    fn what_is_there_is_found() {
        let (_directory, cache) = cache();
        assert!(Image::find(&cache, "x").unwrap().is_none());
        let directory = put(&cache, "x");
        let image = Image::find(&cache, "x").unwrap().unwrap();
        assert_eq!((image.name(), image.digest(), image.disk_size(), image.file_system()), ("x", "d1", 99, "ext4"));
        assert_eq!((image.disk(), image.kernel()), (directory.join("disk.qcow2"), directory.join("kernel")));
        assert_eq!(image.modules(), [directory.join("modules/00-virtio.ko"), directory.join("modules/01-fuse.ko")]);
        assert!(matches!(Image::find(&cache, "../x"), Err(ImageError::BadName { .. })));
    }

    #[test]
    fn damaged_ones_count_as_absent() {
        let (_directory, cache) = cache();
        let damage: [&dyn Fn(&Path); 5] = [
            &|directory| fs::write(directory.join("kernel"), "Linu").unwrap(),
            &|directory| fs::remove_file(directory.join("modules/01-fuse.ko")).unwrap(),
            &|directory| fs::write(directory.join("image.json"), "{").unwrap(),
            &|directory| fs::write(directory.join("image.json"), r#"{"version": 99}"#).unwrap(),
            &|directory| {
                fs::remove_file(directory.join("disk.qcow2")).unwrap();
                fs::create_dir(directory.join("disk.qcow2")).unwrap();
            },
        ];
        for (number, damage) in damage.iter().enumerate() {
            let name = format!("x{number}");
            let directory = put(&cache, &name);
            assert!(Image::find(&cache, &name).unwrap().is_some());
            damage(&directory);
            assert!(Image::find(&cache, &name).unwrap().is_none(), "{number}");
        }
    }

    #[tokio::test]
    async fn nobody_makes_an_unknown_one() {
        let (_directory, cache) = cache();
        let error = ensure(&cache, "plan9", &Reporter::silent()).await.unwrap_err().to_string();
        assert!(error.starts_with("make the image \"plan9\": these can be made: alpine, "), "{error}");
        assert!(error.contains(" debian, ") && error.ends_with("ubuntu:24.04"), "{error}");
        put(&cache, "plan9");
        assert_eq!(ensure(&cache, "plan9", &Reporter::silent()).await.unwrap().name(), "plan9");
    }

    #[test]
    fn digests() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        let (digest, size) = digest(file.path(), &Reporter::silent()).unwrap();
        assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(size, 3);
    }

    #[test]
    fn the_initramfs_holds_the_modules_in_order() {
        let (_directory, cache) = cache();
        put(&cache, "x");
        let bytes = crate::image::initramfs::initramfs(&Image::find(&cache, "x").unwrap().unwrap()).unwrap();
        let contains = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(contains(b"/modules/00-virtio.ko\n/modules/01-fuse.ko\n"));
        assert!(bytes.len() > quicksand_agent::BYTES.len());
    }
}
