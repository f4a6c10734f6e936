//! Making the layers that are missing or out of date, each once among all processes that want it.

use std::{path::Path, time::Duration};

use quicksand_core::{
    DEFAULT_BOOT_TIMEOUT, Error, SandboxBuilder,
    environment::Environment,
    harness::{BuilderExt, Saved, source_identity},
};

use super::{
    recipe::{InputError, recipe},
    record::{Failed, Record},
    registry::Layer,
    work::work,
};
use crate::{
    current::reporter,
    describe::describe,
    prepare::{Failure, options},
    this_run::ThisRun,
};

/// How long a setup may take unless its attribute says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// What a making takes beside its setup, at most: waiting for its turn, and writing the save.
const MARGIN: Duration = Duration::from_secs(10 * 60);

/// A setup failed.
#[derive(Debug, thiserror::Error)]
#[error("the setup of the save {save:?}{} failed{}: {said}", builds_on(.above.as_deref()), tried_for(.elsewhere.as_deref()))]
pub(crate) struct SetupFailure {
    save: String,
    /// The save that was wanted, where it builds on this one.
    above: Option<String>,
    /// The test for which it was tried, where that is another one of this run.
    elsewhere: Option<String>,
    said: String,
}

fn builds_on(save: Option<&str>) -> String {
    save.map(|save| format!(", which {save:?} builds on,")).unwrap_or_default()
}

fn tried_for(test: Option<&str>) -> String {
    test.map(|test| format!(" for the test {test} and is not tried again in this run")).unwrap_or_default()
}

/// Sees to it that the layers are there, from the bottom up, for a test. Returns the topmost save.
pub(crate) async fn make(layers: &[Layer], saves: &Path, test: &str) -> Result<Option<Saved>, Failure> {
    let environment = Environment::read().map_err(Error::from)?;
    let mut below: Option<(&Layer, Saved)> = None;
    for layer in layers {
        let source = match (layer.image, &below) {
            (None, Some((_, saved))) => format!("save {}", saved.id),
            (image, _) => source_identity(image.unwrap_or_default(), saves, &reporter()).await?,
        };
        let recipe = recipe(layer, &source)?;
        let start = match &below {
            Some((below, saved)) => options(&layer.machine, &below.save, saves).expecting(saved),
            None => options(&layer.machine, layer.image.unwrap_or_default(), saves),
        };
        let maker = start.save(layer.save.clone()).recipe(recipe.clone());
        let making = Making { layer, saves, maker, recipe, environment: &environment, test };
        let saved = making.once().await.map_err(|failure| match failure {
            Failure::Setup(failure) => {
                let above = layers.last().map(|top| top.save.clone()).filter(|top| *top != layer.save);
                Failure::Setup(SetupFailure { above, ..failure })
            }
            other => other,
        })?;
        below = Some((layer, saved));
    }
    Ok(below.map(|(_, saved)| saved))
}

/// One layer to be made.
struct Making<'a> {
    layer: &'a Layer,
    saves: &'a Path,
    maker: SandboxBuilder,
    recipe: String,
    environment: &'a Environment,
    test: &'a str,
}

impl Making<'_> {
    /// The save, made if need be.
    async fn once(&self) -> Result<Saved, Failure> {
        if let Some(saved) = self.look()? {
            return Ok(saved);
        }
        let limit = self.layer.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let _lock = self.maker.lock_save(limit + DEFAULT_BOOT_TIMEOUT + MARGIN).await?;
        if let Some(saved) = self.look()? {
            return Ok(saved);
        }
        let made = self.run(limit).await;
        // Where the save below was made anew meanwhile, there is nothing to say yet.
        if !matches!(made, Err(Failure::Quicksand(Error::SaveChanged { .. }))) {
            let failed = made.as_ref().err().map(|failure| Failed { said: said(failure), test: self.test.to_owned() });
            let record = Record::new(ThisRun::get(), &self.recipe, failed);
            record.write(self.saves, &self.layer.save)?;
        }
        made?;
        self.maker.saved()?.ok_or_else(|| Error::SaveChanged { name: self.layer.save.clone() }.into())
    }

    /// The save, where it is there and up to date.
    fn look(&self) -> Result<Option<Saved>, Failure> {
        let run = ThisRun::get();
        let record = Record::read(self.saves, &self.layer.save);
        if let Some(failed) = record.as_ref().and_then(|record| record.failure(run, &self.recipe)) {
            let elsewhere = Some(failed.test.clone()).filter(|test| test != self.test);
            let (save, said) = (self.layer.save.clone(), failed.said.clone());
            return Err(Failure::Setup(SetupFailure { save, above: None, elsewhere, said }));
        }
        let Some(saved) = self.maker.saved()? else { return Ok(None) };
        let Layer { declared, save, max_age, .. } = self.layer;
        let update = &self.environment.update;
        let wants_new = update.covers(declared) || update.covers(save);
        // A save from the future, by a clock that was set back, has no age that could be told.
        let is_old = max_age.is_some_and(|most| saved.made.elapsed().is_ok_and(|age| age > most));
        let is_new = record.is_some_and(|record| record.is_of(run));
        Ok(Some(saved).filter(|_| is_new || !(wants_new || is_old)))
    }

    /// Starts the machine, has the setup work on it, and saves it.
    async fn run(&self, limit: Duration) -> Result<(), Failure> {
        let sandbox = self.maker.clone().start().await?;
        let reporter = reporter();
        reporter.report("setup", 0, 1);
        let worked = work(self.layer, &sandbox, limit).await;
        reporter.report("setup", 1, 1);
        if let Err(said) = worked {
            let save = self.layer.save.clone();
            return Err(Failure::Setup(SetupFailure { save, above: None, elsewhere: None, said }));
        }
        Ok(sandbox.stop().await?)
    }
}

/// The failure in words, without what names the save.
fn said(failure: &Failure) -> String {
    match failure {
        Failure::Setup(failure) => failure.said.clone(),
        other => describe(other),
    }
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Failure {
        Failure::Input(error)
    }
}
