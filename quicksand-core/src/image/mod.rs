//! What an image, a frozen state and a project are on disk.
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

pub(crate) mod error;
pub mod initramfs;
pub(crate) mod metadata;
pub(crate) mod project;
pub(crate) mod project_list;
pub(crate) mod recipe;
pub(crate) mod state;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use sha2::{Digest, Sha256};

use crate::base::{
    cache::{Cache, hold},
    random::hex,
};
pub use error::ImageError;
pub use metadata::Origin;
#[cfg(test)]
use metadata::{Boot, StoredFile};
use metadata::{Defaults, Metadata, Root};
pub use recipe::RecipeError;

/// File names have 255 bytes at most, of which temporary names and locks take some.
const LONGEST_NAME: usize = 200;
/// What a disk's file is called in its directory, and the kind of file system of those that we make.
pub(crate) const DISK_FILE: &str = "disk.qcow2";
pub(crate) const FILE_SYSTEM: &str = "ext4";

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
    pub(crate) fn touch(&self) {
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
        let (disk, kernel) = (stored(DISK_FILE), stored("kernel"));
        let boot = Boot { kernel, lent: false, modules: Vec::new() };
        let metadata = Metadata::new("0".repeat(64), (disk, 1 << 20), FILE_SYSTEM, boot);
        fs::write(directory.join(metadata::FILE), metadata.to_json().unwrap()).unwrap();
        Image::at(directory, "sample").unwrap().unwrap()
    }
}

/// Checks that an image may have this name.
pub(crate) fn check_name(name: &str) -> Result<(), ImageError> {
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
