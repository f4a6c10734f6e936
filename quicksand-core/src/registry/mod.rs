//! Registries as OCI has them: places from which manifests and blobs are pulled by their digests, and to which they are pushed.
//!
//! The crate `oci-client` speaks to them. What is here decides whom to ask and with whose login, how long to wait and how often to
//! try again, and believes nothing whose digest was not computed.

mod credentials;
mod error;
mod push;
mod transfer;

use std::{sync::Once, time::Duration};

use oci_client::{
    Client, Reference, RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    secrets::RegistryAuth,
};

pub use error::RegistryError;

use crate::{digest::Digest, environment::Environment};

/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing may come.
const READ_PATIENCE: Duration = Duration::from_secs(60);
/// The most that a document may take: what registries allow.
pub(crate) const LARGEST_DOCUMENT: u64 = 4 << 20;

/// A place in a registry: something with a name, with its tag or digest.
pub(crate) struct Registry {
    client: Client,
    reference: Reference,
    auth: RegistryAuth,
    read_patience: Duration,
}

impl Registry {
    /// Finds the login for the place, and how the registry is spoken to. Nothing else is asked of it yet.
    pub(crate) async fn connect(reference: &str, push: bool) -> Result<Registry, RegistryError> {
        // As images name it, and as everybody else does.
        let place = parse(reference.strip_prefix("oci:").unwrap_or(reference))?;
        if Environment::read()?.offline {
            let doing = format!("{} {place}", if push { "push" } else { "pull" });
            return Err(RegistryError::Offline { doing });
        }
        let auth = credentials::find(place.resolve_registry()).await?;
        Registry::open(place, auth, push, READ_PATIENCE).await
    }

    async fn open(
        reference: Reference,
        auth: RegistryAuth,
        push: bool,
        read_patience: Duration,
    ) -> Result<Registry, RegistryError> {
        static TLS: Once = Once::new();
        // Where the program has chosen another one before, that is used.
        TLS.call_once(|| _ = rustls::crypto::ring::default_provider().install_default());
        let host = reference.resolve_registry().to_owned();
        let client = |protocol| {
            let config = ClientConfig {
                protocol,
                use_monolithic_push: true,
                connect_timeout: Some(CONNECT_PATIENCE),
                read_timeout: Some(read_patience),
                user_agent: concat!("quicksand/", env!("CARGO_PKG_VERSION")),
                ..ClientConfig::default()
            };
            let failed = |error| failed(&format!("set up a client for {host}"), &host, error);
            Client::try_from(config).map_err(failed)
        };
        let operation = if push { RegistryOperation::Push } else { RegistryOperation::Pull };
        let mut chosen = client(ClientProtocol::Https)?;
        let doing = format!("log in to {host}");
        match chosen.auth(&reference, &auth, operation).await {
            // On this host nobody listens in, so that registries may do without certificates there.
            Err(OciDistributionError::RequestError(error)) if error.is_connect() && is_loopback(&host) => {
                chosen = client(ClientProtocol::HttpsExcept(vec![host.clone()]))?;
                chosen.auth(&reference, &auth, operation).await.map_err(|error| failed(&doing, &host, error))?;
            }
            other => _ = other.map_err(|error| failed(&doing, &host, error))?,
        }
        Ok(Registry { client: chosen, reference, auth, read_patience })
    }

    /// The manifest or index that the reference, or a digest of the same name, means. It is what its digest says.
    pub(crate) async fn manifest(
        &self,
        digest: Option<&Digest>,
        media_types: &[&str],
    ) -> Result<(Vec<u8>, Digest), RegistryError> {
        let reference = digest.map_or(self.reference.clone(), |it| self.reference.clone_with_digest(it.to_string()));
        let doing = format!("pull the manifest of {reference}");
        let asked = self.client.pull_manifest_raw(&reference, &self.auth, media_types);
        let (bytes, _) = asked.await.map_err(|error| self.failed(&doing, error))?;
        if bytes.len() as u64 > LARGEST_DOCUMENT {
            let expected = format!("at most {LARGEST_DOCUMENT} bytes");
            return Err(RegistryError::Wrong { doing, expected, found: bytes.len().to_string() });
        }
        let found = Digest::of(&bytes);
        match reference.digest() {
            Some(expected) if *expected != found.to_string() => {
                Err(RegistryError::Wrong { doing, expected: expected.to_owned(), found: found.to_string() })
            }
            _ => Ok((bytes.to_vec(), found)),
        }
    }

    /// The reference in full, with the registry's name.
    pub(crate) fn reference(&self) -> String {
        self.reference.whole()
    }

    /// What has that digest there.
    pub(crate) fn reference_of(&self, digest: &Digest) -> String {
        format!("{}/{}@{digest}", self.reference.registry(), self.reference.repository())
    }

    fn failed(&self, doing: &str, error: OciDistributionError) -> RegistryError {
        failed(doing, self.reference.resolve_registry(), error)
    }
}

/// Checks a reference, and gives it in full with the digest that it names.
pub(crate) fn parse_full(reference: &str) -> Result<(String, Option<Digest>), RegistryError> {
    let place = parse(reference)?;
    let digest = place.digest().map(|digest| {
        let wrong = |_| RegistryError::Reference { reference: reference.to_owned(), why: "it has no SHA-256".into() };
        digest.parse().map_err(wrong)
    });
    Ok((place.whole(), digest.transpose()?))
}

fn parse(reference: &str) -> Result<Reference, RegistryError> {
    let wrong = |why: oci_client::ParseError| RegistryError::Reference {
        reference: reference.to_owned(),
        why: why.to_string(),
    };
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

/// Tells a refusal and an absence from other trouble.
fn failed(doing: &str, registry: &str, error: OciDistributionError) -> RegistryError {
    let doing = doing.to_owned();
    let code = match &error {
        OciDistributionError::RegistryError { envelope, .. } => envelope.errors.first().map(|error| &error.code),
        _ => None,
    };
    match (&error, code) {
        (OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_), _)
        | (_, Some(OciErrorCode::Unauthorized | OciErrorCode::Denied)) => {
            RegistryError::Unauthorized { doing, registry: registry.to_owned() }
        }
        (
            OciDistributionError::ImageManifestNotFoundError(_) | OciDistributionError::ServerError { code: 404, .. },
            _,
        )
        | (_, Some(OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::BlobUnknown)) => {
            RegistryError::Absent { doing }
        }
        _ => RegistryError::Failed { doing, source: Box::new(error) },
    }
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
