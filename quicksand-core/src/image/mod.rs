//! Images: what a machine starts from, made once and kept in the cache.
//!
//! An image is a disk with a root file system, the kernel that belongs to it, and the few of the kernel's modules that
//! a guest needs before it can read its disk. Nothing of quicksand is on the disk: see [`initramfs`].
//!
//! ```text
//! images/NAME/image.json     what is here, written last; see `metadata`
//!             disk.qcow2     the disk; nothing ever writes to it again
//!             kernel
//!             modules/       the modules, numbered in the order to load them
//! ```

mod archive;
mod boot;
mod catalogue;
mod collection;
mod compression;
mod cpio;
mod debian;
mod disk;
mod error;
pub(crate) mod helper;
mod import;
mod initramfs;
mod kernel;
mod known;
mod layers;
pub(crate) mod metadata;
mod oci;
mod recipe;
mod rootfs;
#[cfg(feature = "oci")]
mod share;
mod tool;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

pub use collection::{ImageInfo, import_as, list, remove, show};
pub(crate) use compression::unpacked;
pub use error::ImageError;
pub(crate) use initramfs::archive as initramfs_archive;
pub use initramfs::initramfs;
pub use known::{Update, update};
pub(crate) use metadata::Defaults;
pub use metadata::Origin;
#[cfg(feature = "oci")]
pub(crate) use oci::{Descriptor, MANIFEST, Manifest};
pub(crate) use recipe::Recipe;
pub use recipe::RecipeError;
#[cfg(feature = "oci")]
pub(crate) use share::likely_files;
#[cfg(feature = "oci")]
pub use share::{pull, push};

use crate::{
    cache::{Cache, CacheError, Unfinished, hold},
    progress::Reporter,
    project::{Locked, Project},
    project_list,
    random::hex,
};
use kernel::Boot;
use metadata::{Metadata, Root, StoredFile};

/// How long to wait for another process that makes the same image.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// File names have 255 bytes at most, of which temporary names and locks take some.
const LONGEST_NAME: usize = 200;

/// An image in the cache.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    directory: PathBuf,
    metadata: Arc<Metadata>,
    bare: bool,
    /// What keeps it in the cache while it is used. `None` of one that is part of a frozen machine, which is held as a whole.
    held: Option<Arc<File>>,
}

impl Image {
    /// The image of that name if the cache has it. One that is damaged, or was made by another version of quicksand,
    /// counts as absent.
    ///
    /// # Errors
    ///
    /// [`ImageError::BadName`], and [`ImageError::Io`] where the cache can't be read.
    pub fn find(cache: &Cache, name: &str) -> Result<Option<Image>, ImageError> {
        check_name(name)?;
        let directory = cache.images().join(name);
        let Some(held) = hold(&directory).map_err(ImageError::io("open", &directory))? else { return Ok(None) };
        let image = Image::at(&directory, name)?;
        Ok(image.map(|image| Image { held: Some(Arc::new(held)), ..image }))
    }

    /// Notes that it is used now, by which those that nobody uses are found.
    fn touch(&self) {
        if let Some(held) = &self.held {
            let _ = held.set_modified(SystemTime::now());
        }
    }

