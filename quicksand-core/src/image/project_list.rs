//! The user's projects, as far as they were seen: a file each below `projects` in the cache. What their `quicksand.lock` names is not
//! to go from the cache while they are worked on.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::project::Project;
use crate::base::{cache::Cache, digest::short_key};

/// For how long a project counts as worked on after anything of it last asked for an image.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Notes that a project was seen. That it can't be noted, as where the disk is full, is nothing to stop at.
pub(crate) fn note(cache: &Cache, project: &Project) {
    let path = cache.projects().join(short_key(&project.root().to_string_lossy()));
    let known = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
    if known.is_err()
        && let Err(error) = cache.publish(&path, project.root().as_os_str().as_encoded_bytes())
    {
        tracing::debug!(%error, "a project is not noted");
    }
}

/// The projects that were seen lately and are still there, and the notes of those that are not.
pub(crate) fn seen(cache: &Cache, now: SystemTime) -> (Vec<Project>, Vec<PathBuf>) {
    let (mut projects, mut past) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(cache.projects()).into_iter().flatten().flatten() {
        let path = entry.path();
        match project_of(&path, now) {
            Some(project) => projects.push(project),
            None => past.push(path),
        }
    }
    (projects, past)
}

fn project_of(note: &Path, now: SystemTime) -> Option<Project> {
    let at = fs::metadata(note).and_then(|metadata| metadata.modified()).ok()?;
    if now.duration_since(at).unwrap_or_default() > REMEMBERED {
        return None;
    }
    let root = PathBuf::from(String::from_utf8(fs::read(note).ok()?).ok()?);
    root.is_dir().then(|| Project::at(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_are_known_while_they_are_there_and_worked_on() {
        let temp = tempfile::tempdir().unwrap();
        let cache = Cache::at(&temp.path().join("cache")).unwrap();
        let project = |name: &str| {
            fs::create_dir(temp.path().join(name)).unwrap();
            Project::at(temp.path().join(name))
        };
        let (kept, removed) = (project("kept"), project("removed"));
        note(&cache, &kept);
        note(&cache, &kept);
        note(&cache, &removed);
        let now = SystemTime::now();
        assert_eq!(seen(&cache, now).0.len(), 2);
        fs::remove_dir(removed.root()).unwrap();
        let (projects, past) = seen(&cache, now);
        assert_eq!((projects, past.len()), (vec![kept], 1));
        assert_eq!(seen(&cache, now + REMEMBERED + Duration::from_secs(60)).1.len(), 2);
    }
}
