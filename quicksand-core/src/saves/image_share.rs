//! Images in a registry, with their warm states.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    archive::{Entry, MANIFEST},
    artifact::{
        Artifact, Pulled, Pushed, Wanted, WithMemory, fit,
        format::{Kind, Maker, in_state},
        push as push_files,
    },
    import::{As, check_disks, check_image, check_space, refuse},
};
use crate::{
    base::{
        blocking::blocking,
        cache::{Cache, Lock, Unfinished},
        progress::Reporter,
        size::Size,
    },
    error::{Error, Result},
    host::Host,
    image::{
        Image, check_name,
        error::ImageError,
        state::{Across, Manifest, State, link_tree},
    },
    launch::{
        kernel::Kernel,
        source::{Source, warm_key},
    },
    making::PATIENCE,
    qemu::qcow2,
};

/// Pushes an image to a registry, `registry/name:tag`, and unless `memory` leaves them out the warm states that the cache has of it and
/// that fit this host: whoever pulls it, starts warm at once. What the registry has already in that repository is not sent again.
///
/// `reporter` hears of the stages `digest` and `push`, in bytes.
///
/// # Errors
///
/// [`ImageError::Missing`] where the cache has no such image; [`Error::Registry`] where the registry can't be reached or refuses.
/// There is nothing of that tag then, or what there was before.
pub async fn push(
    cache: &Cache,
    name: &str,
    reference: &str,
    memory: WithMemory,
    reporter: &Reporter,
) -> Result<Pushed> {
    let host = Host { cache: cache.clone(), ..Host::discover()? };
    let image = Image::find(cache, name)?.ok_or_else(|| ImageError::Missing { name: name.to_owned() })?;
    let states = if memory == WithMemory::Never { Vec::new() } else { warm_states(&host, &image)? };
    let mut files: Vec<(String, PathBuf)> = image.named_files().collect();
    for state in &states {
        let directory = state.directory().file_name().unwrap_or_default().to_string_lossy();
        let mut own = vec![(MANIFEST.to_owned(), state.manifest_file())];
        own.extend(state.named_layers());
        own.extend(state.named_memory());
        files.extend(own.into_iter().map(|(name, path)| (format!("states/{directory}/{name}"), path)));
    }
    let pushed = push_files(reference, Kind::Image, name, Maker::here(&host), files, reporter).await?;
    let left_out = match memory {
        WithMemory::Never => Some("it was not asked for".to_owned()),
        WithMemory::IfItFits if states.is_empty() => {
            Some("the cache has no warm state of it that fits this host".into())
        }
        WithMemory::IfItFits => None,
    };
    Ok(Pushed { warm: states.len(), left_out, ..pushed })
}

/// Pulls an image that was [pushed](push) into the cache, under a name of its own or that which it had, in place of another one of that
/// name; and unless `memory` leaves them out its warm states that fit this host. It is then the same image, so that saves made from it
/// elsewhere are up to date here as well.
///
/// Digests are verified before anything is used. Who may push to that repository decides what QEMU reads and what boots: pull warm
/// states from those whom you trust. With [`WithMemory::Never`] nobody is: what comes is another image, named by what it holds.
///
/// `reporter` hears of the stages `pull` and `digest`, in bytes.
///
/// # Errors
///
/// [`ImageError::BadName`]; [`Error::NoSpace`]; [`Error::Registry`] and [`Error::Archive`] where the registry fails, or sends what is cut
/// short, damaged or hostile. The cache is then as it was.
pub async fn pull(
    cache: &Cache,
    reference: &str,
    name: Option<&str>,
    memory: WithMemory,
    reporter: &Reporter,
) -> Result<Pulled<Image>> {
    name.map_or(Ok(()), check_name)?;
    let host = Host { cache: cache.clone(), ..Host::discover()? };
    let artifact = Artifact::find(reference, Kind::Image).await?;
    let name = name.unwrap_or(&artifact.contents.name).to_owned();
    check_name(&name)?;
    let (states, left_out) = fitting(&host, &artifact, memory).await?;

    let lock = cache.lock(&format!("image-{name}"), PATIENCE).await?;
    let directory = cache.images().join(&name);
    let new = Incoming::beside(lock, &directory)?;
    let mut incoming = Vec::new();
    for key in states.keys() {
        let lock = cache.lock(&format!("state-{key}"), PATIENCE).await?;
        let directory = cache.states().join(key);
        // One that is there is as good.
        if !directory.exists() {
            incoming.push((key.clone(), Incoming::beside(lock, &directory)?));
        }
    }
    let mut wanted = Vec::new();
    for file in &artifact.contents.files {
        let path = &file.entry.path;
        let target = match (in_state(path), path.strip_prefix("image/")) {
            (Some((key, within)), _) => {
                let Some((_, state)) = incoming.iter().find(|(own, _)| own == key) else { continue };
                state.path().join(within)
            }
            (None, Some(within)) => new.path().join(within),
            (None, None) => continue,
        };
        let parent = target.parent().unwrap_or(&target);
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        wanted.push(Wanted { file, likely: likely_files(cache, path), target });
    }
    check_space(&directory, Artifact::data_size(wanted.iter().map(|wanted| wanted.file)))?;
    let fetched = artifact.fetch(&wanted, reporter).await?;

    let (warm, place) = (states.len(), PathBuf::from(&artifact.reference));
    let entries: Vec<Entry> = artifact.contents.files.iter().map(|file| file.entry.clone()).collect();
    let own = name.clone();
    // A stranger's is not to pass for one that is known here.
    let who = match memory {
        WithMemory::Never => As::Stranger,
        WithMemory::IfItFits => As::Itself { memory: true },
    };
    blocking(move || {
        check_image(&place, new.path(), &entries, who)?;
        let image = Image::at(new.path(), &own)?;
        let image = image.ok_or_else(|| refuse(&place, Image::FILE, "it is of another quicksand".to_owned()))?;
        let header = qcow2::check(&image.disk()).map_err(ImageError::from)?;
        if header.disk_size != image.disk_size() {
            let why = format!("its disk has {} bytes, not {}", header.disk_size, image.disk_size());
            return Err(refuse(&place, &format!("image/{}", Image::FILE), why).into());
        }
        for (key, state) in &incoming {
            check_state(&host, &place, key, state.path(), &image, &entries)?;
        }
        new.finish()?;
        incoming.into_iter().try_for_each(|(_, state)| state.finish())
    })
    .await?;
    let image = Image::find(cache, &name)?.ok_or(ImageError::Incomplete { what: "the image's files, just pulled," })?;
    Ok(Pulled { item: image, reference: artifact.reference, fetched: Size::from_bytes(fetched), warm, left_out })
}

