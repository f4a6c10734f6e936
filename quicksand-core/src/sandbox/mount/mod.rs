//! Directories of the host in a guest: what a user asks for. See docs/mounts.md for how it works and what it keeps from a guest.

mod server;

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use crate::error::{Error, Result};

pub(crate) use server::start;

/// A directory of the host that a guest is to have.
///
/// What the guest makes there belongs to the user of the host who runs this program, and the guest can do there what that user
/// can. To the guest a file is of the user who made it there, or was given it by `chown`; that is kept until the mount is taken off. All
/// other files of this user are whoever's looks at them, or those of the [`owner`](Mount::owner).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a mount does nothing by itself: give it to `SandboxBuilder::mount(..)` or `Sandbox::mount(..)`"]
pub struct Mount {
    pub(crate) host: PathBuf,
    pub(crate) guest: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) cached: bool,
    pub(crate) owner: Option<String>,
}

impl Mount {
    /// The directory `host`, which must be there, at `guest`, an absolute path that is made where it is missing.
    pub fn new(host: impl Into<PathBuf>, guest: impl Into<PathBuf>) -> Mount {
        Mount { host: host.into(), guest: guest.into(), read_only: false, cached: false, owner: None }
    }

    /// The guest may change nothing: the host refuses it, and so does the guest's own kernel.
    pub fn read_only(mut self) -> Mount {
        self.read_only = true;
        self
    }

    /// Nobody but this guest changes the directory while it is mounted, so the guest may remember what it has seen: much faster where
    /// the same files are read again. Without this a command sees all that the host wrote before it began, and what the host
    /// writes meanwhile within a second.
    pub fn cached(mut self) -> Mount {
        self.cached = true;
        self
    }

    /// Whose the guest sees the files to be that it has not made itself: a user of the guest by name or number, whose group they are as
    /// well, or `user:group` as numbers. Without this they are whoever's looks at them, so that programs that want files of their
    /// own user's are content; with [`cached`](Mount::cached) they are root's.
    ///
    /// # Errors
    ///
    /// [`Error::BadOption`] from what puts the mount on, where the guest has no such user then.
    pub fn owner(mut self, owner: impl Into<String>) -> Mount {
        self.owner = Some(owner.into());
        self
    }

    /// Checks what can be checked without a guest.
    pub(crate) fn check(&self) -> Result<()> {
        let root_or_relative =
            !self.guest.is_absolute() || self.guest.components().all(|part| part == Component::RootDir);
        if root_or_relative || self.guest.as_os_str().as_encoded_bytes().contains(&0) {
            let why = format!("{:?} is not an absolute path in the guest, below its root", self.guest);
            return Err(Error::BadOption { option: "mount", why });
        }
        Ok(())
    }

    /// The same with the host's directory as an absolute path without links.
    ///
    /// # Errors
    ///
    /// Those of [`check`](Mount::check); [`Error::MountSource`].
    pub(crate) fn resolved(mut self) -> Result<Mount> {
        self.check()?;
        let found = fs::canonicalize(&self.host).and_then(|host| match fs::metadata(&host)?.is_dir() {
            true => Ok(host),
            false => Err(std::io::ErrorKind::NotADirectory.into()),
        });
        self.host = found.map_err(|source| Error::MountSource { path: self.host.clone(), source })?;
        Ok(self)
    }
}

/// A mount of a running sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActiveMount {
    pub(crate) id: u64,
    pub(crate) host: PathBuf,
    pub(crate) guest: PathBuf,
    pub(crate) read_only: bool,
}

impl ActiveMount {
    /// The directory of the host, an absolute path.
    pub fn host(&self) -> &Path {
        &self.host
    }

    /// Where the guest has it.
    pub fn guest(&self) -> &Path {
        &self.guest
    }

    /// Whether the guest may change nothing.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_checked() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let missing = directory.path().join("missing");
        for guest in ["", "mnt", "./mnt", "/", "//", "/mnt\0"] {
            let error = Mount::new(directory.path(), guest).resolved().unwrap_err();
            assert!(matches!(error, Error::BadOption { option: "mount", .. }), "{guest:?}: {error}");
        }
        for host in [&missing, &file] {
            let error = Mount::new(host, "/mnt").resolved().unwrap_err();
            assert!(matches!(&error, Error::MountSource { path, .. } if path == host), "{error}");
        }
        assert!(!missing.exists());
        let resolved = Mount::new(directory.path().join("."), "/mnt").resolved().unwrap();
        assert_eq!(resolved.host, fs::canonicalize(directory.path()).unwrap());
    }
}
