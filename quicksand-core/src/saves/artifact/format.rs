//! The documents of an artifact: its manifest, which is OCI's, and its configuration, which is ours.

use std::collections::BTreeMap;

use quicksand_fetch::{Digest, RegistryError};
use serde::{Deserialize, Serialize};

use crate::{
    base::versioned::{self, Unread},
    image::Image,
    making::{Descriptor, Manifest, oci::format::MANIFEST as MANIFEST_TYPE},
    saves::archive::{Entry, MANIFEST, fault, is_of_a_save},
};

/// The version that this code writes, and the highest that it reads. Raised with every change that an older reader would misread.
const VERSION: u32 = 1;
/// The size of a chunk, in bytes. A file's last one may be smaller.
pub(crate) const CHUNK: u64 = 16 << 20;
/// The most that a chunk takes in a registry: what can't be compressed becomes a little larger.
const MOST_PACKED: u64 = CHUNK + (CHUNK >> 8) + 1024;
/// The most that a machine's devices and its picture may take. They take less than a hundredth and a quarter of it.
const MOST_DEVICES: u64 = 64 << 20;

/// What files may come to in any case, in bytes; and how many times what they are packed to, otherwise. A guest's memory is mostly zeros.
const MODEST: u64 = 64 << 30;
const MOST_TIMES: u64 = 100;

const CONFIG_TYPE: &str = "application/vnd.quicksand.config.v1+json";
const CHUNK_TYPE: &str = "application/vnd.quicksand.chunk.v1+gzip";
/// Whose artifact it is, for people who look at a registry.
const TITLE: &str = "org.opencontainers.image.title";

/// What an artifact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A save: what its directory holds.
    Save,
    /// An image below `image/`, and warm states of it below `states/KEY/`, which have no image of their own.
    Image,
}

impl Kind {
    fn artifact_type(self) -> &'static str {
        match self {
            Kind::Save => "application/vnd.quicksand.save.v1",
            Kind::Image => "application/vnd.quicksand.image.v1",
        }
    }

    fn with_article(self) -> &'static str {
        match self {
            Kind::Save => "a save",
            Kind::Image => "an image",
        }
    }
}

/// What memory was frozen by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maker {
    pub(crate) quicksand: String,
    /// The program in the guest.
    pub(crate) agent: String,
    pub(crate) qemu: String,
}

/// A file, and the chunks that it is put together of. What no chunk covers is zeros.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkedFile {
    #[serde(flatten)]
    pub(crate) entry: Entry,
    pub(crate) chunks: Vec<Chunk>,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) at: u64,
    pub(crate) size: u64,
    /// The same under gzip.
    pub(crate) blob: Digest,
}

/// An artifact's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    version: u32,
    pub(crate) kind: Kind,
    /// Its name where it was pushed.
    pub(crate) name: String,
    pub(crate) maker: Maker,
    pub(crate) files: Vec<ChunkedFile>,
}

impl Contents {
    pub(crate) fn new(kind: Kind, name: &str, maker: Maker, files: Vec<ChunkedFile>) -> Contents {
        Contents { version: VERSION, kind, name: name.to_owned(), maker, files }
    }

    /// The manifest of an artifact with these chunks, by their digests and packed sizes.
    pub(crate) fn manifest(&self, config: &[u8], blobs: &BTreeMap<Digest, u64>) -> Manifest {
        let descriptor = |media_type: &str, digest: Digest, size: u64| Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: None,
        };
        Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.to_owned()),
            artifact_type: Some(self.kind.artifact_type().to_owned()),
            config: descriptor(CONFIG_TYPE, Digest::of(config), config.len() as u64),
            layers: blobs.iter().map(|(digest, size)| descriptor(CHUNK_TYPE, digest.clone(), *size)).collect(),
            annotations: Some(BTreeMap::from([(TITLE.to_owned(), self.name.clone())])),
        }
    }
}

/// Reads a manifest that is to be an artifact's: where its configuration is, and its chunks with their packed sizes.
pub(crate) fn parse_manifest(
    doing: &str,
    text: &[u8],
    wanted: Kind,
) -> Result<(Descriptor, BTreeMap<Digest, u64>), RegistryError> {
    let wrong = |found: String| wrong(doing, wanted, found);
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|error| wrong(format!("a manifest that is none ({error})")))?;
    let kind = manifest.artifact_type.as_deref().unwrap_or(&manifest.config.media_type);
    if kind != wanted.artifact_type() || manifest.config.media_type != CONFIG_TYPE {
        let found = match [Kind::Save, Kind::Image].into_iter().find(|it| it.artifact_type() == kind) {
            Some(other) if other != wanted => format!("{} of quicksand's", other.with_article()),
            _ => format!("something of the type {kind:?}"),
        };
        return Err(wrong(found));
    }
    if let Some(layer) = manifest.layers.iter().find(|layer| layer.media_type != CHUNK_TYPE || layer.size > MOST_PACKED)
    {
        let Descriptor { media_type, digest, size, .. } = layer;
        return Err(wrong(format!("{digest} of {size} bytes and of the type {media_type:?}, which is no chunk")));
    }
    Ok((manifest.config, manifest.layers.into_iter().map(|layer| (layer.digest, layer.size)).collect()))
}

