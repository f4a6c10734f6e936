//! What downloads and registries are told.

use std::{path::PathBuf, time::Duration};

use crate::{Certificates, Proxies};

/// What downloads and registries are told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Refuse to reach the network.
    pub offline: bool,
    /// The proxies through which servers are reached.
    pub proxies: Proxies,
    /// Certificates to trust in place of the system's.
    pub certificates: Option<Certificates>,
    /// How long a download waits while nothing comes.
    pub stall: Duration,
}

impl Default for Settings {
    /// The network may be reached without a proxy, and the system's certificates count.
    fn default() -> Settings {
        Settings { offline: false, proxies: Proxies::default(), certificates: None, stall: Duration::from_secs(30) }
    }
}

/// Why settings can't be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A file of certificates can't be used.
    #[error("failed to trust the certificates in {} (SSL_CERT_FILE, SSL_CERT_DIR): {why}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A variable that is to name a proxy does not.
    #[error("failed to connect as {name} says: {why}; write http://HOST:PORT")]
    Proxy {
        /// The variable, in lower case.
        name: &'static str,
        /// What is wrong with its value, which is not shown: a password may be in it.
        why: String,
    },
}
