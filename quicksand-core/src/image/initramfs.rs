//! The initramfs that an image's guests start from: the agent as `/init`, and the modules of the image's kernel.

use std::{fs, path::Path};

use super::error::ImageError;
use crate::{image::Image, qemu::initramfs::Archive};

/// The archive's bytes. The same image and the same quicksand give the same bytes.
///
/// # Errors
///
/// [`ImageError::Io`] where the image's files can't be read.
pub fn initramfs(image: &Image) -> Result<Vec<u8>, ImageError> {
    let read = |path: std::path::PathBuf| {
        let content = fs::read(&path).map_err(ImageError::io("read", &path))?;
        Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), content))
    };
    archive(image.modules().into_iter().map(read))
}

/// The archive with modules of those file names and contents, in the order to load them.
pub(crate) fn archive<E>(modules: impl IntoIterator<Item = Result<(String, Vec<u8>), E>>) -> Result<Vec<u8>, E> {
    let mut archive = Archive::new();
    archive.console().directory(Path::new("modules"));
    let mut order = String::new();
    for module in modules {
        let (name, content) = module?;
        let name = Path::new("modules").join(name);
        archive.file(&name, 0o644, &content);
        order.push_str(&format!("/{}\n", name.display()));
    }
    archive.file(Path::new("modules/order"), 0o644, order.as_bytes());
    archive.file(Path::new("init"), 0o755, quicksand_agent::BYTES);
    Ok(archive.finish())
}
