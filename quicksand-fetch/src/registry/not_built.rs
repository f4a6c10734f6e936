//! What stands in for a registry where the feature `oci` is missing: nobody ever has one.

use std::{convert::Infallible, path::Path};

use super::{Access, Logins, RegistryError};
use crate::{Digest, Settings};

/// A place in a registry: something with a name, with its tag or digest.
#[derive(Debug)]
pub struct Registry(Infallible);

impl Registry {
    /// Refuses.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotBuilt`].
    pub async fn connect(
        reference: &str,
        access: Access,
        _settings: &Settings,
        _logins: &Logins,
    ) -> Result<Registry, RegistryError> {
        Err(RegistryError::NotBuilt { doing: format!("{} {reference}", access.verb()) })
    }

    /// The manifest or index that the reference, or a digest of the same name, means.
    ///
    /// # Errors
    ///
    /// None: there is no registry to be asked.
    pub async fn manifest(&self, _: Option<&Digest>, _: &[&str]) -> Result<(Vec<u8>, Digest), RegistryError> {
        match self.0 {}
    }

    /// A small blob.
    ///
    /// # Errors
    ///
    /// None: there is no registry to be asked.
    pub async fn document(&self, _: &Digest, _: u64) -> Result<Vec<u8>, RegistryError> {
        match self.0 {}
    }

    /// A blob that fits into memory.
    ///
    /// # Errors
    ///
    /// None: there is no registry to be asked.
    pub async fn small_blob(&self, _: &Digest, _: u64) -> Result<Vec<u8>, RegistryError> {
        match self.0 {}
    }

    /// Pulls a blob to a file.
    ///
    /// # Errors
    ///
    /// None: there is no registry to be asked.
    pub async fn pull_to_file(
        &self,
        _: &Digest,
        _: u64,
        _: &Path,
        _: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), RegistryError> {
        match self.0 {}
    }

    /// Pushes a blob.
    ///
    /// # Errors
    ///
    /// None: there is no registry to be asked.
    pub async fn push_blob(&self, _: &Digest, _: Vec<u8>) -> Result<bool, RegistryError> {
        match self.0 {}
    }

    /// Pushes a manifest.
    ///
    /// # Errors
    ///
    /// None: there is no registry to be asked.
    pub async fn push_manifest(&self, _: &'static str, _: Vec<u8>) -> Result<Digest, RegistryError> {
        match self.0 {}
    }

    /// The reference in full, with the registry's name.
    pub fn reference(&self) -> String {
        match self.0 {}
    }

    /// What has that digest there.
    pub fn reference_of(&self, _: &Digest) -> String {
        match self.0 {}
    }
}

/// Refuses.
///
/// # Errors
///
/// [`RegistryError::NotBuilt`].
pub fn parse_full(reference: &str) -> Result<(String, Option<Digest>), RegistryError> {
    Err(RegistryError::NotBuilt { doing: format!("pull {reference}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_missing_feature_is_named() {
        let (settings, logins) = (Settings::default(), Logins::default());
        let pushed = Registry::connect("localhost/x", Access::Push, &settings, &logins).await.unwrap_err();
        let without = "this program was built without quicksand's feature `oci`";
        assert_eq!(pushed.to_string(), format!("failed to push localhost/x: {without}"));
        assert_eq!(parse_full("x").unwrap_err().to_string(), format!("failed to pull x: {without}"));
    }
}
