//! Container images: from a registry, a layout in a directory, or an archive of `docker save`.
//!
//! Whatever the place, an image is a configuration and layers, each known by a digest. What is found is [imported](super::import)
//! like any other root file system.

mod docker;
pub(crate) mod format;
mod layout;
mod pull;
mod reference;

pub(crate) use format::{Descriptor, Manifest};
pub(crate) use reference::Reference;

use quicksand_fetch::Digest;

use super::{
    Update,
    import::origin,
    layers::{self, Blob, RootFs},
};
use crate::{
    base::{blocking::blocking, cache::Cache, progress::Reporter},
    image::{
        Image,
        error::ImageError,
        project::{Locked, Project},
    },
};
use format::{Config, parse};

/// An image whose documents are there and checked, and whose layers are there.
#[derive(Debug)]
struct Found {
    /// What tells it from others: the digest of its index, its manifest or, where it has neither, its configuration.
    id: Digest,
    root_fs: RootFs,
}

impl Found {
    fn new(what: String, id: Digest, config: &[u8], mut layers: Vec<Blob>) -> Result<Found, ImageError> {
        let config: Config = parse(&what, config)?;
        config.check(&what, layers.len())?;
        for (layer, digest) in layers.iter_mut().zip(&config.rootfs.diff_ids) {
            layer.archive_digest = Some(digest.clone());
        }
        let origin = origin(what.clone(), Some(id.to_string()));
        Ok(Found { id, root_fs: RootFs { name: what, layers, whiteouts: true, defaults: config.defaults(), origin } })
    }
}

/// The image that a reference means, made if it is not in the cache.
pub(crate) async fn ensure(cache: &Cache, reference: Reference, reporter: &Reporter) -> Result<Image, ImageError> {
    let found = match reference {
        Reference::Registry(name) => return pull::ensure(cache, &name, reporter).await,
        Reference::Layout(path, wanted) => blocking(move || layout::find(&path, wanted.as_deref())).await?,
        Reference::Docker(path, wanted) => blocking(move || docker::find(&path, wanted.as_deref())).await?,
    };
    let name = image_name(&found.id);
    match Image::find(cache, &name)? {
        Some(image) => Ok(image),
        None => layers::ensure(cache, &name, found.root_fs, reporter).await,
    }
}

/// Asks anew what a reference in a lock means.
pub(crate) async fn update(
    cache: &Cache,
    project: &Project,
    reference: Reference,
    reporter: &Reporter,
) -> Result<Update, ImageError> {
    match reference {
        Reference::Registry(name) => pull::update(cache, project, &name, reporter).await,
        Reference::Layout(path, _) | Reference::Docker(path, _) => {
            let why = "no lock holds it: it is what the file is".to_owned();
            Err(ImageError::Reference { reference: path.display().to_string(), why })
        }
    }
}

/// The name in the cache of the image that a lock names.
pub(crate) fn name_in_cache(locked: &Locked) -> Option<String> {
    locked.digest.as_deref()?.parse().ok().map(|digest| image_name(&digest))
}

/// The name in the cache of the image of that digest.
fn image_name(id: &Digest) -> String {
    format!("oci{}-{}", layers::MAKING, id.hex())
}
