//! Why something could not be fetched.

use std::{io, path::PathBuf, time::Duration};

use super::FileDigest;
use crate::base::cache::CacheError;

/// Why a file could not be downloaded. Each tells the URL, and what was expected and what came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// `QUICKSAND_OFFLINE` is set.
    #[error("download {url}: QUICKSAND_OFFLINE is set, and the cache does not have it; unset it, or fetch it before")]
    Offline {
        /// What was to be fetched.
        url: String,
    },
    /// The server could not be reached, or the connection broke, time and again.
    #[error("download {url}: {what} ({tries} tries)")]
    Connection {
        /// What was to be fetched.
        url: String,
        /// What happened the last time.
        what: String,
        /// How many times it was tried.
        tries: u32,
    },
    /// The server refused.
    #[error("download {url}: expected the file, and the server answered {status}")]
    Status {
        /// What was to be fetched.
        url: String,
        /// The status of HTTP.
        status: u16,
    },
    /// The server led elsewhere too often, or from an encrypted connection to one that is not.
    #[error("download {url}: {why}")]
    Redirect {
        /// What was to be fetched.
        url: String,
        /// What the server did.
        why: &'static str,
    },
    /// What came has another size than what was announced.
    #[error("download {url}: expected {expected} bytes, and {came} came")]
    Size {
        /// What was to be fetched.
        url: String,
        /// How many bytes it has, as its publisher or the server said.
        expected: u64,
        /// How many there were.
        came: u64,
    },
    /// There is more than anybody could want.
    #[error("download {url}: expected at most {limit} bytes, and there are more")]
    TooLarge {
        /// What was to be fetched.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// What came is not what the publisher made.
    #[error("download {url}: expected {expected}, and {came} came; what was fetched is removed")]
    Digest {
        /// What was to be fetched.
        url: String,
        /// What its publisher says.
        expected: FileDigest,
        /// What came.
        came: FileDigest,
    },
    /// Nothing came, or next to nothing, for too long.
    #[error("download {url}: nothing came for {} s after {received} bytes; what is there is kept, and the next try goes on from it",
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
    #[error("download {url} to {}: the disk is full; {needed} bytes are needed there", path.display())]
    NoSpace {
        /// What was to be fetched.
        url: String,
        /// The file.
        path: PathBuf,
        /// How many bytes it has, as far as that is known.
        needed: u64,
    },
    /// A file in the cache failed us.
    #[error("download {url}: {what} {}", path.display())]
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
    /// A file of certificates can't be used.
    #[error("trust the certificates in {} (SSL_CERT_FILE): {why}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A variable that is to name a proxy does not.
    #[error("connect as {name} says: {why}; write http://HOST:PORT")]
    Proxy {
        /// The variable, in lower case.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The caller gave it up.
    #[error("download {url}: it was given up")]
    GivenUp {
        /// What was to be fetched.
        url: String,
    },
    /// The cache failed us.
    #[error(transparent)]
    Cache(#[from] CacheError),
}
