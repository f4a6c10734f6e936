//! Images from a registry.
//!
//! What a tag means is asked once and written down, in the project's lock and in the cache, so that it means the same tomorrow. Layers are kept below `blobs` in the cache until
//! the image is made of them: one that was broken off goes on where it stopped.

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use quicksand_fetch::{
    Digest, RegistryError,
    registry::{Access, Registry, parse_full},
};

use super::{
    Found,
    format::{Descriptor, INDEX, INDEX_OF_DOCKER, Index, MANIFEST, MANIFEST_OF_DOCKER, Manifest, parse},
    image_name,
};
use crate::{
    base::{
        cache::{Cache, Lock, blob_lock_name, touch},
        digest::short_key,
        fetching,
        progress::Reporter,
    },
    image::{
        Image,
        error::ImageError,
        project::{Locked, Project},
    },
    making::{
        PATIENCE, Update,
        layers::{self, Blob},
        rootfs::Section,
    },
};

/// How many layers are pulled at once.
const AT_ONCE: usize = 3;

/// The image that a reference means, pulled where the cache does not have it.
pub(crate) async fn ensure(cache: &Cache, reference: &str, reporter: &Reporter) -> Result<Image, ImageError> {
    let (full, pinned) = parse_full(reference)?;
    let project = Project::find().filter(|_| pinned.is_none());
    let locked = match &project {
        Some(project) => project.locked(&lock_name(&full))?,
        None => None,
    };
    let by_lock = locked.as_ref().and_then(|locked| locked.digest.as_deref()).map(str::parse);
    let by_lock = by_lock.transpose().map_err(|_| ImageError::Reference {
        reference: lock_name(&full),
        why: "quicksand.lock has no SHA-256 for it".into(),
    })?;
    let known = pinned.or(by_lock).or_else(|| remembered(cache, &full));
    let image = by_digest(cache, reference, &full, known, reporter).await?;
    if let (Some(project), None, Some(digest)) = (project, locked, remembered(cache, &full)) {
        let locked = Locked::today(&full, Some(digest.to_string()));
        if let Err(error) = project.set_locked(cache, &lock_name(&full), locked).await {
            tracing::warn!(target: "quicksand::image", full, %error, "quicksand.lock is not written");
        }
    }
    Ok(image)
}

/// Asks anew what a reference means, and has the project's lock say so.
pub(crate) async fn update(
    cache: &Cache,
    project: &Project,
    reference: &str,
    reporter: &Reporter,
) -> Result<Update, ImageError> {
    let (full, pinned) = parse_full(reference)?;
    let name = lock_name(&full);
    if pinned.is_some() {
        let why = "it names a digest, which means the same for ever".into();
        return Err(ImageError::Reference { reference: name, why });
    }
    let before = project.locked(&name)?;
    let _ = fs::remove_file(memory(cache, &full));
    by_digest(cache, reference, &full, None, reporter).await?;
    let digest =
        remembered(cache, &full).ok_or(ImageError::Incomplete { what: "what the tag means, just written down," })?;
    let after = Locked::today(&full, Some(digest.to_string()));
    project.set_locked(cache, &name, after.clone()).await?;
    Ok(Update { name, before, after })
}

/// The image of a digest, or of what the reference means now.
async fn by_digest(
    cache: &Cache,
    reference: &str,
    full: &str,
    known: Option<Digest>,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    if let Some(digest) = &known
        && let Some(image) = Image::find(cache, &image_name(digest))?
    {
        return Ok(image);
    }
    let registry = fetching::registry::<ImageError>(reference, Access::Pull).await?;
    reporter.report("find image", 0, 1);
    let media_types = [INDEX, INDEX_OF_DOCKER, MANIFEST, MANIFEST_OF_DOCKER];
    let (first, id) = registry.manifest(known.as_ref(), &media_types).await?;
    let what = format!("the image {}", registry.reference());
    let manifest = match parse::<Either>(&what, &first)? {
        Either::Index(index) => {
            let own = index.for_this_host(&what)?;
            registry.manifest(Some(&own.digest), &media_types).await?.0
        }
        Either::Manifest(_) => first,
    };
    let manifest: Manifest = parse(&what, &manifest)?;
    manifest.check(&what)?;
    let config = registry.document(&manifest.config.digest, manifest.config.size).await?;
    reporter.report("find image", 1, 1);
    remember(cache, full, &id);

    let blobs = Blobs::lock(cache, &manifest.layers).await?;
    let name = image_name(&id);
    if let Some(image) = Image::find(cache, &name)? {
        return Ok(image);
    }
    let layers = blobs.pull(&registry, &manifest.layers, reporter).await?;
    let found = Found::new(what, id, &config, layers)?;
    let made = layers::ensure(cache, &name, found.root_fs, reporter).await;
    // Where they are not what they should be, too: another attempt is to find nothing of them.
    blobs.remove();
    made
}

