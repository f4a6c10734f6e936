//! Files from the network, into the user's cache: resumed where they broke off, and whole and verified or not there.
//!
//! ```text
//! downloads/KEY         a whole file; its key is its digest
//!           KEY.part    what there is so far of one
//!           KEY.json    what the server said of that, so that the rest can be asked for
//! ```
//!
//! Connections go through the proxies that `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy` name, see `proxy`. Certificates are those
//! in `SSL_CERT_FILE`, else the system's, else those that Mozilla trusts.

mod digest;
mod error;
mod proxy;
mod transfer;

use std::{
    env,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ureq::{
    Agent,
    tls::{Certificate, PemItem, RootCerts, TlsConfig},
};

pub use digest::{BadDigest, FileDigest};
pub use error::DownloadError;

use crate::base::{
    cache::{Cache, download_lock_name, touch},
    plain_file,
    progress::Reporter,
};
use proxy::Proxies;
use transfer::Transfer;

/// The name of the stage that a download reports, in bytes.
pub const STAGE: &str = "download";

/// How long another process may take to download the same file.
const OTHERS_PATIENCE: Duration = Duration::from_secs(6 * 60 * 60);
const CONNECT_PATIENCE: Duration = Duration::from_secs(20);
const MOST_REDIRECTS: u32 = 8;
/// Where systems keep the certificates that they trust.
const SYSTEM_CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What fetches files.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    proxies: Proxies,
    offline: bool,
    stall: Duration,
}

/// How files are fetched.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Refuse to fetch anything.
    pub offline: bool,
    /// A file of certificates to trust in place of the system's.
    pub certificates: Option<PathBuf>,
    /// For how long nothing may come.
    pub stall: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        let certificates = env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
        Settings { offline: false, certificates, stall: Duration::from_secs(30) }
    }
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
    /// [`DownloadError::Certificates`], [`DownloadError::Proxy`].
    pub fn new(settings: &Settings) -> Result<Client, DownloadError> {
        let tls = TlsConfig::builder().root_certs(root_certificates(settings)?).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // Each request has its own.
            .proxy(None)
            .user_agent(concat!("quicksand/", env!("CARGO_PKG_VERSION")))
            // What is fetched is to arrive as it is.
            .accept_encoding("identity")
            .max_redirects(MOST_REDIRECTS)
            .timeout_resolve(Some(CONNECT_PATIENCE))
            .timeout_connect(Some(CONNECT_PATIENCE))
            .timeout_per_read(Some(settings.stall))
            .timeout_per_write(Some(settings.stall))
            .timeout_recv_response(Some(settings.stall * 2))
            .build()
            .into();
        Ok(Client { agent, proxies: Proxies::from_environment()?, offline: settings.offline, stall: settings.stall })
    }

    /// The file in the cache, downloaded where it is not there. Of processes that want it at once, one downloads it.
    ///
    /// What came of a download that broke off stays, and the next one goes on from there if the server can do that.
    ///
    /// # Errors
    ///
    /// [`DownloadError`].
    pub async fn file(&self, cache: &Cache, wanted: Wanted, reporter: &Reporter) -> Result<PathBuf, DownloadError> {
        let key = wanted.digest.file_name();
        let path = cache.downloads().join(&key);
        // Touched, since nothing else tells that it is about to be used.
        if touch(&path).is_ok() {
            return Ok(path);
        }
        if self.offline {
            return Err(DownloadError::Offline { url: wanted.url });
        }
        let _lock = cache.lock(&download_lock_name(&key), OTHERS_PATIENCE).await?;
        // Touched, since nothing else tells that it is about to be used.
        if touch(&path).is_ok() {
            return Ok(path);
        }
        tracing::info!(target: "quicksand::download", url = wanted.url, "downloading");
        let given_up = GivenUp::default();
        let transfer = Transfer {
            agent: self.agent.clone(),
            proxy: self.proxies.of(&wanted.url),
            wanted,
            path,
            given_up: Arc::clone(&given_up.0),
            stall: self.stall,
            reporter: reporter.clone(),
        };
        on_a_thread(move || transfer.run()).await
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
        let ask = transfer::Ask {
            agent: self.agent.clone(),
            proxy: self.proxies.of(url),
            url: url.to_owned(),
            headers: headers.to_vec(),
            limit,
            stall: self.stall,
        };
        on_a_thread(move || transfer::get(&ask)).await
    }
}

/// Tells the thread of a download that nobody waits for it any more.
#[derive(Debug, Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DownloadError> + Send + 'static,
) -> Result<T, DownloadError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(DownloadError::GivenUp { url: "a file".to_owned() }),
        },
    }
}

fn root_certificates(settings: &Settings) -> Result<RootCerts, DownloadError> {
    if let Some(path) = &settings.certificates {
        let refused = |why: String| DownloadError::Certificates { path: path.clone(), why };
        let certificates = read_certificates(path).map_err(&refused)?;
        if certificates.is_empty() {
            return Err(refused("there is none in it".into()));
        }
        return Ok(certificates.into());
    }
    let of_the_system = SYSTEM_CERTIFICATES.iter().filter_map(|path| read_certificates(Path::new(path)).ok());
    Ok(of_the_system.into_iter().find(|found| !found.is_empty()).map_or(RootCerts::WebPki, RootCerts::from))
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = plain_file::read(path).map_err(|error| error.to_string())?;
    let items = ureq::tls::parse_pem(&pem).map(|item| item.map_err(|error| error.to_string()));
    let certificates = items.filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    certificates.collect()
}
