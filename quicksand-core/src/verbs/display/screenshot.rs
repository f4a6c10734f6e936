//! Pictures of a guest's display.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::json;

use super::shown;
use crate::{
    error::{Error, Result},
    sandbox::Sandbox,
    vm::Vm,
};

impl Sandbox {
    /// Writes a picture of the display to a file of the host, as PNG. A guest without graphics shows its text console, of 720 by 400
    /// pixels: 25 lines of 80 characters, each of 9 by 16.
    ///
    /// # Errors
    ///
    /// [`Error::NoDisplay`]; [`Error::Io`] where the file can't be written; [`Error::Qmp`] where QEMU was built without PNG.
    pub async fn screenshot(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let picture = self.screenshot_png().await?;
        fs::write(path, picture).map_err(Error::io("write", path))
    }

    /// The same as bytes.
    ///
    /// # Errors
    ///
    /// Those of [`screenshot`](Sandbox::screenshot).
    pub async fn screenshot_png(&self) -> Result<Vec<u8>> {
        take(&*shown(self).await?).await
    }
}

/// Has QEMU take a picture.
pub(crate) async fn take(vm: &Vm) -> Result<Vec<u8>> {
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let number = TAKEN.fetch_add(1, Ordering::Relaxed);
    let file = Temporary(vm.file(&format!("screen-{number}.png")));
    let path = &file.0;
    vm.qmp().execute("screendump", json!({ "filename": path.to_string_lossy(), "format": "png" })).await?;
    fs::read(path).map_err(Error::io("read", path))
}

/// A file that goes with us.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Where QEMU wrote none, there is none.
        let _ = fs::remove_file(&self.0);
    }
}

/// Width and height of a PNG, which stand at a fixed place of every one.
pub(crate) fn size(picture: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(picture.get(at..at + 4)?.try_into().ok()?));
    picture.starts_with(b"\x89PNG\r\n\x1a\n").then(|| Some((number(16)?, number(20)?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_picture_is_read() {
        let picture = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x02\xd0\0\0\x01\x90\x08\x02";
        assert_eq!(size(picture), Some((720, 400)));
        assert_eq!(size(&picture[..20]), None);
        assert_eq!(size(b"GIF89a"), None);
    }
}
