//! Putting a program of the host into a guest: one's own, as cargo built it, and only where it can run there.
//!
//! - `elf`: what a program or a library says of itself;
//! - `check`: whether a guest has what a program needs.

mod check;
mod elf;
mod loader_cache;

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use tar::{EntryType, Header};

use crate::{
    base::{blocking::blocking, plain_file},
    error::{Error, Result},
    sandbox::Sandbox,
};

pub(crate) use crate::error::install::InstallError;

/// Where programs go that are given no other place.
const DIRECTORY: &str = "/usr/local/bin";
const MODE: u32 = 0o755;

impl Sandbox {
    /// Puts a program of the host on the guest's path, as `/usr/local/bin/NAME` with mode 0755, and returns that path. It replaces
    /// what is there; a program that runs from there runs on as it is.
    ///
    /// ```no_run
    /// # async fn f(sb: quicksand_core::Sandbox) -> quicksand_core::Result<()> {
    /// # let mytool = "target/debug/mytool";
    /// // let mytool = env!("CARGO_BIN_EXE_mytool");
    /// sb.install(mytool).await?;
    /// assert_eq!(sb.execute("mytool --version").await?.stdout, "mytool 1.0.0\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Nothing is copied unless the guest has what the program needs: its architecture, its loader, the shared libraries that it
    /// names and the versions of these; for a script, its interpreter.
    ///
    /// # Errors
    ///
    /// [`Error::Install`] where the guest lacks what it needs, or where it is neither a program nor a script; [`Error::Io`] where the
    /// host's file can't be read; [`Error::Guest`] where the guest can't write.
    pub async fn install(&self, program: impl AsRef<Path>) -> Result<PathBuf> {
        let program = program.as_ref();
        let name = program.file_name().ok_or_else(|| InstallError::NotAProgram { program: program.to_owned() })?;
        self.put(program, Path::new(DIRECTORY).join(name)).await
    }

    /// The same under another name in `/usr/local/bin`, or at another place: an absolute path, whose directory is made where it is
    /// missing.
    ///
    /// # Errors
    ///
    /// Those of [`install`](Sandbox::install).
    pub async fn install_as(&self, program: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<PathBuf> {
        let to = to.as_ref();
        if !(to.is_absolute() || to.components().count() == 1) || to.file_name().is_none() {
            let why = format!("{} is neither a name nor an absolute path of the guest", to.display());
            return Err(Error::BadOption { option: "the program's place", why });
        }
        self.put(program.as_ref(), Path::new(DIRECTORY).join(to)).await
    }

    async fn put(&self, program: &Path, to: PathBuf) -> Result<PathBuf> {
        let path = program.to_owned();
        let content = blocking(move || plain_file::read(&path)).await;
        let content = content.map_err(Error::io("read", program))?;
        check::check(self, program, &content, &to).await?;
        let directory = to.parent().unwrap_or(Path::new("/"));
        let there = self.file(directory).await?;
        if !there.exists() {
            self.upload_as(header(EntryType::Directory, 0), Vec::new(), directory).await?;
        }
        self.upload_as(header(EntryType::Regular, content.len()), content, &to).await?;
        Ok(to)
    }
}

/// What is said of a program, and of a directory for it.
fn header(kind: EntryType, len: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(MODE);
    header.set_size(len as u64);
    header.set_mtime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    header
}

/// A path as the guest has it.
fn lossy(path: &Path) -> String {
    String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned()
}