/// Reads a configuration, and sees to it that its files are those of a save or an image, made of chunks that are there.
pub(crate) fn parse_contents(
    doing: &str,
    text: &[u8],
    wanted: Kind,
    blobs: &BTreeMap<Digest, u64>,
) -> Result<Contents, RegistryError> {
    let wrong = |found: String| wrong(doing, wanted, found);
    let contents: Contents = versioned::from_json(text, 0..=VERSION).map_err(|unread| match unread {
        Unread::Version(version) => {
            wrong(format!("one of version {version}, and this quicksand reads up to {VERSION}; use a newer one"))
        }
        Unread::Malformed(error) => wrong(format!("a configuration that is none ({error})")),
    })?;
    if contents.kind != wanted {
        return Err(wrong(format!("{} of quicksand's", contents.kind.with_article())));
    }
    let image = format!("image/{}", Image::FILE);
    let (belongs, needed): (fn(&str) -> bool, _) = match wanted {
        Kind::Save => (is_of_a_warm_save, vec![MANIFEST.to_owned(), image]),
        Kind::Image => (is_of_an_image, vec![image]),
    };
    if let Some((path, why)) = fault(contents.files.iter().map(|file| &file.entry), belongs, &needed) {
        return Err(wrong(format!("one with the file {path:?}: {why}")));
    }
    // Whoever says so is not believed for as long as it takes to read so many zeros.
    let (total, packed) = (contents.files.iter().map(|file| file.entry.size).sum::<u64>(), blobs.values().sum::<u64>());
    if total > MODEST.max(packed.saturating_mul(MOST_TIMES)) {
        return Err(wrong(format!("{packed} bytes that unpack to {total}")));
    }
    for ChunkedFile { entry, chunks } in &contents.files {
        let too_large = is_frozen_devices(&entry.path) && entry.size > MOST_DEVICES;
        let mut end = 0;
        let misplaced = |chunk: &&Chunk| {
            let next = chunk.at.checked_add(chunk.size);
            let fits = (1..=CHUNK).contains(&chunk.size) && chunk.at >= end && next.is_some_and(|it| it <= entry.size);
            end = next.unwrap_or(u64::MAX);
            !fits || !blobs.contains_key(&chunk.blob)
        };
        if too_large {
            return Err(wrong(format!(
                "one with the file {:?} of {} bytes, more than {MOST_DEVICES}",
                entry.path, entry.size
            )));
        }
        if let Some(chunk) = chunks.iter().find(misplaced) {
            let Chunk { at, size, blob } = chunk;
            let path = &entry.path;
            return Err(wrong(format!("one whose file {path:?} has {blob} at {at}, {size} bytes, which does not fit")));
        }
    }
    Ok(contents)
}

fn wrong(doing: &str, wanted: Kind, found: String) -> RegistryError {
    let expected = format!("{} that quicksand pushed", wanted.with_article());
    RegistryError::Wrong { doing: doing.to_owned(), expected, found }
}

/// The part of a path in a warm state's directory, and that state's key.
pub(crate) fn in_state(path: &str) -> Option<(&str, &str)> {
    let (key, within) = path.strip_prefix("states/")?.split_once('/')?;
    let is_key = key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_key.then_some((key, within))
}

/// What is left out where memory is.
pub(crate) fn is_memory(path: &str) -> bool {
    path == "memory" || is_frozen_devices(path)
}

fn is_frozen_devices(path: &str) -> bool {
    let within = in_state(path).map_or(path, |(_, within)| within);
    ["devices", "video"].contains(&within)
}

fn is_of_a_warm_save(path: &str) -> bool {
    is_of_a_save(path) || is_memory(path)
}

