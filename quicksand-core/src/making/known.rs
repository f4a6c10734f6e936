//! Images by name: those of the [catalogue](super::catalogue), as the project's `quicksand.lock` says, and those that were imported.
//!
//! The first use of a name finds out which image that is, and the lock holds on to it. What is in the cache already is taken before
//! anything is fetched, by any project of the user.

use std::path::Path;

use quicksand_fetch::FileDigest;

use super::{
    Parts,
    catalogue::{self, Entry},
    debian, making, making_anew, oci, recipe,
};
use super::{
    catalogue::fetch::{Found, Publishers},
    import::{self, DiskFile},
};
use crate::{
    base::{cache::Cache, environment::Environment, progress::Reporter},
    image::{
        Image,
        error::ImageError,
        project::{Locked, Project},
    },
};

/// What a lock says of an image that is built on this host, before the suite of its packages.
const PACKAGES: &str = "packages of ";
/// How many digits of a digest tell images of one name apart in the cache.
const SHORT: usize = 16;

/// How a name was moved on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Update {
    /// The name.
    pub name: String,
    /// What it stood for, where it stood for anything.
    pub before: Option<Locked>,
    /// What it stands for now.
    pub after: Locked,
}

/// The image of a name.
pub(crate) async fn ensure(cache: &Cache, name: &str, reporter: &Reporter) -> Result<Image, ImageError> {
    let Some(entry) = catalogue::find(name) else {
        let known = || recipe::names().into_iter().chain(catalogue::names()).collect();
        let unknown = || ImageError::Unknown { name: name.to_owned(), known: known() };
        return Image::find(cache, name)?.ok_or_else(unknown);
    };
    let project = Project::find();
    let locked = match &project {
        Some(project) => project.locked(&entry.name)?,
        None => None,
    };
    if let Some(locked) = locked {
        return by_lock(cache, &entry, &locked, project.as_ref(), reporter).await.map_err(|error| match error {
            // What keeps this host from a build is not the lock's fault, and no other lock would mend it.
            error if locked.source.starts_with(PACKAGES) && !matches!(error, ImageError::LockedNonsense { .. }) => {
                error
            }
            error => {
                let (name, from) = (entry.name.clone(), locked.source.clone());
                ImageError::Locked { name, from, source: Box::new(error) }
            }
        });
    }
    let (image, locked) = match cached(cache, &entry)? {
        Some(found) => found,
        None => newest(cache, &entry, project.as_ref(), reporter, Build::Once).await?,
    };
    if let Some(project) = project
        && let Err(error) = project.set_locked(cache, &entry.name, locked).await
    {
        // As in a read-only checkout. The same image is found next time, as long as the cache has it.
        tracing::warn!(target: "quicksand::image", name = entry.name, %error, "quicksand.lock is not written");
    }
    Ok(image)
}

/// Finds out anew which images names stand for, and has the project's lock say so; all names in the lock where none is given. The
/// images are in the cache then.
///
/// # Errors
///
/// [`ImageError::NoProject`] outside of a project; [`ImageError::UpdateOffline`]; [`ImageError::Unknown`]; whatever keeps an image
/// from being got. Names before that one have been moved on.
pub async fn update(cache: &Cache, names: &[String], reporter: &Reporter) -> Result<Vec<Update>, ImageError> {
    let project = Project::find().ok_or(ImageError::NoProject)?;
    let all = project.all_locked()?;
    if Environment::read()?.offline {
        return Err(ImageError::UpdateOffline);
    }
    let names = if names.is_empty() { all.keys().cloned().collect() } else { names.to_vec() };
    let mut updates = Vec::new();
    for name in names {
        if let Some(reference) = oci::Reference::parse(&name) {
            updates.push(oci::update(cache, &project, reference?, reporter).await?);
            continue;
        }
        let unknown = || ImageError::Unknown { name: name.clone(), known: catalogue::names() };
        let entry = catalogue::find(&name).ok_or_else(unknown)?;
        let (_, after) = newest(cache, &entry, Some(&project), reporter, Build::Anew).await?;
        project.set_locked(cache, &entry.name, after.clone()).await?;
        updates.push(Update { before: all.get(&entry.name).cloned(), name: entry.name, after });
    }
    Ok(updates)
}

/// Whether a build that is there is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Build {
    Once,
    Anew,
}

/// The image that a lock names, and no other.
async fn by_lock(
    cache: &Cache,
    entry: &Entry,
    locked: &Locked,
    project: Option<&Project>,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    if let Some(suite) = locked.source.strip_prefix(PACKAGES) {
        return match entry.suite {
            Some(own) if own == suite => build(cache, entry, own, reporter, Build::Once).await,
            _ => Err(ImageError::LockedNonsense { what: locked.source.clone() }),
        };
    }
    from_publisher(cache, entry, locked, project, reporter).await
}

async fn from_publisher(
    cache: &Cache,
    entry: &Entry,
    locked: &Locked,
    project: Option<&Project>,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    let nonsense = || ImageError::LockedNonsense { what: locked.digest.clone().unwrap_or_default() };
    let digest: FileDigest = locked.digest.as_deref().unwrap_or_default().parse().map_err(|_| nonsense())?;
    let found = Found { url: locked.source.clone(), digest };
    let trust = locked.trust.clone();
    if let Some(image) = Image::find(cache, &cache_name(entry, &found.digest))? {
        return Ok(image);
    }
    let publishers = Publishers::new(&Environment::read()?, project)?;
    fetch(cache, entry, &publishers, (&found, trust), reporter).await
}

