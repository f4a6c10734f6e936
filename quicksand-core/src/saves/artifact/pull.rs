//! Files from a registry.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{StreamExt, TryStreamExt, stream};
use quicksand_fetch::{
    Digest, RegistryError,
    registry::{Access, Registry},
};

use super::{
    AT_ONCE, chunk,
    format::{Chunk, ChunkedFile, Contents, Kind, parse_contents, parse_manifest},
};
use crate::{
    base::{blocking::blocking, fetching, progress::Reporter},
    error::{Error, Result, archive::ArchiveError},
    image::state::{Across, link},
    making::oci::format::MANIFEST,
    saves::archive::{Entry, LARGEST_TEXT},
};

/// Smaller files are pulled rather than looked for.
const WORTH_A_LOOK: u64 = 1 << 20;

/// An artifact in a registry, whose documents are here and checked.
pub(crate) struct Artifact {
    registry: Registry,
    /// By its digest.
    pub(crate) reference: String,
    pub(crate) contents: Contents,
    /// The chunks, with their packed sizes.
    blobs: BTreeMap<Digest, u64>,
}

/// A file that is wanted of an artifact.
pub(crate) struct Wanted<'a> {
    pub(crate) file: &'a ChunkedFile,
    /// Where it is to be, in a directory that is there.
    pub(crate) target: PathBuf,
    /// Files that may be the same. They are never written to, whoever has them.
    pub(crate) likely: Vec<PathBuf>,
}

impl Artifact {
    /// Asks for the documents of an artifact of that kind.
    pub(crate) async fn find(reference: &str, kind: Kind) -> Result<Artifact> {
        let registry = fetching::registry::<Error>(reference, Access::Pull).await?;
        let doing = format!("pull {}", registry.reference());
        let (manifest, digest) = registry.manifest(None, &[MANIFEST]).await?;
        let (config, blobs) = parse_manifest(&doing, &manifest, kind)?;
        let config = registry.document(&config.digest, config.size).await?;
        let contents = parse_contents(&doing, &config, kind, &blobs)?;
        Ok(Artifact { reference: registry.reference_of(&digest), registry, contents, blobs })
    }

    /// One of its small files, without a word of what else there is.
    pub(crate) async fn small_file(&self, path: &str) -> Result<Vec<u8>> {
        let missing = || ArchiveError::Refused {
            file: PathBuf::from(&self.reference),
            entry: path.to_owned(),
            why: "it is missing, empty or too large".to_owned(),
        };
        let file = self.contents.files.iter().find(|file| file.entry.path == path).ok_or_else(missing)?;
        match &file.chunks[..] {
            [only] if only.at == 0 && only.size == file.entry.size && only.size <= LARGEST_TEXT => {
                let packed = self.chunk(&only.blob).await?;
                chunk::unpacked(&packed, only.size).map_err(|source| self.broken(path, Path::new(path), source))
            }
            _ => Err(missing().into()),
        }
    }

    /// The bytes of files that are no holes: what they take on a disk at most.
    pub(crate) fn data_size<'a>(files: impl IntoIterator<Item = &'a ChunkedFile>) -> u64 {
        files.into_iter().flat_map(|file| &file.chunks).map(|chunk| chunk.size).sum()
    }

    /// Gets files, all of which are then what the artifact says. Returns the bytes that came over the network. `reporter` hears of
    /// the stages `pull` and `digest`, in bytes.
    pub(crate) async fn fetch(&self, wanted: &[Wanted<'_>], reporter: &Reporter) -> Result<u64> {
        let mut missing = Vec::new();
        for wanted in wanted {
            if !take_likely(wanted).await? {
                missing.push(wanted);
            }
        }
        let total = Artifact::data_size(missing.iter().map(|wanted| wanted.file));
        let mut parts = Vec::new();
        for wanted in &missing {
            let file = File::options().read(true).write(true).create_new(true).open(&wanted.target);
            let file = Arc::new(file.map_err(Error::io("create", &wanted.target))?);
            file.set_len(wanted.file.entry.size).map_err(Error::io("size", &wanted.target))?;
            parts.extend(wanted.file.chunks.iter().map(|chunk| (Arc::clone(&file), *wanted, chunk)));
        }
        let (done, fetched) = (AtomicU64::new(0), AtomicU64::new(0));
        reporter.report("pull", 0, total);
        let fetch_one = async |(file, wanted, chunk): (Arc<File>, &Wanted<'_>, &Chunk)| {
            let Chunk { at, size, blob } = chunk.clone();
            let packed = self.chunk(&blob).await?;
            fetched.fetch_add(packed.len() as u64, Ordering::Relaxed);
            let unpacked = blocking(move || chunk::unpack(&packed, &file, at, size)).await;
            unpacked.map_err(|source| self.broken(&wanted.file.entry.path, &wanted.target, source))?;
            reporter.report("pull", done.fetch_add(size, Ordering::Relaxed) + size, total);
            Ok::<_, Error>(())
        };
        stream::iter(parts).map(fetch_one).buffer_unordered(AT_ONCE).try_collect::<()>().await?;

        let files = missing.iter().map(|wanted| (wanted.file.entry.clone(), wanted.target.clone())).collect();
        self.check(files, reporter.clone()).await?;
        Ok(fetched.into_inner())
    }

    async fn chunk(&self, blob: &Digest) -> Result<Vec<u8>, RegistryError> {
        // Each one that a file names was looked for when the documents were read.
        let size = self.blobs.get(blob).copied().unwrap_or_default();
        self.registry.small_blob(blob, size).await
    }

    /// Sees to it that files are what the artifact says.
    async fn check(&self, files: Vec<(Entry, PathBuf)>, reporter: Reporter) -> Result<()> {
        let place = PathBuf::from(&self.reference);
        blocking(move || {
            let (mut current, total) = (0, files.iter().map(|(entry, _)| entry.size).sum());
            reporter.report("digest", 0, total);
            for (entry, path) in files {
                let read = |count| {
                    current += count;
                    reporter.report("digest", current, total);
                };
                if chunk::sha256(&path, read).map_err(Error::io("read", &path))? != entry.sha256 {
                    return Err(ArchiveError::Digest { file: place, entry: entry.path }.into());
                }
            }
            Ok(())
        })
        .await
    }

    fn broken(&self, entry: &str, target: &Path, source: io::Error) -> Error {
        match source.kind() {
            // The disk's own troubles are not the artifact's.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::PermissionDenied => {
                Error::io("write", target)(source)
            }
            _ => ArchiveError::Broken { file: PathBuf::from(&self.reference), entry: entry.to_owned(), source }.into(),
        }
    }
}

/// Takes a file that is here already, where one is the same by its content.
async fn take_likely(wanted: &Wanted<'_>) -> Result<bool> {
    let (entry, target, likely) = (wanted.file.entry.clone(), wanted.target.clone(), wanted.likely.clone());
    if entry.size < WORTH_A_LOOK {
        return Ok(false);
    }
    blocking(move || {
        let same_size = |path: &PathBuf| path.symlink_metadata().is_ok_and(|it| it.is_file() && it.len() == entry.size);
        let same = |path: &PathBuf| chunk::sha256(path, |_| {}).is_ok_and(|sha256| sha256 == entry.sha256);
        match likely.iter().filter(|path| same_size(path)).find(|path| same(path)) {
            Some(path) => link(path, &target, Across::Copy).map(|()| true).map_err(Error::from),
            None => Ok(false),
        }
    })
    .await
}
