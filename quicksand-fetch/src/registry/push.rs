//! Blobs and manifests on their way to a registry.

use std::time::Duration;

use reqwest::Method;

use super::{Registry, RegistryError, http::Ask, transfer::again};
use crate::Digest;

/// How long one of our chunks may take to go over, over a slow line.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

impl Registry {
    /// Pushes a blob, unless it is there already. Returns whether it went over.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn push_blob(&self, digest: &Digest, content: Vec<u8>) -> Result<bool, RegistryError> {
        let doing = self.doing("push", digest);
        let mut attempts = 0;
        loop {
            let error = match self.push_blob_once(&doing, digest, &content).await {
                Ok(sent) => return Ok(sent),
                Err(error) => error,
            };
            attempts += 1;
            again(error, attempts).await?;
        }
    }

    async fn push_blob_once(&self, doing: &str, digest: &Digest, content: &[u8]) -> Result<bool, RegistryError> {
        let (http, nothing) = (&self.http, Ask::default());
        let own = http.url(&format!("blobs/{digest}"))?;
        match http.ask(doing, Method::HEAD, own, &nothing, self.patience).await {
            Ok(_) => return Ok(false),
            Err(RegistryError::Absent { .. }) => {}
            Err(error) => return Err(error),
        }
        let uploads = http.url("blobs/uploads/")?;
        let begun = http.ask(doing, Method::POST, uploads, &nothing, self.patience).await?;
        let mut place = http.location(doing, &begun)?;
        place.query_pairs_mut().append_pair("digest", &digest.to_string());
        let ask = Ask { body: Some(("application/octet-stream", content)), ..Ask::default() };
        http.ask(doing, Method::PUT, place, &ask, PATIENCE).await?;
        Ok(true)
    }

    /// Pushes a manifest of that media type, under the reference's tag.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn push_manifest(&self, media_type: &'static str, content: Vec<u8>) -> Result<Digest, RegistryError> {
        let (doing, digest) = (format!("push the manifest of {}", self.reference), Digest::of(&content));
        let place = self.http.url(&self.manifest_path(None))?;
        let ask = Ask { body: Some((media_type, &content)), ..Ask::default() };
        let mut attempts = 0;
        loop {
            let error = match self.http.ask(&doing, Method::PUT, place.clone(), &ask, PATIENCE).await {
                Ok(_) => return Ok(digest),
                Err(error) => error,
            };
            attempts += 1;
            again(error, attempts).await?;
        }
    }
}
