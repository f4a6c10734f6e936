//! The files that a machine starts with: empty memory, and an overlay over its disk.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use super::run_dir::RunDir;
use crate::{
    base::{
        cache::{Cache, CacheError, UNFINISHED, touch},
        random,
    },
    error::Error,
    host::Host,
    qemu::machine::Machine,
};

/// The memory of a machine that boots: an empty file, which is never written.
pub(super) fn empty_memory(run_dir: &RunDir, machine: &Machine) -> Result<PathBuf, CacheError> {
    let path = run_dir.memory();
    let made = File::create(&path).and_then(|file| file.set_len(machine.memory));
    made.map(|()| path.clone()).map_err(CacheError::io("create", &path))
}

/// A disk with an empty overlay over the files that it has.
pub(super) fn with_overlay(
    host: &Host,
    run_dir: &RunDir,
    mut files: Vec<PathBuf>,
    size: u64,
) -> Result<Vec<PathBuf>, Error> {
    let overlay = run_dir.next_overlay();
    empty_overlay(&host.cache, size, &overlay)?;
    files.push(overlay);
    Ok(files)
}

/// Puts an empty overlay of that size at `path`, as a copy of one that is made once.
pub(super) fn empty_overlay(cache: &Cache, size: u64, path: &Path) -> Result<(), Error> {
    let template = cache.overlays().join(format!("{size}.qcow2"));
    // One that was just used is not pruned.
    if touch(&template).is_err() {
        // Several threads and processes may make it at once.
        let name = random::name().map_err(CacheError::io("name a file beside", &template))?;
        let made = template.with_file_name(format!("{UNFINISHED}{name}"));
        let output =
            Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&made).arg(size.to_string()).output();
        let output = output.map_err(|source| Error::QemuImg { said: source.to_string() })?;
        if !output.status.success() {
            let _ = fs::remove_file(&made);
            return Err(Error::QemuImg { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
        }
        fs::rename(&made, &template).map_err(CacheError::io("rename", &made))?;
    }
    fs::copy(&template, path).map_err(CacheError::io("create", path))?;
    Ok(())
}
