//! The machine of a test: the layers that it stands on, and its start.

use std::{
    env,
    path::{Path, PathBuf},
};

use quicksand_core::harness::BuilderExt;
use quicksand_core::{Error, Progress, Sandbox, SandboxBuilder, Size};

use crate::{
    current,
    meta::{MachineMeta, TestMeta},
    pool,
    setups::{self, InputError, SetupFailure, Unresolved},
};

/// How often a test makes a save that others make anew from something else.
const TRIES: usize = 3;

/// Why there was no machine for a test.
#[derive(Debug)]
pub(crate) enum Failure {
    Quicksand(Error),
    Unresolved(Unresolved),
    Input(InputError),
    Setup(SetupFailure),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Quicksand(error)
    }
}

/// Starts the machine of a test, from its save where it names one, which is made where it is missing.
pub(crate) async fn prepare(meta: &TestMeta) -> Result<Sandbox, Failure> {
    let saves = saves_dir(meta);
    let layers = setups::layers(meta).map_err(Failure::Unresolved)?;
    let Some(top) = layers.last() else {
        let image = setups::image(meta).map_err(Failure::Unresolved)?;
        return start(options(&meta.machine, image, &saves), meta, image, &saves).await;
    };
    // Between our look and our start another test may have made one anew, from something else under the same name.
    for _ in 0..TRIES {
        match start_from(&layers, &top.save, meta, &saves).await {
            Err(Failure::Quicksand(Error::SaveChanged { .. })) => {}
            other => return other,
        }
    }
    Err(Error::SaveChanged { name: top.save.clone() }.into())
}

async fn start_from(layers: &[setups::Layer], save: &str, meta: &TestMeta, saves: &Path) -> Result<Sandbox, Failure> {
    let mut start = options(&meta.machine, save, saves);
    if let Some(saved) = setups::make(layers, saves, meta.name).await? {
        start = start.expecting(&saved);
    }
    self::start(start, meta, save, saves).await
}

/// Starts a machine: by the one that was made ready, where that is of the same kind. Has the next one made ready.
async fn start(builder: SandboxBuilder, meta: &TestMeta, source: &str, saves: &Path) -> Result<Sandbox, Failure> {
    let base = format!("{source} in {}, {:?}", saves.display(), meta.machine);
    let next = builder.clone();
    let builder = match pool::take(&base) {
        Some(standby) => builder.standby(standby),
        None => builder,
    };
    let sandbox = builder.start().await?;
    pool::refill(base, next);
    Ok(sandbox)
}

/// A builder of a machine of the harness.
pub(crate) fn options(machine: &MachineMeta, source: &str, saves: &Path) -> SandboxBuilder {
    let reporter = current::reporter();
    let show = move |progress: &Progress| reporter.report(progress.stage, progress.current, progress.total);
    let mut builder = Sandbox::builder(source).saves_dir(saves).in_turn().on_progress(show);
    if let Some(memory) = machine.memory {
        builder = builder.memory(Size::from_bytes(memory).to_string());
    }
    if let Some(cpus) = machine.cpus {
        builder = builder.cpus(cpus);
    }
    if let Some(network) = machine.network {
        builder = builder.network_mode(network);
    }
    if let Some(accel) = machine.accel {
        builder = builder.accel(accel);
    }
    if let Some(kernel) = machine.kernel {
        builder = builder.kernel(kernel);
    }
    if let Some(size) = machine.disk_size {
        builder = builder.disk_size(Size::from_bytes(size).to_string());
    }
    if let Some(display) = machine.display {
        builder = builder.enable_display(display);
    }
    builder
}

/// The directory of the saves of a test's package.
pub(crate) fn saves_dir(meta: &TestMeta) -> PathBuf {
    package_dir(meta.manifest_dir).join(".quicksand").join("sandboxes")
}

/// The directory of the test's package, which was compiled in `compiled`.
pub(crate) fn package_dir(compiled: &str) -> PathBuf {
    // Cargo and nextest say at run time where the package is; it may have moved since the test was compiled.
    env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| compiled.into()).into()
}