/// The warm states of an artifact that are to come along, by their keys; and why others are not.
async fn fitting(
    host: &Host,
    artifact: &Artifact,
    memory: WithMemory,
) -> Result<(BTreeMap<String, Manifest>, Vec<String>)> {
    let (mut states, mut left_out) = (BTreeMap::new(), Vec::new());
    let paths = artifact.contents.files.iter().map(|file| file.entry.path.as_str());
    for (key, path) in
        paths.filter_map(|path| Some((in_state(path).filter(|(_, within)| *within == MANIFEST)?.0, path)))
    {
        if memory == WithMemory::Never {
            left_out.push("it was not asked for".to_owned());
            continue;
        }
        let text = artifact.small_file(path).await?;
        let manifest = Manifest::parse(Path::new(&artifact.reference), &text)?;
        match fit::fault(host, &manifest, Some(&artifact.contents.maker)) {
            Some(fault) => left_out.push(fault),
            None => _ = states.insert(key.to_owned(), manifest),
        }
    }
    Ok((states, left_out))
}

/// Sees to it that what came is a warm state of the image, and the one that its key says.
fn check_state(host: &Host, place: &Path, key: &str, directory: &Path, image: &Image, entries: &[Entry]) -> Result<()> {
    let refused = |why: &str| refuse(place, &format!("states/{key}/{MANIFEST}"), why.to_owned());
    link_tree(image.directory(), &directory.join("image"), Across::Copy)?;
    let state = State::read(directory)?.ok_or_else(|| refused("it is missing"))?;
    let layers = entries
        .iter()
        .filter_map(|entry| in_state(&entry.path))
        .filter(|(of, within)| *of == key && within.starts_with("layers/"));
    let expected = warm_key(host, &Source::Image(image.clone()), &state.manifest.machine, Kernel::default());
    if expected != key {
        return Err(refused("it is the warm state of another image or another machine").into());
    }
    if layers.count() != state.manifest.layers {
        return Err(refused("it has not the layers that it names").into());
    }
    if let Some(fault) = state.memory_fault() {
        return Err(refused(&fault).into());
    }
    check_disks(place, &state)
}

/// The warm states that the cache has of an image, of those that fit this host.
fn warm_states(host: &Host, image: &Image) -> Result<Vec<State>> {
    let mut found = Vec::new();
    let all = host.cache.states();
    for entry in fs::read_dir(&all).map_err(Error::io("read", &all))?.flatten() {
        // One that is damaged or unfinished is made again when it is needed.
        let Ok(Some(state)) = State::read(&entry.path()) else { continue };
        let key = warm_key(host, &Source::Image(image.clone()), &state.manifest.machine, Kernel::default());
        let is_own = entry.file_name().to_string_lossy() == key && state.image().identity() == image.identity();
        if is_own && state.memory_fault().is_none() && fit::fault(host, &state.manifest, None).is_none() {
            found.push(state);
        }
    }
    found.sort_by(|one, other| one.directory().cmp(other.directory()));
    Ok(found)
}

/// Files of images in the cache that may be the same as that one of an image elsewhere: `image/kernel`.
pub(crate) fn likely_files(cache: &Cache, path: &str) -> Vec<PathBuf> {
    let Some(within) = path.strip_prefix("image/") else { return Vec::new() };
    let images = fs::read_dir(cache.images()).into_iter().flatten().flatten();
    images.map(|image| image.path().join(within)).collect()
}

/// A directory that is being made, which nobody else makes meanwhile.
struct Incoming {
    unfinished: Unfinished,
    _lock: Lock,
}

impl Incoming {
    fn beside(lock: Lock, target: &Path) -> Result<Incoming> {
        Ok(Incoming { unfinished: Unfinished::beside(target)?, _lock: lock })
    }

    fn path(&self) -> &Path {
        self.unfinished.path()
    }

    fn finish(self) -> Result<()> {
        Ok(self.unfinished.finish()?)
    }
}
