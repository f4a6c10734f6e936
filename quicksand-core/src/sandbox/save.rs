//! Saves: a running sandbox written down, and those that the harness makes once.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Sandbox, SandboxBuilder, freeze::Use, running::to_the_end};
use crate::{
    base::{
        blocking::blocking,
        cache::{CacheError, Lock, Unfinished},
        names,
    },
    error::{Error, Result},
    host::Host,
    image::state::State,
};

/// How long another process may take to write the save that we want to write.
const SAVE_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What a save did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SaveReport {
    /// Where the save is.
    pub directory: PathBuf,
    /// How long the guest stood still.
    pub pause: Duration,
}

impl Sandbox {
    /// Writes a save of the running sandbox: memory, devices and disk. It runs on, after a pause that the report tells.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], [`Error::NotRunning`], and whatever keeps the save from being written. An old save of that name then
    /// stays as it was.
    pub async fn save(&self, name: &str) -> Result<SaveReport> {
        check_name(name)?;
        let running = self.running()?;
        let directory = self.options.saves()?.join(name);
        make_saves_dir(&directory)?;
        let lock = running.host.cache.lock(&save_lock_name(&directory), SAVE_PATIENCE).await?;
        let unfinished = Unfinished::beside(&directory)?;
        let recipe = self.options.recipe.clone();
        let reporter = self.reporter();
        to_the_end(async move {
            reporter.report("save", 0, 1);
            // Held until the save is there, also where the caller waits no longer.
            let _lock = lock;
            running.ready().await?;
            let change = running.change().await;
            let pause = running.freeze(unfinished.path(), Use::Lasting { recipe }, &change).await?;
            drop(change);
            blocking(move || unfinished.finish()).await?;
            reporter.report("save", 1, 1);
            Ok(SaveReport { directory, pause })
        })
        .await
    }
}

/// A save that is there.
#[derive(Debug, Clone)]
pub struct Saved {
    /// Differs between any two saves; what is made from this one is keyed by it.
    pub id: String,
    /// When it was written.
    pub made: SystemTime,
}

impl SandboxBuilder {
    /// The save that is to be written, where it is there already and made from the same recipe.
    pub(crate) fn saved(&self) -> Result<Option<Saved>> {
        let (name, directory) = self.save_directory()?;
        let state = match State::read(&directory) {
            Ok(Some(state)) => state,
            // Damaged, or of another version: made again where we know how.
            Ok(None) | Err(_) => return Ok(None),
        };
        match (&state.manifest.recipe, &self.recipe) {
            (None, Some(_)) => Err(Error::SaveInTheWay { name: name.to_owned(), directory }),
            (have, want) if have != want => Ok(None),
            _ => Ok(Some(Saved { made: state.made()?, id: state.manifest.id })),
        }
    }

    /// The right to make the save that is to be written, once among all processes that want it at the same time; for at most
    /// `patience`. Its directory is there from then on.
    pub(crate) async fn lock_save(&self, patience: Duration) -> Result<Lock> {
        let (_, directory) = self.save_directory()?;
        make_saves_dir(&directory)?;
        let name = format!("make-{}", crate::base::digest::short_key(&directory.to_string_lossy()));
        Ok(Host::discover()?.cache.lock(&name, patience).await?)
    }

    fn save_directory(&self) -> Result<(&str, PathBuf)> {
        let name = self.save.as_deref().unwrap_or_default();
        check_name(name)?;
        Ok((name, self.saves()?.join(name)))
    }
}

/// Checks that a save may have this name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if names::is_fit(name) { Ok(()) } else { Err(Error::BadName { name: name.to_owned() }) }
}

/// The name of the lock that whoever writes a save holds.
pub(crate) fn save_lock_name(directory: &Path) -> String {
    format!("save-{}", crate::base::digest::short_key(&directory.to_string_lossy()))
}

/// Makes the directory of the saves, and keeps it out of version control: saves are large, and made from what is under it.
pub(crate) fn make_saves_dir(save: &Path) -> Result<()> {
    let Some(saves) = save.parent() else { return Ok(()) };
    std::fs::create_dir_all(saves).map_err(Error::io("create", saves))?;
    let Some(project) = saves.parent().filter(|parent| parent.ends_with(".quicksand")) else { return Ok(()) };
    let ignore = project.join(".gitignore");
    match std::fs::File::create_new(&ignore).and_then(|mut file| io::Write::write_all(&mut file, b"*\n")) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(CacheError::io("write", &ignore)(e).into()),
        _ => Ok(()),
    }
}
