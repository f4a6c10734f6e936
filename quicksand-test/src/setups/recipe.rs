//! What a layer is made from, as a text: another text, another save.

use std::{io, path::PathBuf};

use quicksand_core::harness::tree;

use super::registry::Layer;
use crate::meta::{MachineMeta, Work};

/// A file that a setup depends on could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read {}, which the setup {setup} names in inputs(..)", path.display())]
pub(crate) struct InputError {
    setup: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The recipe of a layer that is made from `source`.
pub(super) fn recipe(layer: &Layer, source: &str) -> Result<String, InputError> {
    let MachineMeta { memory, cpus, network, accel, kernel, disk_size, display } = layer.machine;
    let mut recipe = format!("{source}; memory {memory:?}; cpus {cpus:?}; network {network:?}; accel {accel:?}");
    // Written where they are given, so that saves from before they could be stay good.
    if let Some(bytes) = disk_size {
        recipe.push_str(&format!("; disk {bytes}"));
    }
    if let Some(kernel) = kernel {
        recipe.push_str(&format!("; kernel {kernel:?}"));
    }
    if let Some(display) = display {
        recipe.push_str(&format!("; display {display}"));
    }
    match layer.work {
        None => recipe.push_str("; setup none"),
        Some(Work::Function { fingerprint, .. }) => recipe.push_str(&format!("; setup {fingerprint}")),
        Some(Work::Commands(lines)) => recipe.push_str(&format!("; commands {lines:?}")),
    }
    for input in layer.inputs {
        let digest = tree::digest(&layer.package.join(input)).map_err(|(path, source)| InputError {
            setup: layer.name,
            path,
            source,
        })?;
        recipe.push_str(&format!("; input {input:?} {digest}"));
    }
    Ok(recipe)
}
