//! The machine of a test: the save that it starts from, and its start.

use std::{
    error::Error as StdError,
    fmt::Write,
    path::{Path, PathBuf},
};

use quicksand_core::{Error, Reporter, Sandbox, SandboxBuilder, Size, source_identity};

use crate::{
    meta::{SaveMeta, TestMeta},
    progress::show_progress,
};

/// How often a test makes a save that others make anew from something else.
const TRIES: usize = 3;

/// Why there was no machine for a test.
#[derive(Debug)]
pub(crate) enum Failure {
    Quicksand(Error),
    Setup { save: &'static str, said: String },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Quicksand(error)
    }
}

/// Starts the machine of a test, from its save where it names one, which is made where it is missing.
pub(crate) async fn prepare(meta: &TestMeta) -> Result<Sandbox, Failure> {
    let saves = saves_dir(meta);
    let Some(save) = &meta.save else {
        return Ok(options(meta, meta.image, &saves).start().await?);
    };
    let recipe = recipe(meta, save, &saves).await?;
    let maker = options(meta, meta.image, &saves).save(save.name).recipe(recipe.clone());
    let setup = async |sandbox: &Sandbox| match save.setup {
        Some(setup) => setup(sandbox).await.map_err(|said| Failure::Setup { save: save.name, said }),
        None => Ok(()),
    };
    // Between our look and our start another test may have made it anew, from something else under the same name.
    for _ in 0..TRIES {
        maker.ensure_saved(setup).await?;
        match options(meta, save.name, &saves).recipe(recipe.clone()).start().await {
            Err(Error::SaveChanged { .. }) => {}
            other => return Ok(other?),
        }
    }
    Err(Error::SaveChanged { name: save.name.to_owned() }.into())
}

fn options(meta: &TestMeta, source: &str, saves: &Path) -> SandboxBuilder {
    let mut builder = Sandbox::builder(source).saves_dir(saves).in_turn().on_progress(show_progress());
    if let Some(memory) = meta.memory {
        builder = builder.memory(Size::from_bytes(memory).to_string());
    }
    if let Some(cpus) = meta.cpus {
        builder = builder.cpus(cpus);
    }
    if let Some(network) = meta.network {
        builder = builder.network_mode(network);
    }
    if let Some(accel) = meta.accel {
        builder = builder.accel(accel);
    }
    builder
}

fn saves_dir(meta: &TestMeta) -> PathBuf {
    // Cargo and nextest say at run time where the package is; it may have moved since the test was compiled.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| meta.manifest_dir.into());
    Path::new(&package).join(".quicksand").join("sandboxes")
}

/// All that the save is made from. Another text, another save.
async fn recipe(meta: &TestMeta, save: &SaveMeta, saves: &Path) -> Result<String, Failure> {
    let source = source_identity(meta.image, saves, &Reporter::new(show_progress())).await?;
    let TestMeta { memory, cpus, network, accel, .. } = meta;
    let setup = save.fingerprint;
    Ok(format!("{source}; memory {memory:?}; cpus {cpus:?}; network {network:?}; accel {accel:?}; setup {setup}"))
}

/// What a failure says to people.
pub(crate) fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Quicksand(error) => {
            let mut text = format!("failed to {error}");
            let mut source = error.source();
            while let Some(error) = source {
                let _ = write!(text, ": {error}");
                source = error.source();
            }
            text
        }
        Failure::Setup { save, said } => format!("the setup of the save {save:?} failed: {said}"),
    }
}
