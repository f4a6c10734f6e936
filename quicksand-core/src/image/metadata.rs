//! `image.json`: what an image's directory holds. It is written last; without it there is no image.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file's name in the image's directory.
pub(super) const FILE: &str = "image.json";
/// The version that this code writes, and the only one that it reads: another one's image is made anew.
const VERSION: u32 = 1;

/// What `image.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Metadata {
    version: u32,
    /// The SHA-256 of the disk's file, in hexadecimal digits.
    pub(super) digest: String,
    /// The disk, a qcow2.
    pub(super) disk: StoredFile,
    /// What the guest sees as its size, in bytes.
    pub(super) disk_size: u64,
    /// What is on the disk, as the kernel names it: `ext4`.
    pub(super) file_system: String,
    /// The kernel.
    pub(super) kernel: StoredFile,
    /// Its modules, in the order to load them.
    pub(super) modules: Vec<StoredFile>,
}

/// A file in the image's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredFile {
    /// Relative to the directory.
    pub(super) path: PathBuf,
    /// In bytes.
    pub(super) size: u64,
}

/// Why a file is not metadata.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetadataError {
    #[error("read it: it has version {0}, and this quicksand reads version {VERSION}")]
    Version(u32),
    #[error("read it: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("take its path {}: it leads out of the image", .0.display())]
    Outside(PathBuf),
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl Metadata {
    pub(super) fn new(
        digest: String,
        disk: (StoredFile, u64),
        file_system: &str,
        kernel: StoredFile,
        modules: Vec<StoredFile>,
    ) -> Metadata {
        let (disk, disk_size) = disk;
        Metadata { version: VERSION, digest, disk, disk_size, file_system: file_system.to_owned(), kernel, modules }
    }

    pub(super) fn parse(text: &[u8]) -> Result<Metadata, MetadataError> {
        // The version alone first: another one's other fields may have any shape.
        let VersionOnly { version } = serde_json::from_slice(text)?;
        if version != VERSION {
            return Err(MetadataError::Version(version));
        }
        let metadata: Metadata = serde_json::from_slice(text)?;
        let outside = metadata.files().find(|file| !is_inside(&file.path)).map(|file| file.path.clone());
        outside.map_or(Ok(metadata), |path| Err(MetadataError::Outside(path)))
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }

    /// All files that belong to the image.
    pub(super) fn files(&self) -> impl Iterator<Item = &StoredFile> {
        [&self.disk, &self.kernel].into_iter().chain(&self.modules)
    }
}

fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_))) && path.file_name().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        let file = |path: &str, size| StoredFile { path: path.into(), size };
        let modules = vec![file("modules/00-virtio.ko", 7), file("modules/01-fuse.ko", 8)];
        Metadata::new("ab".into(), (file("disk.qcow2", 5), 10), "ext4", file("kernel", 6), modules)
    }

    #[test]
    fn what_is_written_is_read() {
        let metadata = metadata();
        assert_eq!(Metadata::parse(&metadata.to_json().unwrap()).unwrap(), metadata);
        assert_eq!(metadata.files().map(|file| file.size).collect::<Vec<_>>(), [5, 6, 7, 8]);
    }

    #[test]
    fn a_higher_version_is_told_whatever_else_it_holds() {
        let error = Metadata::parse(br#"{"version": 2, "disk": ["other", "shape"]}"#).unwrap_err();
        assert!(matches!(error, MetadataError::Version(2)), "{error}");
    }

    #[test]
    fn garbage_is_an_error() {
        let whole = metadata().to_json().unwrap();
        for text in
            [&b""[..], b"\0\xff", b"[]", b"{}", br#"{"version": "1"}"#, br#"{"version": 1}"#, &whole[..whole.len() / 2]]
        {
            let error = Metadata::parse(text).unwrap_err();
            assert!(matches!(error, MetadataError::Unreadable(_)), "{error}");
        }
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["/etc/passwd", "../disk.qcow2", "modules/../../x", "", "."] {
            let mut metadata = metadata();
            metadata.modules[1].path = path.into();
            let error = Metadata::parse(&metadata.to_json().unwrap()).unwrap_err();
            assert!(matches!(error, MetadataError::Outside(_)), "{path}: {error}");
        }
    }
}
