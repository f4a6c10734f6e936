//! Images of a root file system in a tar archive, as `tar`, `mmdebstrap` or `docker export` make it; it may be compressed.

use std::{io::Read, path::Path};

use super::{
    import::{DiskFile, origin},
    layers::{self, Blob, RootFs},
    rootfs::Section,
};
use crate::{
    base::{cache::Cache, compression::unpacked, plain_file, progress::Reporter},
    image::{Image, error::ImageError, metadata::Defaults},
};

/// Whether a file is a tar archive, by its content. Where it can't be read it is none.
pub(crate) fn is_archive(path: &Path) -> bool {
    let mut block = Vec::new();
    let read = plain_file::open(path).and_then(|file| unpacked(file.take(16 << 20), 16 << 20)).and_then(|file| {
        let mut file = file.take(512);
        file.read_to_end(&mut block)
    });
    read.is_ok() && block.get(257..262) == Some(b"ustar")
}

/// The image of the archive at `path`, made where the cache does not have it. Without a name of the caller's it gets one that is
/// another once the archive has changed.
pub(crate) async fn ensure(
    cache: &Cache,
    path: &Path,
    name: Option<&str>,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => format!(
            "rootfs{}-{}",
            layers::MAKING,
            DiskFile { disk: path.to_owned(), kernel: None, initrd: None }.key()?
        ),
    };
    if let Some(image) = Image::find(cache, &name)? {
        return Ok(image);
    }
    let content = plain_file::open(path).and_then(Section::whole).map_err(ImageError::io("read", path))?;
    let layer = Blob { name: "the archive".into(), content, digest: None, archive_digest: None };
    let root_fs = RootFs {
        name: path.display().to_string(),
        layers: vec![layer],
        whiteouts: false,
        defaults: Defaults::default(),
        origin: origin(path.to_string_lossy(), None),
    };
    layers::ensure(cache, &name, root_fs, reporter).await
}