    /// The image in a directory.
    pub(crate) fn at(directory: &Path, name: &str) -> Result<Option<Image>, ImageError> {
        let path = directory.join(metadata::FILE);
        let text = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(ImageError::io("read", &path))?,
        };
        let metadata = match Metadata::parse(&text) {
            Ok(metadata) => metadata,
            Err(error) => {
                let (path, error) = (path.display(), &error as &dyn std::error::Error);
                tracing::warn!(target: "quicksand::image", %path, error, "an image is not usable");
                return Ok(None);
            }
        };
        for file in metadata.files() {
            let path = directory.join(&file.path);
            let is_whole = |it: &fs::Metadata| it.is_file() && it.len() == file.size;
            if !path.metadata().as_ref().is_ok_and(is_whole) {
                let (path, size) = (path.display(), file.size);
                tracing::warn!(target: "quicksand::image", %path, size, "an image is damaged: not a file of this size");
                return Ok(None);
            }
        }
        Ok(Some(Image {
            name: name.to_owned(),
            directory: directory.to_owned(),
            metadata: Arc::new(metadata),
            bare: false,
            held: None,
        }))
    }

    /// The name of its description.
    pub(crate) const FILE: &str = metadata::FILE;

    /// Takes over the image in a directory that somebody else made, under a digest of all of its files: what its description says of
    /// itself is not to be believed. Returns its files, relative to the directory, or what is wrong with it.
    pub(crate) fn adopt(directory: &Path, digest: String) -> Result<Vec<PathBuf>, String> {
        let path = directory.join(metadata::FILE);
        let text = fs::read(&path).map_err(|e| e.to_string())?;
        let metadata = Metadata::parse(&text).map_err(|e| format!("failed to {e}"))?;
        let files = metadata.files().map(|file| file.path.clone()).collect();
        let text = Metadata { digest, ..metadata }.to_json().map_err(|e| e.to_string())?;
        fs::write(&path, text).map_err(|e| e.to_string())?;
        Ok(files)
    }

    /// The files of the image in a directory that somebody else made, relative to it, or what is wrong with it: its description must
    /// tell the truth about its disk, whose SHA-256 is known.
    #[cfg(feature = "oci")]
    pub(crate) fn described(
        directory: &Path,
        sha256_of: impl Fn(&Path) -> Option<String>,
    ) -> Result<Vec<PathBuf>, String> {
        let text = fs::read(directory.join(metadata::FILE)).map_err(|e| e.to_string())?;
        let metadata = Metadata::parse(&text).map_err(|e| format!("failed to {e}"))?;
        match sha256_of(&metadata.disk.path) {
            Some(sha256) if sha256 == metadata.digest => Ok(metadata.files().map(|file| file.path.clone()).collect()),
            Some(sha256) => Err(format!("it names a disk of SHA-256 {}, and there is {sha256}", metadata.digest)),
            None => Err("its disk is missing".to_owned()),
        }
    }

    /// All of its files, by their paths.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let names = self.metadata.files().map(|file| file.path.as_path());
        [Path::new(metadata::FILE)].into_iter().chain(names).map(|name| self.directory.join(name)).collect()
    }

    /// The same, by their names in a save: `image/kernel`.
    pub(crate) fn named_files(&self) -> impl Iterator<Item = (String, PathBuf)> {
        let named = |path: PathBuf| {
            let within = path.strip_prefix(&self.directory).unwrap_or(&path).display().to_string();
            (format!("image/{within}"), path)
        };
        self.files().into_iter().map(named)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells it from all others, also of the same name: the SHA-256 of its disk's file, in hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.metadata.digest
    }

    /// Tells it from every other that a machine might start from, by its disk, its kernel and how the two are put together.
    pub(crate) fn identity(&self) -> String {
        // Nothing in it can't be written as JSON.
        hex(&Sha256::digest(self.metadata.without_origin().to_json().unwrap_or_default()))
    }

    /// The same image, whose machines are not to start its init: nothing runs in them but what we ask for.
    pub(crate) fn bare(mut self) -> Image {
        self.bare = true;
        self
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.bare
    }

    /// Its disk, a qcow2. Machines write to layers over it.
    pub fn disk(&self) -> PathBuf {
        self.directory.join(&self.metadata.disk.path)
    }

    /// The size of the disk as a guest sees it, in bytes.
    pub fn disk_size(&self) -> u64 {
        self.metadata.disk_size
    }

    /// Where its root file system is, as its guest sees it: `/dev/vda` where it is all of the disk, `/dev/vda1` where it is the
    /// first partition.
    pub fn root_device(&self) -> &str {
        &self.metadata.root.device
    }

    /// What its root file system is mounted with, as in `subvol=root`; often nothing.
    pub fn root_flags(&self) -> &str {
        &self.metadata.root.flags
    }

    pub(crate) fn root(&self) -> &Root {
        &self.metadata.root
    }

    /// How programs are run in it.
    pub(crate) fn defaults(&self) -> &Defaults {
        &self.metadata.defaults
    }

    /// Where it is from, where that is known.
    pub fn origin(&self) -> Option<&Origin> {
        self.metadata.origin.as_ref()
    }

    /// The kind of its root file system, as the kernel names it: `ext4`.
    pub fn file_system(&self) -> &str {
        &self.metadata.file_system
    }

    /// Its kernel.
    pub fn kernel(&self) -> PathBuf {
        self.directory.join(&self.metadata.kernel.path)
    }

    /// Whether its kernel is one of those on its disk, so that the guest may come to ask for another.
    pub(crate) fn has_own_kernel(&self) -> bool {
        !self.metadata.lent_kernel
    }

    /// The kernel's modules that a guest needs before it can read its disk, in the order to load them.
    pub fn modules(&self) -> Vec<PathBuf> {
        self.metadata.modules.iter().map(|file| self.directory.join(&file.path)).collect()
    }
}

