//! Blobs and manifests on their way to a registry.

use super::{Registry, RegistryError, transfer::again};
use crate::{digest::Digest, image::MANIFEST};

impl Registry {
    /// Pushes a blob, unless it is there already. Returns whether it went over.
    pub(crate) async fn push_blob(&self, digest: &Digest, content: Vec<u8>) -> Result<bool, RegistryError> {
        let (doing, name) = (self.doing("push", digest), digest.to_string());
        let once = async || {
            if self.client.blob_exists(&self.reference, &name).await? {
                return Ok(false);
            }
            self.client.push_blob(&self.reference, content.clone(), &name).await?;
            Ok(true)
        };
        let mut attempts = 0;
        loop {
            let error = match once().await {
                Ok(sent) => return Ok(sent),
                Err(error) => self.failed(&doing, error),
            };
            attempts += 1;
            again(error, attempts).await?;
        }
    }

    /// Pushes a manifest, under the reference's tag.
    pub(crate) async fn push_manifest(&self, content: Vec<u8>) -> Result<Digest, RegistryError> {
        let (doing, digest) = (format!("push the manifest of {}", self.reference), Digest::of(&content));
        let mut attempts = 0;
        loop {
            let media_type = MANIFEST.parse().unwrap_or_else(|_| unreachable!("it is plain text"));
            let error = match self.client.push_manifest_raw(&self.reference, content.clone(), media_type).await {
                Ok(_) => return Ok(digest),
                Err(error) => self.failed(&doing, error),
            };
            attempts += 1;
            again(error, attempts).await?;
        }
    }
}
