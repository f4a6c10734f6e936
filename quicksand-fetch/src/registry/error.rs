//! What can go wrong between us and a registry.

use std::{error::Error, io, path::PathBuf};

use crate::SettingsError;

/// Why a registry gave nothing, or took nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The reference is none.
    #[error(
        "failed to use {reference:?} as a reference in a registry: {why}; write registry/name:tag or registry/name@sha256:…"
    )]
    Reference {
        /// What was given.
        reference: String,
        /// What is wrong with it.
        why: String,
    },
    /// The [settings](crate::Settings::offline) forbid it.
    #[error("failed to {doing}: QUICKSAND_OFFLINE forbids it")]
    Offline {
        /// What would have been done.
        doing: String,
    },
    /// The feature `oci` is missing.
    #[error("failed to {doing}: this program was built without quicksand's feature `oci`")]
    NotBuilt {
        /// What would have been done.
        doing: String,
    },
    /// The settings can't be followed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The user's credentials could not be read.
    #[error("failed to find the credentials for {registry}: {why}")]
    Credentials {
        /// The registry.
        registry: String,
        /// What the file or the helper program said.
        why: String,
    },
    /// The registry refuses.
    #[error(
        "failed to {doing}: {registry} asks for a login with that right; `docker login {registry}` writes one where \
         quicksand looks for logins"
    )]
    Unauthorized {
        /// What was being done.
        doing: String,
        /// The registry.
        registry: String,
    },
    /// The registry has a certificate of an authority that this host does not know.
    #[error(
        "failed to {doing}: the registry's certificate is not of an authority that this host trusts; SSL_CERT_FILE names \
         a file with the certificates of those that are trusted"
    )]
    Certificate {
        /// What was being done.
        doing: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is nothing of that name.
    #[error("failed to {doing}: the registry has no such thing")]
    Absent {
        /// What was being done.
        doing: String,
    },
    /// It went wrong on the way.
    #[error("failed to {doing}")]
    Failed {
        /// What was being done.
        doing: String,
        /// What came of it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The registry stopped to send.
    #[error("failed to {doing}: the registry stalled: {arrived} of {size} bytes have come")]
    Stalled {
        /// What was being done.
        doing: String,
        /// How much has come.
        arrived: u64,
        /// How much there is to come.
        size: u64,
    },
    /// Something else came than what was asked for.
    #[error("failed to {doing}: expected {expected}, and {found} came")]
    Wrong {
        /// What was being done.
        doing: String,
        /// A digest or a size.
        expected: String,
        /// What there was in its place.
        found: String,
    },
    /// A file failed us.
    #[error("failed to {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
}
