//! A place in a registry, spoken to.

use std::time::Duration;

use oci_spec::distribution::{ParseError, Reference};
use reqwest::Method;

use super::{
    Access, LARGEST_DOCUMENT, Logins, RegistryError,
    credentials::Login,
    http::{Ask, Http},
};
use crate::{Digest, Settings};

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A place in a registry: something with a name, with its tag or digest.
#[derive(Debug)]
pub struct Registry {
    pub(super) http: Http,
    pub(super) reference: Reference,
    /// How long nothing may come.
    pub(super) patience: Duration,
}

impl Registry {
    /// Finds the login for the place, and how the registry is spoken to. Nothing else is asked of it yet.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn connect(
        reference: &str,
        access: Access,
        settings: &Settings,
        logins: &Logins,
    ) -> Result<Registry, RegistryError> {
        let place = parse(reference)?;
        if settings.offline {
            return Err(RegistryError::Offline { doing: format!("{} {place}", access.verb()) });
        }
        let login = logins.find(place.resolve_registry()).await?;
        Registry::open(place, login, access, settings, PATIENCE).await
    }

    pub(super) async fn open(
        reference: Reference,
        login: Option<Login>,
        access: Access,
        settings: &Settings,
        patience: Duration,
    ) -> Result<Registry, RegistryError> {
        let host = reference.resolve_registry();
        let mut http = Http::new(host, reference.repository(), login, access, settings, patience)?;
        match http.greet().await {
            // On this host nobody listens in, so that registries may do without certificates there.
            Err(RegistryError::Failed { .. }) if is_loopback(host) => {
                http.in_the_clear();
                http.greet().await?;
            }
            other => other?,
        }
        Ok(Registry { http, reference, patience })
    }

    /// The manifest or index that the reference, or a digest of the same name, means. It is what its digest says.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn manifest(
        &self,
        digest: Option<&Digest>,
        media_types: &[&str],
    ) -> Result<(Vec<u8>, Digest), RegistryError> {
        let reference = digest.map_or(self.reference.clone(), |it| self.reference.clone_with_digest(it.to_string()));
        let doing = format!("pull the manifest of {reference}");
        let url = self.http.url(&self.manifest_path(digest))?;
        let ask = Ask { accept: media_types, ..Ask::default() };
        let answer = self.http.ask(&doing, Method::GET, url, &ask, self.patience).await?;
        let bytes = self.http.body(&doing, answer, LARGEST_DOCUMENT).await?;
        let found = Digest::of(&bytes);
        match reference.digest() {
            Some(expected) if *expected != found.to_string() => {
                Err(RegistryError::Wrong { doing, expected: expected.to_owned(), found: found.to_string() })
            }
            _ => Ok((bytes, found)),
        }
    }

    /// Where the manifest of a digest is, or that which the reference means.
    pub(super) fn manifest_path(&self, digest: Option<&Digest>) -> String {
        let own = || self.reference.digest().or(self.reference.tag()).unwrap_or("latest").to_owned();
        format!("manifests/{}", digest.map_or_else(own, Digest::to_string))
    }

    /// The reference in full, with the registry's name.
    pub fn reference(&self) -> String {
        self.reference.whole()
    }

    /// What has that digest there.
    pub fn reference_of(&self, digest: &Digest) -> String {
        format!("{}/{}@{digest}", self.reference.registry(), self.reference.repository())
    }
}

/// Checks a reference, and gives it in full with the digest that it names.
///
/// # Errors
///
/// [`RegistryError::Reference`].
pub fn parse_full(reference: &str) -> Result<(String, Option<Digest>), RegistryError> {
    let place = parse(reference)?;
    let digest = place.digest().map(|digest| {
        let wrong = |_| RegistryError::Reference { reference: reference.to_owned(), why: "it has no SHA-256".into() };
        digest.parse().map_err(wrong)
    });
    Ok((place.whole(), digest.transpose()?))
}

fn parse(reference: &str) -> Result<Reference, RegistryError> {
    let wrong = |why: ParseError| RegistryError::Reference { reference: reference.to_owned(), why: why.to_string() };
    reference.parse().map_err(wrong)
}

/// Whether a registry, with its port, is on this very host.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_given_in_full() {
        let (full, digest) = parse_full("debian:12").unwrap();
        assert_eq!((full.as_str(), digest), ("docker.io/library/debian:12", None));
        let digits = "ab".repeat(32);
        let (full, digest) = parse_full(&format!("localhost:5000/a/b@sha256:{digits}")).unwrap();
        assert_eq!(full, format!("localhost:5000/a/b@sha256:{digits}"));
        assert_eq!(digest.unwrap().hex(), digits);
        for wrong in ["", "a b", "x:", "x@sha256:12", "x@md5:00112233445566778899aabbccddeeff"] {
            let error = parse_full(wrong).unwrap_err().to_string();
            assert!(error.contains("write registry/name:tag"), "{wrong}: {error}");
        }
    }

    #[test]
    fn only_this_host_may_do_without_certificates() {
        for own in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.3.2.1", "[::1]:5000"] {
            assert!(is_loopback(own), "{own}");
        }
        for other in ["example.org", "localhost.example.org:5000", "10.0.0.1:5000", "[fd00::1]:5000", "1270.0.0.1"] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
