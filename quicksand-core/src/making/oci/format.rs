//! The documents of an OCI image, as far as they are needed to make a root file system: an index leads to a manifest, a manifest to a
//! configuration and to layers, each by its digest.

use std::{collections::BTreeMap, env, fmt, io::Read};

use quicksand_fetch::{Digest, registry::LARGEST_DOCUMENT};
use serde::{Deserialize, Serialize, de};

use crate::image::{error::ImageError, metadata::Defaults};

/// More than any engine builds.
const MOST_LAYERS: usize = 1000;

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const INDEX_OF_DOCKER: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const MANIFEST_OF_DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const LAYERS: [&str; 5] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    // What buildkit calls a layer in its own cache.
    "application/vnd.docker.image.rootfs.diff",
];

/// What leads to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// The annotation of that name.
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    pub(crate) fn is_index(&self) -> bool {
        [INDEX, INDEX_OF_DOCKER].contains(&self.media_type.as_str())
    }
}

/// The kind of machine that an image is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// This host's architecture, as container engines name it.
pub(crate) fn architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// Manifests for several platforms, or those of a local layout.
#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

impl Index {
    /// The manifest for this host's architecture, or the only one that names no platform.
    pub(crate) fn for_this_host(&self, what: &str) -> Result<&Descriptor, ImageError> {
        let fits = |it: &Platform| it.os == "linux" && it.architecture == architecture();
        let plain = |it: &&Descriptor| it.platform.as_ref().is_some_and(|it| fits(it) && it.variant.is_none());
        let any = |it: &&Descriptor| it.platform.as_ref().is_some_and(fits);
        let found = self.manifests.iter().find(plain).or_else(|| self.manifests.iter().find(any));
        let unnamed: Vec<_> = self.manifests.iter().filter(|it| it.platform.is_none()).collect();
        match (found, &unnamed[..]) {
            (Some(found), _) => Ok(found),
            (None, [only]) => Ok(only),
            _ => {
                let platforms = self.manifests.iter().filter_map(|it| it.platform.as_ref()).map(ToString::to_string);
                let there = platforms.filter(|it| !it.starts_with("unknown/")).collect::<Vec<_>>().join(", ");
                Err(ImageError::Platform { what: what.to_owned(), wanted: format!("linux/{}", architecture()), there })
            }
        }
    }
}

/// An image's parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Checks that it is a container image's.
    pub(crate) fn check(&self, what: &str) -> Result<(), ImageError> {
        let refuse = |why: String| Err(ImageError::Document { what: what.to_owned(), why });
        if self.schema_version != 2 {
            return refuse(format!("its schema has version {}, and 2 is supported", self.schema_version));
        }
        if !CONFIGS.contains(&self.config.media_type.as_str()) {
            let kind = self.artifact_type.as_deref().unwrap_or(&self.config.media_type);
            return refuse(format!("it is no container image but an artifact of the type {kind:?}"));
        }
        if self.layers.len() > MOST_LAYERS {
            return refuse(format!("it has {} layers, more than {MOST_LAYERS}", self.layers.len()));
        }
        if let Some(layer) = self.layers.iter().find(|layer| !is_layer(&layer.media_type)) {
            return refuse(format!("it has a layer of the unknown type {:?}", layer.media_type));
        }
        Ok(())
    }
}

fn is_layer(media_type: &str) -> bool {
    // How it is compressed its first bytes tell.
    let plain = ["+gzip", "+zstd", ".gzip", ".zstd"].into_iter().find_map(|ending| media_type.strip_suffix(ending));
    LAYERS.contains(&plain.unwrap_or(media_type))
}

/// An image's configuration.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Config {
    pub(crate) os: Option<String>,
    pub(crate) architecture: Option<String>,
    #[serde(default)]
    config: Option<Execution>,
    pub(crate) rootfs: RootFs,
}

/// The digests of the layers' archives, not compressed.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RootFs {
    pub(crate) diff_ids: Vec<Digest>,
}

/// How programs of the image are run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Execution {
    env: Option<Vec<String>>,
    working_dir: Option<String>,
}

impl Config {
    /// Checks that it is for this host, and that it names as many layers as the manifest.
    pub(crate) fn check(&self, what: &str, layers: usize) -> Result<(), ImageError> {
        let there = (self.os.as_deref().unwrap_or("linux"), self.architecture.as_deref().unwrap_or(architecture()));
        if there != ("linux", architecture()) {
            let wanted = format!("linux/{}", architecture());
            return Err(ImageError::Platform {
                what: what.to_owned(),
                wanted,
                there: format!("{}/{}", there.0, there.1),
            });
        }
        if self.rootfs.diff_ids.len() != layers {
            let why = format!("its configuration has {} layers and its manifest {layers}", self.rootfs.diff_ids.len());
            return Err(ImageError::Document { what: what.to_owned(), why });
        }
        Ok(())
    }

    /// How programs are run in it. Who runs them is not taken over: what is tested here is a system, as its root sees it.
    pub(crate) fn defaults(&self) -> Defaults {
        let Execution { env, working_dir } = self.config.clone().unwrap_or_default();
        let split = |text: String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = env.unwrap_or_default().into_iter().filter_map(split);
        let environment = environment.filter(|(name, value)| !name.is_empty() && !value.contains('\0')).collect();
        let directory = working_dir.filter(|path| path.starts_with('/') && path != "/" && !path.contains('\0'));
        Defaults { environment, directory }
    }
}

/// Checks a document against the digest that led to it.
pub(crate) fn check_digest(what: &str, expected: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
    let found = Digest::of(bytes);
    if found == *expected {
        return Ok(());
    }
    Err(ImageError::Digest { what: what.to_owned(), expected: expected.to_string(), found: found.to_string() })
}

/// Reads a document of JSON.
pub(crate) fn parse<T: de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImageError::Document { what: what.to_owned(), why: error.to_string() })
}

/// Takes a document into memory.
pub(crate) fn read_document(what: &str, from: impl Read) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let read = from.take(LARGEST_DOCUMENT + 1).read_to_end(&mut bytes);
    read.map_err(|error| ImageError::Document { what: what.to_owned(), why: error.to_string() })?;
    if bytes.len() as u64 > LARGEST_DOCUMENT {
        let why = format!("it takes more than {LARGEST_DOCUMENT} bytes");
        return Err(ImageError::Document { what: what.to_owned(), why });
    }
    Ok(bytes)
}
