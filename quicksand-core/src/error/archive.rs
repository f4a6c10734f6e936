//! Why a save could not be exported or imported.

use std::{io, path::PathBuf};

use crate::{image::state::StateError, qemu::qcow2::Qcow2Error};

/// The version of the index that this code writes, and the highest that it reads.
pub(crate) const VERSION: u32 = 1;

/// Why a save could not be exported or imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A file could not be read or written.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// It is something else.
    #[error("import {}: it is no exported save: {why}", file.display())]
    NotAnExport {
        /// The file.
        file: PathBuf,
        /// What shows it.
        why: String,
    },
    /// It was written by a later quicksand.
    #[error("import {}: it has version {found}, and this quicksand reads up to {VERSION}; use a newer one", file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It ends before all of it has come, or can't be unpacked.
    #[error("import {}: it is cut short or damaged at its entry {entry}", file.display())]
    Broken {
        /// The file.
        file: PathBuf,
        /// The entry.
        entry: String,
        /// What came of reading it.
        source: io::Error,
    },
    /// An entry is not what the index says.
    #[error("import {}: its entry {entry} is damaged: it has another SHA-256 than its index says", file.display())]
    Digest {
        /// The file.
        file: PathBuf,
        /// The entry.
        entry: String,
    },
    /// It would do what no export does.
    #[error("import {}: its entry {entry} is refused: {why}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// The entry.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// A disk in it is none that QEMU may be given.
    #[error("import {}", file.display())]
    Disk {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: Qcow2Error,
    },
    /// The save that was made of it is none.
    #[error("import {}", file.display())]
    Save {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: StateError,
    },
}
