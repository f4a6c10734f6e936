//! The images in the cache, for those who look after them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{archive, catalogue, import};
use crate::{
    base::{
        cache::{Cache, discard},
        disk_usage::usage,
        progress::Reporter,
    },
    image::{Image, check_name, error::ImageError},
};

/// How long to wait for a process that makes the image that is to be removed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What there is to know of an image in the cache.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ImageInfo {
    /// The image.
    pub image: Image,
    /// What its files take on the disk, in bytes.
    pub bytes: u64,
    /// Whether warm states or saves share its files, which then stay as long as these do.
    pub shared: bool,
    /// When it was made or got.
    pub made: SystemTime,
}

/// All images in the cache, by name.
///
/// # Errors
///
/// [`ImageError::Io`] where the cache can't be read.
pub fn list(cache: &Cache) -> Result<Vec<ImageInfo>, ImageError> {
    Ok(all(cache)?.into_iter().map(ImageInfo::of).collect())
}

/// The image of that name, with what there is to know of it. `None` where the cache does not have it.
///
/// # Errors
///
/// [`ImageError::BadName`] and [`ImageError::Io`].
pub fn show(cache: &Cache, name: &str) -> Result<Option<ImageInfo>, ImageError> {
    Ok(Image::find(cache, name)?.map(ImageInfo::of))
}

/// Takes a disk's file, or an archive of a root file system, as an image of that name.
///
/// # Errors
///
/// [`ImageError::Taken`] for a name that is another image's; whatever keeps the file from being used.
pub async fn import_as(cache: &Cache, path: &Path, name: &str, reporter: &Reporter) -> Result<Image, ImageError> {
    check_name(name)?;
    if catalogue::find(name).is_some() || Image::find(cache, name)?.is_some() {
        return Err(ImageError::Taken { name: name.to_owned() });
    }
    let source = fs::canonicalize(path).map_err(ImageError::io("find", path))?;
    if archive::is_archive(path) {
        return archive::ensure(cache, path, Some(name), reporter).await;
    }
    let origin = import::origin(source.to_string_lossy(), None);
    import::ensure(cache, name, &import::DiskFile::at(path), origin, reporter).await
}

/// Removes an image from the cache and returns how many bytes that frees. Machines that run, warm states and saves keep what they
/// need of it.
///
/// # Errors
///
/// [`ImageError::Missing`]; [`ImageError::Cache`] where another process is making it.
pub async fn remove(cache: &Cache, name: &str) -> Result<u64, ImageError> {
    check_name(name)?;
    let _lock = cache.lock(&format!("image-{name}"), PATIENCE).await?;
    let directory = cache.images().join(name);
    if !directory.is_dir() {
        return Err(ImageError::Missing { name: name.to_owned() });
    }
    let freed = usage(&directory).iter().filter(|file| file.names == 1).map(|file| file.bytes).sum();
    discard(&directory)?;
    Ok(freed)
}

/// All images in the cache that are whole, by name.
pub(crate) fn all(cache: &Cache) -> Result<Vec<Image>, ImageError> {
    let directory = cache.images();
    let entries = fs::read_dir(&directory).map_err(ImageError::io("read", &directory))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut images = Vec::new();
    for name in names.filter(|name| check_name(name).is_ok()) {
        images.extend(Image::find(cache, &name)?);
    }
    images.sort_by(|one, other| one.name().cmp(other.name()));
    Ok(images)
}

impl ImageInfo {
    fn of(image: Image) -> ImageInfo {
        let bytes = usage(image.directory()).iter().map(|file| file.bytes).sum();
        let shared = image.disk().metadata().is_ok_and(|disk| disk.nlink() > 1);
        let written = || image.disk().metadata().and_then(|disk| disk.modified()).unwrap_or(UNIX_EPOCH);
        let made = image.origin().map_or_else(written, |origin| UNIX_EPOCH + Duration::from_secs(origin.time));
        ImageInfo { image, bytes, shared, made }
    }
}
