//! What there is in the cache directory, what of it is in use, and how each kind is removed.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Kept, Kind, Thing};
use crate::{
    base::{
        cache::{ASIDE, Cache, CacheError, UNFINISHED, blob_lock_name, download_lock_name, is_held, take},
        disk_usage::usage,
    },
    error::Result,
    image::{project_list, state::State},
    making as image,
    saves::kept::KeptMachine,
    vm::run_dir,
};

/// What has no lock may be in use for as long after it was last touched.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// Everything that is there.
pub(crate) fn all(cache: &Cache, now: SystemTime) -> Result<Vec<Thing>> {
    let mut things = Vec::new();
    let mut add = |kind, directory: &Path, look: &dyn Fn(&mut Thing)| -> Result<()> {
        for mut thing in below(kind, directory)? {
            match leftover(cache, &thing, now) {
                Some(kept) => (thing.kind, thing.kept) = (Kind::Leftover, kept),
                None => look(&mut thing),
            }
            things.push(thing);
        }
        Ok(())
    };
    let (projects, past) = project_list::seen(cache, now);
    let named = named(&projects);
    let held = |thing: &Thing| is_held(&thing.path).then_some(Kept::InUse);
    let new = |thing: &Thing| is_new(thing, now).then_some(Kept::New);
    let locked = |thing: &Thing| cache.try_lock(&lock_name(thing)).ok().flatten().is_none().then_some(Kept::InUse);
    add(Kind::WarmState, &cache.states(), &|thing| {
        thing.kept = held(thing);
        thing.about = State::read(&thing.path).ok().flatten().map(|state| state.image().name().to_owned());
    })?;
    add(Kind::Image, &cache.images(), &|thing| {
        let project =
            || named.iter().find(|(name, _)| *name == thing.name).map(|(_, root)| Kept::Project(root.clone()));
        thing.kept = held(thing).or_else(project);
    })?;
    add(Kind::Kernel, &cache.kernels(), &|thing| thing.kept = held(thing))?;
    add(Kind::Initramfs, &cache.initramfs(), &|thing| thing.kept = new(thing))?;
    add(Kind::Overlay, &cache.overlays(), &|thing| thing.kept = new(thing))?;
    add(Kind::FailedMachine, &cache.failed(), &|thing| {
        thing.kept = held(thing);
        thing.about = KeptMachine::read(thing.path.clone()).map(|machine| machine.test().to_owned());
    })?;
    add(Kind::Download, &cache.downloads(), &|thing| thing.kept = locked(thing).or_else(|| new(thing)))?;
    add(Kind::Blob, &cache.blobs(), &|thing| thing.kept = locked(thing))?;
    add(Kind::Tag, &cache.tags(), &|thing| thing.kept = new(thing))?;
    things.extend(run_dir::dead(&cache.run())?.into_iter().chain(past).filter_map(|path| thing(Kind::Leftover, path)));
    Ok(things)
}

/// Removes a thing unless it came into use. Says whether it has gone.
pub(crate) fn remove(cache: &Cache, thing: &Thing) -> Result<bool> {
    match thing.kind {
        Kind::WarmState | Kind::Image | Kind::Kernel | Kind::FailedMachine => return Ok(take(&thing.path)?),
        Kind::Download | Kind::Blob => {
            let Some(_lock) = cache.try_lock(&lock_name(thing))? else { return Ok(false) };
            remove_path(&thing.path)?;
        }
        Kind::Leftover => {
            // Who makes it anew holds this.
            let Some(_lock) =
                lock_of_maker(thing).map_or(Ok(Some(None)), |name| cache.try_lock(&name).map(|lock| lock.map(Some)))?
            else {
                return Ok(false);
            };
            remove_path(&thing.path)?;
        }
        Kind::Initramfs | Kind::Overlay | Kind::Tag => remove_path(&thing.path)?,
    }
    Ok(true)
}

/// Removes lock files that nobody holds: whoever comes makes another one.
pub(crate) fn remove_locks(cache: &Cache) {
    for entry in fs::read_dir(cache.locks()).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Removed while it is held: who opened it before finds that it has lost its name, and asks again.
        if let Ok(Some(_lock)) = cache.try_lock(&name) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn remove_path(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(CacheError::io("remove", path)(e).into()),
        _ => Ok(()),
    }
}

/// The images that projects name, and which project that is.
fn named(projects: &[crate::image::project::Project]) -> Vec<(String, PathBuf)> {
    let mut named = Vec::new();
    for project in projects {
        match project.all_locked() {
            Ok(locked) => {
                let names = locked.iter().filter_map(|(name, locked)| image::name_in_cache(name, locked));
                named.extend(names.map(|name| (name, project.root().to_owned())));
            }
            Err(error) => {
                let project = project.root().display();
                tracing::warn!(%project, %error, "what a project's lock names is not known, and not spared");
            }
        }
    }
    named
}

/// What is in a directory, with nothing known of it but its size and age.
fn below(kind: Kind, directory: &Path) -> Result<Vec<Thing>> {
    let entries = fs::read_dir(directory).map_err(CacheError::io("read", directory))?;
    Ok(entries.flatten().filter_map(|entry| thing(kind, entry.path())).collect())
}

/// `None` where it has just gone.
fn thing(kind: Kind, path: PathBuf) -> Option<Thing> {
    let used = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified()).ok()?;
    let name = path.file_name().unwrap_or(OsStr::new("")).to_string_lossy().into_owned();
    let files = usage(&path);
    Some(Thing { kind, name, about: None, used, kept: None, path, files })
}

/// Whether it is half made or half removed; and if so, whether somebody is at it.
fn leftover(cache: &Cache, thing: &Thing, now: SystemTime) -> Option<Option<Kept>> {
    if thing.name.starts_with(ASIDE) {
        return Some(is_held(&thing.path).then_some(Kept::InUse));
    }
    if !thing.name.starts_with(UNFINISHED) {
        return None;
    }
    let making = match lock_of_maker(thing) {
        Some(name) => cache.try_lock(&name).ok().flatten().is_none(),
        None => is_new(thing, now),
    };
    Some(making.then_some(Kept::InUse))
}

/// What somebody holds who makes the thing that has an unfinished thing's name. Files have no such lock, and take no time.
fn lock_of_maker(thing: &Thing) -> Option<String> {
    let name = thing.name.strip_prefix(UNFINISHED)?;
    let what = match thing.path.parent()?.file_name()?.to_str()? {
        "states" => "state",
        "images" => "image",
        "kernels" => "kernel",
        "failed" => "failed",
        _ => return None,
    };
    Some(format!("{what}-{name}"))
}

/// What somebody holds who fetches a file.
fn lock_name(thing: &Thing) -> String {
    let key = thing.name.split('.').next().unwrap_or_default();
    if thing.kind == Kind::Blob { blob_lock_name(key) } else { download_lock_name(key) }
}

fn is_new(thing: &Thing, now: SystemTime) -> bool {
    now.duration_since(thing.used).unwrap_or_default() < GRACE
}
