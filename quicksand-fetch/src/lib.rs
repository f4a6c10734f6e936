//! How quicksand reaches the network: files that are downloaded, and registries of container images.
//!
//! - [`Settings`]: what both are told: whether they may reach the network at all, through which proxies, and which certificates count;
//! - [`download`]: files from publishers, kept in a directory under their digests;
//! - [`registry`]: manifests and blobs, pulled by their digests and pushed.
//!
//! This crate knows neither images nor machines, and it reads no variable of the environment: whoever calls it hands down a directory, a
//! lock and the [`Settings`]. Its messages do name the variables from which quicksand takes the settings, since they are what a user can
//! change.
//!
//! All of it compiles without the features `download` and `oci`, too. What takes a missing feature is then refused with
//! [`DownloadError::NotBuilt`] or [`RegistryError::NotBuilt`].
//!
//! Servers are not believed: answers are taken up to a size and waited for up to a time, no redirection leaves encryption, and nothing is
//! handed out whose digest was not computed. The one exception is [`Registry::pull_to_file`](registry::Registry::pull_to_file), which
//! leaves the digest to whoever unpacks the file.

// A feature's client is the only use of some items. What stands in for a client is compiled for its tests, too.
#![cfg_attr(any(test, not(all(feature = "download", feature = "oci"))), allow(dead_code))]

mod certificates;
mod digest;
pub mod download;
mod file_digest;
mod proxies;
pub mod registry;
mod settings;

pub use certificates::Certificates;
pub use digest::{BadDigest, Digest};
pub use download::DownloadError;
pub use file_digest::{BadFileDigest, FileDigest};
pub use proxies::Proxies;
pub use registry::RegistryError;
pub use settings::{Settings, SettingsError};
