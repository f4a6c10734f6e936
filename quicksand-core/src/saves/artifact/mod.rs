//! Saves and images in a registry, as OCI artifacts: how a fleet of machines shares what one of them made.
//!
//! An artifact is an image manifest with media types of ours. Its configuration lists files, as the [index of an
//! export](crate::saves) does, with one thing more: of which chunks each file is put together. The manifest's layers are those chunks,
//! compressed one by one.
//!
//! A chunk is small enough for every registry's limits and for memory, so that several travel at once, and one that breaks off is
//! sent again without the others. One that is there already is not sent: what a save shares with its image or with another save of the
//! same repository, goes over once. Chunks of nothing but zeros do not exist, so that a guest's memory costs what the guest used.
//!
//! - [`format`]: the documents;
//! - `chunk`: a piece of a file, packed and unpacked;
//! - `push`, `pull`: files to a registry, and back;
//! - `fit`: whether a frozen memory fits this host.

mod chunk;
pub(crate) mod fit;
pub(crate) mod format;
mod pull;
mod push;

pub(crate) use pull::{Artifact, Wanted};
pub(crate) use push::push;

use crate::base::size::Size;

/// How many chunks are on their way at once.
const AT_ONCE: usize = 3;

/// What goes along of a machine's memory, from which it starts warm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WithMemory {
    /// All that fits this host: its QEMU, its accelerator, its processor, this quicksand. QEMU reads it as it is, so it is to be taken from
    /// those alone whom one trusts.
    #[default]
    IfItFits,
    /// Nothing: what is pulled boots from its disk once, and is none of those that are known here, whatever it says.
    Never,
}

/// What was pushed to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// Where it is, by its digest: `registry/name@sha256:…`.
    pub reference: String,
    /// What its chunks take in the registry.
    pub size: Size,
    /// What of it the registry did not have yet.
    pub sent: Size,
    /// How many machines' memories went with it.
    pub warm: usize,
    /// Why memory was left out, if it was.
    pub left_out: Option<String>,
}

/// What was pulled from a registry.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Pulled<T> {
    /// What was pulled.
    pub item: T,
    /// Where it was, by its digest: `registry/name@sha256:…`.
    pub reference: String,
    /// What came of it over the network; the rest was here.
    pub fetched: Size,
    /// How many machines' memories came with it.
    pub warm: usize,
    /// Why memory was left out, for each that was.
    pub left_out: Vec<String>,
}
