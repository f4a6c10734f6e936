//! Files to a registry.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{StreamExt, TryStreamExt, stream};
use quicksand_fetch::{
    Digest, RegistryError,
    registry::{Access, LARGEST_DOCUMENT, Registry},
};

use super::{
    AT_ONCE, Pushed,
    chunk::{self, Packed},
    format::{CHUNK, Chunk, ChunkedFile, Contents, Kind, Maker},
};
use crate::{
    base::{blocking::blocking, fetching, progress::Reporter, size::Size},
    error::{Error, Result},
    making::oci::format::MANIFEST,
    saves::archive::Entry,
};

/// A part of a file that is to be pushed.
#[derive(Debug, Clone, Copy)]
struct Part {
    file: usize,
    at: u64,
    size: u64,
}

/// Pushes files, by the names that they have in the artifact. `reporter` hears of the stages `digest` and `push`, in bytes.
pub(crate) async fn push(
    reference: &str,
    kind: Kind,
    name: &str,
    maker: Maker,
    files: Vec<(String, PathBuf)>,
    reporter: &Reporter,
) -> Result<Pushed> {
    let registry = fetching::registry::<Error>(reference, Access::Push).await?;
    let entries = entries(files.clone(), reporter.clone()).await?;

    let total = entries.iter().map(|entry| entry.size).sum();
    let mut parts = Vec::new();
    for (file, entry) in entries.iter().enumerate() {
        let starts = (0..entry.size).step_by(CHUNK as usize);
        parts.extend(starts.map(|at| Part { file, at, size: CHUNK.min(entry.size - at) }));
    }
    let opened = files.iter().map(|(_, path)| Ok(Arc::new(File::open(path).map_err(Error::io("open", path))?)));
    let opened: Vec<Arc<File>> = opened.collect::<Result<_>>()?;
    let done = AtomicU64::new(0);
    reporter.report("push", 0, total);
    let push_one = async |part: Part| {
        let (file, path) = (Arc::clone(&opened[part.file]), &files[part.file].1);
        let packed = blocking(move || chunk::pack(&file, part.at, part.size)).await;
        let pushed = match packed.map_err(Error::io("read", path))? {
            None => None,
            Some(Packed { digest, bytes }) => {
                let size = bytes.len() as u64;
                let sent = registry.push_blob(&digest, bytes).await?;
                Some((part, digest, size, sent))
            }
        };
        reporter.report("push", done.fetch_add(part.size, Ordering::Relaxed) + part.size, total);
        Ok::<_, Error>(pushed)
    };
    let pushed: Vec<_> = stream::iter(parts).map(push_one).buffer_unordered(AT_ONCE).try_collect().await?;

    let (mut blobs, mut chunks, mut sent) = (BTreeMap::new(), vec![Vec::new(); entries.len()], HashSet::new());
    for (part, digest, size, was_sent) in pushed.into_iter().flatten() {
        if was_sent {
            sent.insert(digest.clone());
        }
        chunks[part.file].push(Chunk { at: part.at, size: part.size, blob: digest.clone() });
        blobs.insert(digest, size);
    }
    let files = entries.into_iter().zip(chunks).map(|(entry, mut chunks)| {
        chunks.sort_by_key(|chunk| chunk.at);
        ChunkedFile { entry, chunks }
    });
    let contents = Contents::new(kind, name, maker, files.collect());
    let manifest = finish(&registry, &contents, &blobs).await?;
    Ok(Pushed {
        reference: registry.reference_of(&manifest),
        size: Size::from_bytes(blobs.values().sum()),
        sent: Size::from_bytes(blobs.iter().filter(|(digest, _)| sent.contains(digest)).map(|(_, size)| size).sum()),
        warm: 0,
        left_out: None,
    })
}

/// Pushes the documents. The manifest comes last: until then there is nothing of that name, or what there was before.
async fn finish(registry: &Registry, contents: &Contents, blobs: &BTreeMap<Digest, u64>) -> Result<Digest> {
    let as_json = |error: serde_json::Error| Error::io("describe", Path::new(&contents.name))(error.into());
    let config = serde_json::to_vec(contents).map_err(as_json)?;
    let manifest = serde_json::to_vec(&contents.manifest(&config, blobs)).map_err(as_json)?;
    let largest = config.len().max(manifest.len()) as u64;
    if largest > LARGEST_DOCUMENT {
        let (doing, expected) =
            (format!("push to {}", registry.reference()), format!("at most {LARGEST_DOCUMENT} bytes"));
        return Err(RegistryError::Wrong { doing, expected, found: format!("a description of {largest} bytes") }.into());
    }
    registry.push_blob(&Digest::of(&config), config).await?;
    Ok(registry.push_manifest(MANIFEST, manifest).await?)
}

/// What the artifact says of the files.
async fn entries(files: Vec<(String, PathBuf)>, reporter: Reporter) -> Result<Vec<Entry>> {
    blocking(move || {
        let size = |(_, path): &(String, PathBuf)| Ok(path.metadata().map_err(Error::io("look at", path))?.len());
        let sizes = files.iter().map(size).collect::<Result<Vec<u64>>>()?;
        let (mut current, total) = (0, sizes.iter().sum());
        reporter.report("digest", 0, total);
        let entry = |((path, file), size): ((String, PathBuf), u64)| {
            let read = |count| {
                current += count;
                reporter.report("digest", current, total);
            };
            let sha256 = chunk::sha256(&file, read).map_err(Error::io("read", &file))?;
            Ok(Entry { path, size, sha256 })
        };
        files.into_iter().zip(sizes).map(entry).collect()
    })
    .await
}
