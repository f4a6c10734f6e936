//! What can go wrong with images.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use quicksand_fetch::{DownloadError, RegistryError};

use super::project::ProjectError;
use crate::{
    base::{cache::CacheError, environment::EnvironmentError, fetching::told},
    qemu::qcow2::Qcow2Error,
};

/// Why an image could not be found or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No image can have this name.
    #[error("use {name:?} as an image's name: it takes a-z and 0-9, and after the first of them also . _ : and -")]
    BadName {
        /// What was given.
        name: String,
    },
    /// There is no such image, and nobody knows how to make it.
    #[error("make the image {name:?}: these can be made: {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What can be made.
        known: Vec<String>,
    },
    /// A name is another image's already, or the catalogue's.
    #[error("import an image as {name:?}: there is one of that name, or the catalogue has it; take another name")]
    Taken {
        /// The name.
        name: String,
    },
    /// The cache has no such image.
    #[error("find the image {name:?}: the cache does not have it; `quicksand images list` tells which it has")]
    Missing {
        /// The name.
        name: String,
    },
    /// `QUICKSAND_OFFLINE` is set.
    #[error(
        "get the image {name:?}: QUICKSAND_OFFLINE is set, and the cache does not have it; unset it, or get it before"
    )]
    Offline {
        /// The name.
        name: String,
    },
    /// `QUICKSAND_OFFLINE` is set, and others know what is newest.
    #[error("update quicksand.lock: QUICKSAND_OFFLINE is set, and what is newest is known elsewhere; unset it")]
    UpdateOffline,
    /// What quicksand.lock says can't be had.
    #[error(
        "start from {name} as quicksand.lock has it ({from}); `quicksand images update {name}` takes what there is now"
    )]
    Locked {
        /// The name.
        name: String,
        /// Where the lock says that it is from.
        from: String,
        /// What came of it.
        source: Box<ImageError>,
    },
    /// quicksand.lock says what can't be.
    #[error("understand {what:?} in quicksand.lock")]
    LockedNonsense {
        /// What it says.
        what: String,
    },
    /// There is no lock to move on.
    #[error("update quicksand.lock: this is no directory of a project, with a Cargo.toml in it or above it")]
    NoProject,
    /// None of an image's sources has it.
    #[error("build it from packages: {first}; nor could it be fetched")]
    NoSource {
        /// Why it could not be built.
        first: Box<ImageError>,
        /// Why it could not be fetched.
        source: Box<ImageError>,
    },
    /// A publisher's directory holds nothing that we look for.
    #[error("find {pattern} at {url}: its listing has nothing like it")]
    NothingListed {
        /// The directory.
        url: String,
        /// What was looked for.
        pattern: String,
    },
    /// A publisher's list has no digest of the image.
    #[error("find the digest of {file} in {url}: it is not there, so there is no telling whether what comes is whole")]
    NoDigest {
        /// The list.
        url: String,
        /// The image's file.
        file: String,
    },
    /// A publisher's list of digests is not what the publisher signed, as far as its keys tell.
    #[error("trust the list of digests {url}: {why}")]
    Signature {
        /// The list.
        url: String,
        /// What is wrong with its signature.
        why: String,
    },
    /// A file could not be fetched.
    #[error("{}", told(.0))]
    Download(DownloadError),
    /// The project's files can't be used.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// A variable of the environment can't be followed.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The image does not exist for this kind of machine.
    #[error("make the image {name:?} for {architecture}: it can be made for x86_64 and aarch64")]
    Architecture {
        /// What was asked for.
        name: String,
        /// This machine's architecture.
        architecture: &'static str,
    },
    /// A program that makes images is not installed.
    #[error("find the program {program}: install it (Debian's package: {package})")]
    MissingTool {
        /// The program.
        program: &'static str,
        /// The package that brings it.
        package: &'static str,
    },
    /// A program could not be started.
    #[error("start {program}")]
    Start {
        /// The program.
        program: &'static str,
        /// What came of it.
        source: io::Error,
    },
    /// A program failed.
    #[error("run {program} ({status}); it said last:\n{last_words}")]
    Tool {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it wrote to its standard error.
        last_words: String,
    },
    /// A program ran for too long, and was ended.
    #[error("run {program} in {} s; it said last:\n{last_words}", after.as_secs())]
    ToolTimeout {
        /// The program.
        program: &'static str,
        /// How long it was given.
        after: Duration,
        /// The last lines that it wrote to its standard error.
        last_words: String,
    },
    /// An ordinary user may not be root in a namespace of their own here.
    #[error(
        "become root in a user namespace, without which an ordinary user can't make images: let users make namespaces \
         (sysctl kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0), install \
         Debian's package uidmap and give the user a range in /etc/subuid and /etc/subgid (usermod \
         --add-subuids 100000-165535 --add-subgids 100000-165535 USER), or make the image once as root; \
         unshare said: {said}"
    )]
    NoNamespaces {
        /// What `unshare` said.
        said: String,
    },
    /// The disk is full, or would be.
    #[error("find room for an image at {}: making one takes 3 GiB there and 1 GiB for temporary files", path.display())]
    NoSpace {
        /// A path on the full file system.
        path: PathBuf,
    },
    /// A reference to a container image is none.
    #[error("use {reference:?} as a reference to an image: {why}")]
    Reference {
        /// What was given.
        reference: String,
        /// What is wrong with it.
        why: String,
    },
    /// A part of an image is not what it should be.
    #[error("use {what}: its SHA-256 should be {expected} and is {found}")]
    Digest {
        /// The part.
        what: String,
        /// The digest by which it was asked for.
        expected: String,
        /// That of what came.
        found: String,
    },
    /// A document that describes an image is none, or describes something else.
    #[error("use {what} as a container image: {why}")]
    Document {
        /// The image.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The image does not exist for this kind of machine.
    #[error("find {what} for {wanted}: there is {}", if there.is_empty() { "nothing" } else { there })]
    Platform {
        /// The image.
        what: String,
        /// This host's platform.
        wanted: String,
        /// Those for which it exists.
        there: String,
    },
    /// A recipe makes no image.
    #[error(transparent)]
    Recipe(#[from] crate::image::RecipeError),
    /// A registry gave no image.
    #[error("{}", told(.0))]
    Registry(RegistryError),
    /// An archive or a layer is not one of a root file system.
    #[error("make a root file system of {what}: {why}")]
    RootFs {
        /// The image.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The root file system lacks something that a machine starts from.
    #[error("find {what} in the root file system")]
    Incomplete {
        /// What is missing.
        what: &'static str,
    },
    /// The kernel lacks drivers.
    #[error("find the kernel's modules {}: they are neither built in nor files", names.join(", "))]
    MissingModules {
        /// Their names.
        names: Vec<String>,
    },
    /// A disk is not one, or not one that is given to QEMU.
    #[error(transparent)]
    Disk(#[from] Qcow2Error),
    /// A disk has no root file system that we can find.
    #[error("find a root file system on the disk: it holds {}; ext4, xfs and btrfs are looked into, LVM and encrypted \
            volumes are not", if seen.is_empty() { "nothing that is known" } else { seen })]
    NoRoot {
        /// The kinds of what is on the disk.
        seen: String,
    },
    /// The kernel that images without one share has no such file system.
    #[error("boot from a root file system of the kind {kind:?}: ext4, xfs and btrfs are possible")]
    FileSystem {
        /// Its kind.
        kind: String,
    },
    /// The machine that reads other disks for us could not be used.
    #[error("{what} the machine that reads disks for us")]
    Helper {
        /// What was being done.
        what: &'static str,
        /// What came of it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A script failed in the machine that reads other disks for us.
    #[error("work on a disk; the machine that reads disks for us said:\n{said}")]
    HelperScript {
        /// What the script wrote to its standard error.
        said: String,
    },
    /// The cache failed us.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A file or directory failed us.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
}

impl From<DownloadError> for ImageError {
    fn from(error: DownloadError) -> ImageError {
        ImageError::Download(error)
    }
}

impl From<RegistryError> for ImageError {
    fn from(error: RegistryError) -> ImageError {
        ImageError::Registry(error)
    }
}

impl From<quicksand_protocol::modules::Missing> for ImageError {
    fn from(missing: quicksand_protocol::modules::Missing) -> ImageError {
        ImageError::MissingModules { names: missing.names }
    }
}

impl ImageError {
    pub(crate) fn helper<E: std::error::Error + Send + Sync + 'static>(
        what: &'static str,
    ) -> impl FnOnce(E) -> ImageError {
        move |source| ImageError::Helper { what, source: Box::new(source) }
    }

    /// Tells a full disk from other trouble.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError + use<> {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::NoSpace { path },
            _ => ImageError::Io { what, path, source },
        }
    }
}