/// The image that the cache has for a name, the last that was got.
fn cached(cache: &Cache, entry: &Entry) -> Result<Option<(Image, Locked)>, ImageError> {
    if let Some(suite) = entry.suite
        && let Some(image) = Image::find(cache, &entry.name)?
    {
        return Ok(Some((image, Locked::today(format!("{PACKAGES}{suite}"), None))));
    }
    let prefix = format!("{}-", entry.name);
    let images = super::collection::all(cache)?.into_iter().filter(|image| image.name().starts_with(&prefix));
    let last = images.filter(|image| image.origin().is_some()).max_by_key(|image| image.origin().map(|it| it.time));
    Ok(last.and_then(|image| {
        let origin = image.origin()?.clone();
        Some((image, Locked::today(origin.source, Some(origin.digest?)).trusted(origin.trust)))
    }))
}

/// The newest image that a name can stand for, from the first of its sources that has it.
async fn newest(
    cache: &Cache,
    entry: &Entry,
    project: Option<&Project>,
    reporter: &Reporter,
    build_when: Build,
) -> Result<(Image, Locked), ImageError> {
    let environment = Environment::read()?;
    if environment.offline {
        return Err(ImageError::Offline { name: entry.name.clone() });
    }
    let mut failure = None;
    if let Some(suite) = entry.suite {
        match build(cache, entry, suite, reporter, build_when).await {
            Ok(image) => return Ok((image, Locked::today(format!("{PACKAGES}{suite}"), None))),
            // Its publisher has it, too.
            Err(error @ (ImageError::MissingTool { .. } | ImageError::NoNamespaces { .. })) => {
                tracing::info!(target: "quicksand::image", name = entry.name, %error, "not built from packages");
                failure = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match from_publisher_now(cache, entry, &environment, project, reporter).await {
        Ok(got) => Ok(got),
        Err(error) => Err(match failure {
            Some(first) => ImageError::NoSource { first: Box::new(first), source: Box::new(error) },
            None => error,
        }),
    }
}

async fn from_publisher_now(
    cache: &Cache,
    entry: &Entry,
    environment: &Environment,
    project: Option<&Project>,
    reporter: &Reporter,
) -> Result<(Image, Locked), ImageError> {
    let publishers = Publishers::new(environment, project)?;
    reporter.report("ask publisher", 0, 1);
    let (found, trust) = publishers.find(&entry.cloud).await?;
    let trust = Some(trust.to_string());
    reporter.report("ask publisher", 1, 1);
    let image = fetch(cache, entry, &publishers, (&found, trust.clone()), reporter).await?;
    Ok((image, Locked::today(found.url, Some(found.digest.to_string())).trusted(trust)))
}

/// Downloads an image and imports it. What was downloaded goes then: the image holds all of it.
async fn fetch(
    cache: &Cache,
    entry: &Entry,
    publishers: &Publishers,
    (found, trust): (&Found, Option<String>),
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    let name = cache_name(entry, &found.digest);
    if let Some(image) = Image::find(cache, &name)? {
        return Ok(image);
    }
    let path = publishers.fetch(cache, found, reporter).await?;
    let file = DiskFile { disk: path.clone(), kernel: None, initrd: None };
    let origin =
        crate::image::metadata::Origin { trust, ..import::origin(found.url.clone(), Some(found.digest.to_string())) };
    let image = import::ensure(cache, &name, &file, origin, reporter).await?;
    let _ = std::fs::remove_file(path);
    Ok(image)
}

/// The name of a publisher's image in the cache: there may be several of the same name.
fn cache_name(entry: &Entry, digest: &FileDigest) -> String {
    short_name(&entry.name, digest.digits())
}

fn short_name(name: &str, digits: &str) -> String {
    format!("{name}-{}", digits.get(..SHORT).unwrap_or(digits))
}

/// The name in the cache of the image that a lock says a name of the catalogue stands for.
pub(crate) fn name_in_cache(name: &str, locked: &Locked) -> Option<String> {
    if locked.source.starts_with(PACKAGES) {
        return Some(name.to_owned());
    }
    locked.digest.as_deref()?.split_once(':').map(|(_, digits)| short_name(name, digits))
}

/// Builds an image from packages on this host.
async fn build(
    cache: &Cache,
    entry: &Entry,
    suite: &'static str,
    reporter: &Reporter,
    when: Build,
) -> Result<Image, ImageError> {
    let make = async |directory: std::path::PathBuf| -> Result<Parts, ImageError> {
        debian::make(Path::new(&directory), suite, reporter).await
    };
    match when {
        Build::Once => match Image::find(cache, &entry.name)? {
            Some(image) => Ok(image),
            None if Environment::read()?.offline => Err(ImageError::Offline { name: entry.name.clone() }),
            None => making(cache, &entry.name, make, reporter).await,
        },
        Build::Anew => making_anew(cache, &entry.name, make, reporter).await,
    }
}
