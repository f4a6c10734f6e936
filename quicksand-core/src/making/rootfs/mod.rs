//! Root file systems that come as tar archives, one or several layers of them, possibly compressed and made by anybody.
//!
//! The layers are read one after the other into a [tree](tree) of names, and written as one archive that holds what is left: real
//! directories, files, and links that lead nowhere but within. That archive is what a disk is made of.

pub(crate) mod entry;
mod owners;
pub(crate) mod section;
pub(crate) mod tree;
mod write;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, BufWriter},
    path::Path,
};

pub(crate) use crate::making::rootfs::owners::{Owners, Stranger};
pub(crate) use crate::making::rootfs::section::Section;
pub(crate) use crate::making::rootfs::tree::Limits;
pub(crate) use crate::making::rootfs::write::Written;

use crate::making::rootfs::entry::Entries;
use crate::making::rootfs::tree::Tree;

/// A layer's archive, and how an error calls it.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) archive: Section,
}

/// Why layers make no root file system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// An archive can't be read on.
    #[error("{name} {source}")]
    Archive { name: String, source: io::Error },
    /// An entry is not one that a root file system may have.
    #[error("{name} has an entry {path:?} that {source}")]
    Entry { name: String, path: String, source: io::Error },
    /// The archive could not be written.
    #[error("write")]
    Write(#[source] io::Error),
}

/// Merges layers, from the bottom up, into a new archive. With `whiteouts`, entries of upper layers may ask for removals.
/// What an owner is lacking for becomes nobody's. `watch` hears how many bytes of content of how many were written, and may end it all.
pub(crate) fn merge(
    layers: Vec<Layer>,
    whiteouts: bool,
    limits: Limits,
    owners: &Owners,
    out: &Path,
    watch: &mut dyn FnMut(u64, u64) -> io::Result<()>,
) -> Result<Written, MergeError> {
    let mut tree = Tree::new(limits);
    for (number, layer) in layers.iter().enumerate() {
        if whiteouts {
            each_entry(layer, |entry| tree.remove(&entry))?;
        }
        each_entry(layer, |entry| tree.add(number, whiteouts, entry))?;
    }
    let archives: Vec<_> = layers.into_iter().map(|layer| layer.archive).collect();
    let file = BufWriter::with_capacity(1 << 20, File::create(out).map_err(MergeError::Write)?);
    write::write(&tree, &archives, owners, file, watch).map_err(MergeError::Write)
}

fn each_entry(layer: &Layer, mut show: impl FnMut(entry::Entry) -> io::Result<()>) -> Result<(), MergeError> {
    let mut entries = Entries::new(layer.archive.clone());
    let name = || layer.name.clone();
    while let Some(entry) = entries.next().map_err(|source| MergeError::Archive { name: name(), source })? {
        let path = entry.path.clone();
        show(entry).map_err(|source| {
            let path = String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned();
            MergeError::Entry { name: name(), path, source }
        })?;
    }
    Ok(())
}

/// An error of what an archive says.
pub(crate) fn why(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}