#[cfg(test)]
impl Image {
    /// An image of a few bytes in a new directory, for tests of what holds images.
    pub(crate) fn sample(directory: &Path) -> Image {
        fs::create_dir(directory).unwrap();
        let stored = |name: &str| {
            fs::write(directory.join(name), name.split('.').next().unwrap()).unwrap();
            StoredFile { path: name.into(), size: directory.join(name).metadata().unwrap().len() }
        };
        let (disk, kernel) = (stored(disk::FILE), stored("kernel"));
        let boot = Boot { kernel, lent: false, modules: Vec::new() };
        let metadata = Metadata::new("0".repeat(64), (disk, 1 << 20), disk::FILE_SYSTEM, boot);
        fs::write(directory.join(metadata::FILE), metadata.to_json().unwrap()).unwrap();
        Image::at(directory, "sample").unwrap().unwrap()
    }
}

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
    off_the_runtime(move || {
        let (digest, size) = digest(&directory.join(disk::FILE), &reporter)?;
        let disk = StoredFile { path: disk::FILE.into(), size };
        let metadata = Metadata::new(digest, (disk, disk_size), &file_system, boot);
        let metadata = Metadata { root, origin, defaults, ..metadata };
        let path = directory.join(metadata::FILE);
        let json = metadata.to_json().map_err(|error| ImageError::io("write", &path)(error.into()))?;
        fs::write(&path, json).map_err(ImageError::io("write", &path))?;
        Ok(unfinished.finish()?)
    })
    .await?;
    let lost = || ImageError::Incomplete { what: "the image's files, just written," };
    Image::find(cache, name)?.ok_or_else(lost)
}

/// Checks whether this host can make images by itself.
pub(crate) async fn check_tools(cache: &Cache) -> Result<(), ImageError> {
    debian::check(&cache.images()).await
}

fn check_name(name: &str) -> Result<(), ImageError> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = name.bytes();
    if bytes.next().is_some_and(is_plain)
        && bytes.all(|byte| is_plain(byte) || b"._:-".contains(&byte))
        && name.len() <= LONGEST_NAME
    {
        Ok(())
    } else {
        Err(ImageError::BadName { name: name.to_owned() })
    }
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

/// Runs what waits for files on a thread where that holds up nobody.
async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, so there is hardly anybody who hears this.
            Err(error) => Err(ImageError::io("finish with", Path::new("images"))(error.into())),
        },
    }
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
        let bytes = initramfs(&Image::find(&cache, "x").unwrap().unwrap()).unwrap();
        let contains = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(contains(b"/modules/00-virtio.ko\n/modules/01-fuse.ko\n"));
        assert!(bytes.len() > quicksand_agent::BYTES.len());
    }
}
