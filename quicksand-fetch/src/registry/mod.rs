//! Registries as OCI has them: places from which manifests and blobs are pulled by their digests, and to which they are pushed.
//!
//! - `client`: a place in a registry, and its documents;
//! - `credentials`: with whose login;
//! - `http`: what is said, how long it is waited for, and how much is listened to;
//! - `transfer`, `push`: blobs from there and to there, tried again where it breaks off. Nothing is believed whose digest was not
//!   computed.

#[cfg(feature = "oci")]
mod client;
#[cfg(feature = "oci")]
mod credentials;
mod error;
#[cfg(feature = "oci")]
mod http;
#[cfg(any(test, not(feature = "oci")))]
// With the feature it is compiled for its tests alone.
#[cfg_attr(feature = "oci", allow(unreachable_pub))]
mod not_built;
#[cfg(feature = "oci")]
mod push;
#[cfg(feature = "oci")]
mod transfer;

use std::{fmt, path::PathBuf};

#[cfg(feature = "oci")]
pub use client::{Registry, parse_full};
pub use error::RegistryError;
#[cfg(not(feature = "oci"))]
pub use not_built::{Registry, parse_full};

/// The most that a document may take, in bytes: what registries allow.
pub const LARGEST_DOCUMENT: u64 = 4 << 20;

/// What a registry is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// What is there.
    Pull,
    /// To take something, and what is there.
    Push,
}

impl Access {
    /// What is done, for messages.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Access::Pull => "pull",
            Access::Push => "push",
        }
    }
}

/// The user's logins: the content of Docker's `config.json`, which may name programs that keep passwords. By default there are none.
#[derive(Clone, Default)]
pub struct Logins(Option<DockerConfig>);

#[derive(Clone)]
struct DockerConfig {
    path: PathBuf,
    content: Vec<u8>,
}

impl Logins {
    /// The logins of a file of Docker's. Only messages use its path.
    pub fn of_docker(path: PathBuf, content: Vec<u8>) -> Logins {
        Logins(Some(DockerConfig { path, content }))
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Passwords are in the content.
        f.debug_tuple("Logins").field(&self.0.as_ref().map(|config| &config.path)).finish()
    }
}