fn is_of_an_image(path: &str) -> bool {
    match in_state(path) {
        Some((_, within)) => is_of_a_warm_save(within) && !within.starts_with("image/"),
        None => is_of_a_save(path) && path.starts_with("image/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::versioned::assert_pinned;

    fn maker() -> Maker {
        Maker { quicksand: "0".into(), agent: "a".into(), qemu: "7.2.0".into() }
    }

    fn file(path: &str, size: u64, chunks: &[(u64, u64)]) -> ChunkedFile {
        let entry = Entry { path: path.into(), size, sha256: String::new() };
        let chunks = chunks.iter().map(|&(at, size)| Chunk { at, size, blob: Digest::of(b"x") }).collect();
        ChunkedFile { entry, chunks }
    }

    fn read(kind: Kind, more: ChunkedFile) -> Result<Contents, String> {
        let mut files = vec![file("image/image.json", 5, &[(0, 5)]), more];
        if kind == Kind::Save {
            files.push(file("manifest.json", 5, &[]));
        }
        let contents = Contents::new(kind, "x", maker(), files);
        let text = serde_json::to_vec(&contents).unwrap();
        let blobs = BTreeMap::from([(Digest::of(b"x"), 9)]);
        let (_, read) =
            parse_manifest("pull x", &serde_json::to_vec(&contents.manifest(&text, &blobs)).unwrap(), kind).unwrap();
        assert_eq!(read, blobs);
        let read = parse_contents("pull x", &text, kind, &blobs).map_err(|error| error.to_string())?;
        assert_eq!(read, contents);
        Ok(read)
    }

    #[test]
    fn an_artifact_is_pinned() {
        let contents = Contents::new(Kind::Save, "x", maker(), vec![file("memory", 9, &[(0, 5)])]);
        let config = serde_json::to_string(&contents).unwrap();
        let chunk = Digest::of(b"x");
        let pinned = r#"{"version":1,"kind":"save","name":"x","maker":{"quicksand":"0","agent":"a","qemu":"7.2.0"},"files":[{"path":"memory","size":9,"sha256":"","chunks":[{"at":0,"size":5,"blob":"CHUNK"}]}]}"#;
        let pinned = pinned.replace("CHUNK", &chunk.to_string());
        assert_pinned("an artifact's configuration", "raise VERSION in artifact/format.rs", &pinned, &config);

        let manifest = serde_json::to_string(&contents.manifest(b"{}", &BTreeMap::from([(chunk, 9)]))).unwrap();
        let pinned = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.quicksand.save.v1","config":{"mediaType":"application/vnd.quicksand.config.v1+json","digest":"CONFIG","size":2},"layers":[{"mediaType":"application/vnd.quicksand.chunk.v1+gzip","digest":"CHUNK","size":9}],"annotations":{"org.opencontainers.image.title":"x"}}"#;
        let pinned =
            pinned.replace("CHUNK", &Digest::of(b"x").to_string()).replace("CONFIG", &Digest::of(b"{}").to_string());
        assert_pinned(
            "an artifact's manifest",
            "raise VERSION and the media types in artifact/format.rs",
            &pinned,
            &manifest,
        );
    }

    #[test]
    fn only_files_of_their_kind_are_read() {
        let key = "0123456789abcdef".repeat(2);
        let state = |within: &str| format!("states/{key}/{within}");
        for (path, in_save, in_image) in [
            ("memory", true, false),
            ("devices", true, false),
            ("layers/3.qcow2", true, false),
            ("image/kernel", true, true),
            (&state("memory"), false, true),
            (&state("manifest.json"), false, true),
            (&state("layers/0.qcow2"), false, true),
            (&state("image/kernel"), false, false),
            (&state("../memory"), false, false),
            ("states/x/memory", false, false),
            ("../memory", false, false),
        ] {
            assert_eq!(read(Kind::Save, file(path, 5, &[])).is_ok(), in_save, "{path}");
            assert_eq!(read(Kind::Image, file(path, 5, &[])).is_ok(), in_image, "{path}");
        }
    }

    #[test]
    fn chunks_stay_in_their_files() {
        let save = |size, chunks: &[(u64, u64)]| read(Kind::Save, file("memory", size, chunks));
        save(3 * CHUNK, &[(0, CHUNK), (2 * CHUNK, 5)]).unwrap();
        for wrong in [
            &[(0, CHUNK + 1)][..],
            &[(0, 0)],
            &[(3 * CHUNK, 1)],
            &[(u64::MAX, 2)],
            &[(5, 5), (9, 5)],
            &[(9, 5), (0, 5)],
        ] {
            let error = save(3 * CHUNK, wrong).unwrap_err();
            assert!(error.contains("\"memory\"") && error.contains("does not fit"), "{wrong:?}: {error}");
        }
        let error = read(Kind::Save, file("devices", MOST_DEVICES + 1, &[])).unwrap_err();
        assert!(error.contains("more than"), "{error}");
        let error = read(Kind::Save, file("layers/0.qcow2", u64::MAX, &[])).unwrap_err();
        assert!(error.contains("no disk holds so much"), "{error}");
    }

    #[test]
    fn what_is_something_else_is_told() {
        let contents = Contents::new(Kind::Image, "x", maker(), Vec::new());
        let manifest = contents.manifest(b"{}", &BTreeMap::new());
        let told = |manifest: &Manifest| {
            let text = serde_json::to_vec(manifest).unwrap();
            parse_manifest("pull x", &text, Kind::Save).unwrap_err().to_string()
        };
        let expected = "failed to pull x: expected a save that quicksand pushed, and an image of quicksand's came";
        assert_eq!(told(&manifest), expected);
        let mut other = manifest.clone();
        other.artifact_type = None;
        other.config.media_type = "application/vnd.oci.image.config.v1+json".into();
        assert!(told(&other).contains("something of the type \"application/vnd.oci.image.config.v1+json\""));
        let huge = BTreeMap::from([(Digest::of(b"x"), 1 << 60)]);
        let mut huge = contents.manifest(b"{}", &huge);
        huge.artifact_type = Some(Kind::Save.artifact_type().into());
        assert!(told(&huge).contains("1152921504606846976 bytes"), "{}", told(&huge));
        let later = br#"{"version": 9, "other": 1}"#;
        let error = parse_contents("pull x", later, Kind::Save, &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("version 9") && error.contains("use a newer one"), "{error}");
    }
}
