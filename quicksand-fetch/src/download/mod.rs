//! Files from the network, into a directory: resumed where they broke off, and whole and verified or not there.
//!
//! ```text
//! KEY         a whole file; its key is its digest
//! KEY.part    what there is so far of one
//! KEY.json    what the server said of that, so that the rest can be asked for
//! ```

mod error;
#[cfg(feature = "download")]
mod http;
#[cfg(any(test, not(feature = "download")))]
mod not_built;
#[cfg(feature = "download")]
mod transfer;

use std::{
    error::Error,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

pub use error::DownloadError;

use crate::{FileDigest, Settings};
#[cfg(feature = "download")]
use http::Http;
#[cfg(not(feature = "download"))]
use not_built::Http;

/// The name of the stage that a download reports, in bytes.
pub const STAGE: &str = "download";

/// The directory in which files are kept, and its locks.
pub trait Store: Sync {
    /// What keeps other processes out until it is dropped.
    type Lock: Send;

    /// The directory. It is there.
    fn directory(&self) -> PathBuf;

    /// Takes the lock of the file that has that name, once no other process has the lock.
    ///
    /// # Errors
    ///
    /// Whatever keeps the lock from being taken.
    fn lock(&self, name: &str) -> impl Future<Output = Result<Self::Lock, Box<dyn Error + Send + Sync>>> + Send;
}

/// What fetches files.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
    offline: bool,
}

/// A file that is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where it is.
    pub url: String,
    /// What it must be. It is also what it is kept as.
    pub digest: FileDigest,
    /// How many bytes it has, where that is known beforehand.
    pub size: Option<u64>,
    /// How many bytes it may have at the most.
    pub limit: u64,
    /// Headers of the request, as for credentials.
    pub headers: Vec<(String, String)>,
}

/// An answer that was read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// Its headers, by lower-case name.
    pub headers: Vec<(String, String)>,
    /// What came.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl Client {
    /// A client.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Settings`] where the settings can't be followed.
    pub fn new(settings: &Settings) -> Result<Client, DownloadError> {
        Ok(Client { http: Http::new(settings)?, offline: settings.offline })
    }

    /// The file in the store, downloaded where it is not there. Of processes that want it at once, one downloads it.
    ///
    /// What came of a download that broke off stays, and the next one goes on from there if the server can do that.
    ///
    /// `report` hears of the stages [`STAGE`] and `verify`: how many bytes are done, and how many there are, or 0 where that is not known.
    ///
    /// # Errors
    ///
    /// [`DownloadError`].
    pub async fn file(
        &self,
        store: &impl Store,
        wanted: Wanted,
        report: impl Fn(&'static str, u64, u64) + Send + Sync + 'static,
    ) -> Result<PathBuf, DownloadError> {
        let key = wanted.digest.file_name();
        let path = store.directory().join(&key);
        if touch(&path).is_ok() {
            return Ok(path);
        }
        if self.offline {
            return Err(DownloadError::Offline { url: wanted.url });
        }
        let _lock = match store.lock(&key).await {
            Ok(lock) => lock,
            Err(source) => return Err(DownloadError::Lock { url: wanted.url, source }),
        };
        if touch(&path).is_ok() {
            return Ok(path);
        }
        tracing::info!(target: "quicksand::download", url = wanted.url, "downloading");
        self.http.file(wanted, path, Box::new(report)).await
    }

    /// What a URL answers, whatever its status, of `limit` bytes at the most: a list of digests, an index.
    ///
    /// # Errors
    ///
    /// [`DownloadError`].
    pub async fn get(&self, url: &str, headers: &[(String, String)], limit: u64) -> Result<Answer, DownloadError> {
        if self.offline {
            return Err(DownloadError::Offline { url: url.to_owned() });
        }
        self.http.get(url, headers, limit).await
    }
}

/// Takes note that a file is used now: nothing else tells that it is about to be. Fails where there is none.
fn touch(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

/// Hears of how far a stage has come.
type Report = Box<dyn Fn(&'static str, u64, u64) + Send + Sync>;
