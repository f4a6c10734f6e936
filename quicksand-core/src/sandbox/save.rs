//! Saves: a running sandbox written down, and those that the harness makes once.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Sandbox, SandboxBuilder, freeze::Use, running::to_the_end};
use crate::{
    Error, Result,
    cache::{CacheError, Unfinished},
    host::Host,
    source,
    state::State,
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
        let lock_name = format!("save-{}", source::short_key(&directory.to_string_lossy()));
        let lock = running.host.cache.lock(&lock_name, SAVE_PATIENCE).await?;
        let unfinished = Unfinished::beside(&directory)?;
        let recipe = self.options.recipe.clone();
        to_the_end(async move {
            // Held until the save is there, also where the caller waits no longer.
            let _lock = lock;
            running.ready().await?;
            let change = running.change().await;
            let pause = running.freeze(unfinished.path(), Use::Lasting { recipe }, &change).await?;
            drop(change);
            let finished = tokio::task::spawn_blocking(move || unfinished.finish());
            finished.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
            Ok(SaveReport { directory, pause })
        })
        .await
    }
}

impl SandboxBuilder {
    /// Whether the save that is to be written is there, made from the same recipe.
    #[doc(hidden)]
    pub fn is_saved(&self) -> Result<bool> {
        let Some(name) = self.save.as_deref() else { return Ok(false) };
        check_name(name)?;
        let directory = self.saves()?.join(name);
        let state = match State::read(&directory) {
            Ok(Some(state)) => state,
            // Damaged, or of another version: made again where we know how.
            Ok(None) | Err(_) => return Ok(false),
        };
        match (&state.manifest.recipe, &self.recipe) {
            (None, Some(_)) => Err(Error::SaveInTheWay { name: name.to_owned(), directory }),
            (have, want) => Ok(have == want),
        }
    }

    /// Makes the save, once among all processes that want it at the same time: boots the source, lets `setup` work on it, stops it.
    #[doc(hidden)]
    pub async fn ensure_saved<E: From<Error>>(
        &self,
        setup: impl AsyncFnOnce(&Sandbox) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.is_saved()? {
            return Ok(false);
        }
        let host = Host::discover()?;
        let directory = self.saves()?.join(self.save.as_deref().unwrap_or_default());
        let lock_name = format!("make-{}", source::short_key(&directory.to_string_lossy()));
        let _lock = host.cache.lock(&lock_name, SAVE_PATIENCE).await.map_err(Error::from)?;
        if self.is_saved()? {
            return Ok(false);
        }
        let sandbox = self.clone().start().await?;
        setup(&sandbox).await?;
        sandbox.stop().await?;
        Ok(true)
    }
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    let mut bytes = name.bytes();
    let fits = bytes.next().is_some_and(plain) && bytes.all(|b| plain(b) || b"._-".contains(&b)) && name.len() <= 64;
    if fits { Ok(()) } else { Err(Error::BadName { name: name.to_owned() }) }
}

/// Makes the directory of the saves, and keeps it out of version control: saves are large, and made from what is under it.
fn make_saves_dir(save: &Path) -> Result<()> {
    let Some(saves) = save.parent() else { return Ok(()) };
    std::fs::create_dir_all(saves).map_err(Error::io("create", saves))?;
    let Some(project) = saves.parent().filter(|parent| parent.ends_with(".quicksand")) else { return Ok(()) };
    let ignore = project.join(".gitignore");
    match std::fs::File::create_new(&ignore).and_then(|mut file| io::Write::write_all(&mut file, b"*\n")) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(CacheError::io("write", &ignore)(e).into()),
        _ => Ok(()),
    }
}
