//! What a guest's files, packages and units have become since its sandbox started.
//!
//! ```no_run
//! # async fn f(sb: quicksand_core::Sandbox) -> quicksand_core::Result<()> {
//! sb.execute("apt-get install -y jq").await?;
//! let changes = sb.changes().ignore(["/usr/share/doc", "/usr/share/man"]).await?;
//! assert!(changes.package("jq").is_some() && changes.file("/usr/bin/jq").is_some());
//! println!("{changes}");
//! # Ok(())
//! # }
//! ```
//!
//! - this file: [`Changes`], what a caller gets;
//! - `find`: [`FindChanges`], what a caller asks for, and how it is answered;
//! - `survey`: what a guest has now: an index of its files, its packages, its users;
//! - `baseline`: the survey of the state that a sandbox started from, kept in the cache;
//! - `compare`: two surveys beside each other;
//! - `attribute`: capabilities, access control lists and the like, in words;
//! - `content`: whether files differ that merely may;
//! - `files`, `packages`, `units`, `owners`: what a survey consists of;
//! - `ignore`: what is no change;
//! - `display`: changes as text.

mod attribute;
pub(crate) mod baseline;
mod compare;
mod content;
mod display;
mod files;
mod find;
mod ignore;
mod owners;
mod packages;
pub(crate) mod survey;
mod units;

use std::path::{Path, PathBuf};

pub use attribute::Attribute;
pub use find::FindChanges;
pub use ignore::DEFAULT_IGNORED;

/// What has changed in a guest since its sandbox started. Its text is fit for a snapshot: it is in the order of paths and names, and
/// says nothing of times.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "changes are no error: assert on them, or take a snapshot of them"]
pub struct Changes {
    /// Files, directories and links, by path.
    pub files: Vec<FileChange>,
    /// Packages of dpkg, apk or rpm, by name.
    pub packages: Vec<PackageChange>,
    /// Units of systemd or, where there is none, scripts in `/etc/init.d`, by name.
    pub units: Vec<UnitChange>,
    /// The image at the bottom of the guest's disk.
    pub image: String,
}

/// A file that was added, removed or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileChange {
    /// Its absolute path in the guest.
    pub path: PathBuf,
    /// What it was. `None` where it was added.
    pub before: Option<FileState>,
    /// What it is. `None` where it was removed.
    pub after: Option<FileState>,
    /// Whether a regular file that was there before, and still is, has other content.
    pub content: bool,
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileState {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// The name of its owner, or the number of one without a name.
    pub owner: String,
    /// The name of its group, or the number of one without a name.
    pub group: String,
    /// What it has beside: capabilities, access control lists, extended attributes, flags. Of files and directories alone.
    pub attributes: Vec<Attribute>,
}

/// Kinds of files.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it leads, as it is written in the link.
        target: PathBuf,
    },
    /// A pipe with a name.
    Fifo,
    /// A socket.
    Socket,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharacterDevice,
}

/// A package that was added, removed or is there in another version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackageChange {
    /// Its name; with its architecture where there are several of that name.
    pub name: String,
    /// The version that there was. `None` where it was added.
    pub before: Option<String>,
    /// The version that there is. `None` where it was removed.
    pub after: Option<String>,
}

/// A unit that was added, removed, enabled and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnitChange {
    /// Its name: `ssh.service`, or that of a script.
    pub name: String,
    /// What it was. `None` where it was added.
    pub before: Option<UnitState>,
    /// What it is. `None` where it was removed.
    pub after: Option<UnitState>,
}

/// Whether a unit is started by itself, as its files say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnitState {
    /// Nothing in `/etc` has it started when the system comes up.
    NotEnabled,
    /// A target, another unit or a runlevel wants it.
    Enabled,
    /// It can't be started.
    Masked,
}

impl Changes {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.packages.is_empty() && self.units.is_empty()
    }

    /// The change of a file. `None` where it has not changed.
    pub fn file(&self, path: impl AsRef<Path>) -> Option<&FileChange> {
        let path = path.as_ref();
        self.files.iter().find(|change| change.path == path)
    }

    /// The change of a package. `None` where it has not changed.
    pub fn package(&self, name: &str) -> Option<&PackageChange> {
        self.packages.iter().find(|change| change.name == name)
    }

    /// The change of a unit. `None` where it has not changed.
    pub fn unit(&self, name: &str) -> Option<&UnitChange> {
        self.units.iter().find(|change| change.name == name)
    }
}
