//! Why something could not be downloaded.

use std::{error::Error, io, path::PathBuf, time::Duration};

use crate::{FileDigest, SettingsError};

/// Why a file could not be downloaded. Each tells the URL, and what was expected and what came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The [settings](crate::Settings::offline) forbid it.
    #[error(
        "failed to download {url}: the cache does not have the file, and QUICKSAND_OFFLINE forbids a download; unset QUICKSAND_OFFLINE, or fetch the file before"
    )]
    Offline {
        /// What was to be fetched.
        url: String,
    },
    /// The feature `download` is missing.
    #[error("failed to download {url}: this program was built without quicksand's feature `download`")]
    NotBuilt {
        /// What was to be fetched.
        url: String,
    },
    /// The server could not be reached, or the connection broke, time and again.
    #[error("failed to download {url}: {what} ({tries} tries)")]
    Connection {
        /// What was to be fetched.
        url: String,
        /// What happened the last time.
        what: String,
        /// How many times it was tried.
        tries: u32,
    },
    /// The server refused.
    #[error("failed to download {url}: expected the file, and the server answered {status}")]
    Status {
        /// What was to be fetched.
        url: String,
        /// The status of HTTP.
        status: u16,
    },
    /// The server led elsewhere too often, or from an encrypted connection to one that is not.
    #[error("failed to download {url}: {why}")]
    Redirect {
        /// What was to be fetched.
        url: String,
        /// What the server did.
        why: &'static str,
    },
    /// What came has another size than what was announced.
    #[error("failed to download {url}: expected {expected} bytes, and {came} came")]
    Size {
        /// What was to be fetched.
        url: String,
        /// How many bytes it has, as its publisher or the server said.
        expected: u64,
        /// How many there were.
        came: u64,
    },
    /// There is more than anybody could want.
    #[error("failed to download {url}: expected at most {limit} bytes, and there are more")]
    TooLarge {
        /// What was to be fetched.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// What came is not what the publisher made.
    #[error("failed to download {url}: expected {expected}, and {came} came; the file that came is removed")]
    Digest {
        /// What was to be fetched.
        url: String,
        /// What its publisher says.
        expected: FileDigest,
        /// What came.
        came: FileDigest,
    },
    /// Nothing came, or next to nothing, for too long.
    #[error("failed to download {url}: nothing came for {} s after {received} bytes; these bytes are kept, and the next try goes on from there",
            waited.as_secs())]
    Stalled {
        /// What was to be fetched.
        url: String,
        /// How many bytes there are.
        received: u64,
        /// How long nothing came.
        waited: Duration,
    },
    /// The disk is full. What was fetched is removed, since it would keep it full.
    #[error("failed to download {url} to {}: the disk is full; {needed} bytes are needed there", path.display())]
    NoSpace {
        /// What was to be fetched.
        url: String,
        /// The file.
        path: PathBuf,
        /// How many bytes it has, as far as that is known.
        needed: u64,
    },
    /// A file in the directory failed us.
    #[error("failed to download {url}: could not {what} {}", path.display())]
    File {
        /// What was to be fetched.
        url: String,
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// The file's lock was not to be had.
    #[error("failed to download {url}: could not take the lock of the file")]
    Lock {
        /// What was to be fetched.
        url: String,
        /// What came of it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The caller gave it up.
    #[error("failed to download {url}: the caller gave the download up")]
    GivenUp {
        /// What was to be fetched.
        url: String,
    },
    /// The settings can't be followed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}
