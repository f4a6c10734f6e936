//! The initramfs that an image's guests start from: the agent as `/init`, and the modules of the image's kernel.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{Image, error::ImageError, hexadecimal, off_the_runtime};
use crate::{cache::Cache, initramfs::Archive};

/// The archive's bytes. The same image and the same quicksand give the same bytes.
///
/// # Errors
///
/// [`ImageError::Io`] where the image's files can't be read.
pub fn initramfs(image: &Image) -> Result<Vec<u8>, ImageError> {
    let mut archive = Archive::new();
    archive.console().directory(Path::new("modules"));
    let mut order = String::new();
    for path in image.modules() {
        let content = fs::read(&path).map_err(ImageError::io("read", &path))?;
        let name = Path::new("modules").join(path.file_name().unwrap_or_default());
        archive.file(&name, 0o644, &content);
        order.push_str(&format!("/{}\n", name.display()));
    }
    archive.file(Path::new("modules/order"), 0o644, order.as_bytes());
    archive.file(Path::new("init"), 0o755, quicksand_agent::BYTES);
    Ok(archive.finish())
}

/// The path of the archive as a file of the cache, named after what is in it.
///
/// # Errors
///
/// [`ImageError`] where the image's files can't be read or the archive can't be written.
pub async fn initramfs_file(cache: &Cache, image: &Image) -> Result<PathBuf, ImageError> {
    let image = image.clone();
    let (key, bytes) = off_the_runtime(move || {
        let bytes = initramfs(&image)?;
        Ok((hexadecimal(&Sha256::digest(&bytes)), bytes))
    })
    .await?;
    let path = cache.initramfs().join(&key);
    if path.exists() {
        return Ok(path);
    }
    let _lock = cache.lock(&format!("initramfs-{key}"), Duration::from_secs(60)).await?;
    off_the_runtime(move || {
        let unfinished = path.with_file_name(format!(".new-{key}"));
        let write = |mut file: File| file.write_all(&bytes).and_then(|()| file.sync_all());
        File::create(&unfinished).and_then(write).map_err(ImageError::io("write", &unfinished))?;
        fs::rename(&unfinished, &path).map_err(ImageError::io("rename", &unfinished))?;
        Ok(path)
    })
    .await
}
