//! Certificates of the authorities that are trusted.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::SettingsError;

/// Where systems keep the certificates that they trust.
const OF_THE_SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Certificates in the format PEM.
#[derive(Clone)]
pub struct Certificates {
    path: PathBuf,
    pem: Vec<u8>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Certificates in the format PEM, and the path from which they were read. Only messages use the path.
    pub fn from_pem(path: &Path, pem: Vec<u8>) -> Certificates {
        Certificates { path: path.to_owned(), pem }
    }

    /// The certificates that count: the given ones, else those of the system, else none. `parse` reads PEM.
    pub(crate) fn trusted<C>(
        given: Option<&Certificates>,
        parse: impl Fn(&[u8]) -> Result<Vec<C>, String>,
    ) -> Result<Vec<C>, SettingsError> {
        if let Some(Certificates { path, pem }) = given {
            let refused = |why: String| SettingsError::Certificates { path: path.clone(), why };
            let certificates = parse(pem).map_err(refused)?;
            return if certificates.is_empty() { Err(refused("there is none".to_owned())) } else { Ok(certificates) };
        }
        let mut of_the_system = OF_THE_SYSTEM.iter().filter_map(|path| parse(&std::fs::read(path).ok()?).ok());
        Ok(of_the_system.find(|certificates| !certificates.is_empty()).unwrap_or_default())
    }
}