/// What a reference may lead to.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
enum Either {
    Index(Index),
    Manifest(serde::de::IgnoredAny),
}

/// The files of an image's layers, which nobody else writes meanwhile.
struct Blobs {
    directory: PathBuf,
    digests: Vec<Digest>,
    _locks: Vec<Lock>,
}

impl Blobs {
    async fn lock(cache: &Cache, layers: &[Descriptor]) -> Result<Blobs, ImageError> {
        let directory = cache.blobs();
        let mut digests: Vec<Digest> = layers.iter().map(|layer| layer.digest.clone()).collect();
        // In one order, so that two that want the same ones never wait for each other.
        digests.sort();
        digests.dedup();
        let mut locks = Vec::new();
        for digest in &digests {
            locks.push(cache.lock(&blob_lock_name(digest.hex()), PATIENCE).await?);
        }
        Ok(Blobs { directory, digests, _locks: locks })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    async fn pull(
        &self,
        registry: &Registry,
        layers: &[Descriptor],
        reporter: &Reporter,
    ) -> Result<Vec<Blob>, ImageError> {
        let total = layers.iter().map(|layer| layer.size).sum();
        let done = Arc::new(AtomicU64::new(0));
        reporter.report("pull layers", 0, total);
        // An image may have a layer twice.
        let mut different: Vec<&Descriptor> = layers.iter().collect();
        different.sort_by(|one, other| one.digest.cmp(&other.digest));
        different.dedup_by(|one, other| one.digest == other.digest);
        let mut pulls = Vec::new();
        for layer in different {
            let (path, done) = (self.path(&layer.digest), Arc::clone(&done));
            pulls.push(pull_one(registry, layer, path, done, total, reporter).boxed());
        }
        stream::iter(pulls).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        reporter.report("pull layers", total, total);
        let blob = |(number, layer): (usize, &Descriptor)| {
            let path = self.path(&layer.digest);
            let content = File::open(&path).and_then(Section::whole).map_err(ImageError::io("read", &path))?;
            let name = format!("layer {}", number + 1);
            Ok(Blob { name, content, digest: Some(layer.digest.clone()), archive_digest: None })
        };
        layers.iter().enumerate().map(blob).collect()
    }

    fn remove(self) {
        for digest in &self.digests {
            let _ = fs::remove_file(self.path(digest));
        }
    }
}

async fn pull_one(
    registry: &Registry,
    layer: &Descriptor,
    path: PathBuf,
    done: Arc<AtomicU64>,
    total: u64,
    reporter: &Reporter,
) -> Result<(), RegistryError> {
    let mut before = 0;
    let mut arrived = |now: u64| {
        // What is broken off may start anew.
        let change = now.wrapping_sub(before);
        before = now;
        let all = done.fetch_add(change, Ordering::Relaxed).wrapping_add(change);
        reporter.report("pull layers", all.min(total), total);
    };
    registry.pull_to_file(&layer.digest, layer.size, &path, &mut arrived).await
}

/// What a lock calls a reference.
fn lock_name(full: &str) -> String {
    format!("oci:{full}")
}

/// Where it is written down what a reference means.
fn memory(cache: &Cache, reference: &str) -> PathBuf {
    cache.tags().join(short_key(reference))
}

fn remembered(cache: &Cache, reference: &str) -> Option<Digest> {
    let path = memory(cache, reference);
    let digest = fs::read_to_string(&path).ok()?.lines().next()?.parse().ok()?;
    // What nobody asks for goes with a `prune`.
    let _ = touch(&path);
    Some(digest)
}

fn remember(cache: &Cache, reference: &str, digest: &Digest) {
    let path = memory(cache, reference);
    let text = format!("{digest}\n{reference}\n");
    let written = cache.publish(&path, text.as_bytes());
    if let Err(error) = written {
        tracing::warn!(target: "quicksand::image", %error, reference, "what a tag means is not written down");
    }
}
