//! `image.json`: what an image's directory holds. It is written last; without it there is no image.

use std::path::{Component, Path, PathBuf};

use quicksand_protocol::message::Exec;
use serde::{Deserialize, Serialize};

use crate::base::versioned::{self, Unread};

/// The file's name in the image's directory.
pub(crate) const FILE: &str = "image.json";
/// The version that this code writes, and the only one that it reads: another one's image is made anew.
const VERSION: u32 = 1;

/// What `image.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) version: u32,
    /// The SHA-256 of the disk's file, in hexadecimal digits.
    pub(crate) digest: String,
    /// The disk, a qcow2.
    pub(crate) disk: StoredFile,
    /// What the guest sees as its size, in bytes.
    pub(crate) disk_size: u64,
    /// The root file system, as the kernel names its kind: `ext4`.
    pub(crate) file_system: String,
    /// Where on the disk it is.
    #[serde(default)]
    pub(crate) root: Root,
    /// Where the image is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<Origin>,
    /// How programs are run in it.
    #[serde(default, skip_serializing_if = "Defaults::is_empty")]
    pub(crate) defaults: Defaults,
    /// The kernel.
    pub(crate) kernel: StoredFile,
    /// Whether the kernel is not one of the disk's: it is lent, or lies beside the disk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) lent_kernel: bool,
    /// Its modules, in the order to load them.
    pub(crate) modules: Vec<StoredFile>,
}

/// A kernel and its modules in an image's directory.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) kernel: StoredFile,
    /// Whether the kernel is not from the disk that it boots.
    pub(crate) lent: bool,
    pub(crate) modules: Vec<StoredFile>,
}

/// Where a disk's root file system is, as its guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    /// `/dev/vda` where it is all of the disk, `/dev/vda1` where it is the first partition.
    pub(crate) device: String,
    /// What it is mounted with: `subvol=root`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) flags: String,
}

/// How programs of an image are run unless a command says otherwise, as the image has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Defaults {
    /// Variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) environment: Vec<(String, String)>,
    /// The working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<String>,
}

impl Defaults {
    fn is_empty(&self) -> bool {
        *self == Defaults::default()
    }
}

/// Where an image is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// A URL, a path or a kind of build.
    pub source: String,
    /// What was there at that time, as an algorithm and hexadecimal digits: `sha256:…`. None of a build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Why that digest is believed, of what came from a publisher: `signature of` a key's fingerprint, or `TLS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
    /// When it was taken, as seconds since 1970.
    pub time: u64,
}

/// A file in the image's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredFile {
    /// Relative to the directory.
    pub(crate) path: PathBuf,
    /// In bytes.
    pub(crate) size: u64,
}

/// Why a file is not metadata.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("read it: it has version {0}, and this quicksand reads version {VERSION}")]
    Version(u32),
    #[error("read it: {0}")]
    Unreadable(serde_json::Error),
    #[error("take its path {}: it leads out of the image", .0.display())]
    Outside(PathBuf),
    #[error("mount its root file system {0:?}: a device of the guest's and its options have no such characters")]
    Root(String),
}

impl Default for Root {
    fn default() -> Root {
        Root { device: "/dev/vda".into(), flags: String::new() }
    }
}

impl Root {
    /// Its parts are words of a kernel's command line.
    fn is_plain(&self) -> bool {
        let plain = |text: &str, more: &[u8]| text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
        self.device.starts_with("/dev/vda") && plain(&self.device[5..], b"") && plain(&self.flags, b"=,./@_-:")
    }
}

impl Metadata {
    /// That of an image whose disk is one file system and nothing else.
    pub(crate) fn new(
        digest: String,
        disk: (StoredFile, u64),
        file_system: &str,
        Boot { kernel, lent: lent_kernel, modules }: Boot,
    ) -> Metadata {
        let ((disk, disk_size), file_system) = (disk, file_system.to_owned());
        let (version, root, origin, defaults) = (VERSION, Root::default(), None, Defaults::default());
        Metadata { version, digest, disk, disk_size, file_system, root, origin, defaults, kernel, lent_kernel, modules }
    }

    pub(crate) fn parse(text: &[u8]) -> Result<Metadata, MetadataError> {
        let metadata: Metadata = versioned::from_json(text, VERSION..=VERSION).map_err(|unread| match unread {
            Unread::Version(found) => MetadataError::Version(found),
            Unread::Malformed(error) => MetadataError::Unreadable(error),
        })?;
        if !metadata.root.is_plain() || !metadata.file_system.bytes().all(|b| b.is_ascii_alphanumeric()) {
            let Root { device, flags } = metadata.root;
            return Err(MetadataError::Root(format!("{} {device} {flags}", metadata.file_system)));
        }
        let outside = metadata.files().find(|file| !is_inside(&file.path)).map(|file| file.path.clone());
        outside.map_or(Ok(metadata), |path| Err(MetadataError::Outside(path)))
    }

    /// The same but for where it is from.
    pub(crate) fn without_origin(&self) -> Metadata {
        Metadata { origin: None, ..self.clone() }
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }

    /// All files that belong to the image.
    pub(crate) fn files(&self) -> impl Iterator<Item = &StoredFile> {
        [&self.disk, &self.kernel].into_iter().chain(&self.modules)
    }
}

fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_))) && path.file_name().is_some()
}

/// Adds what the image says of how its programs are run. What the command itself says goes before.
pub(crate) fn add_defaults(exec: &mut Exec, defaults: &Defaults) {
    let bytes = |text: &String| text.clone().into_bytes();
    let variables = defaults.environment.iter().map(|(name, value)| (bytes(name), bytes(value)));
    exec.env.splice(0..0, variables);
    if exec.current_dir.is_none() {
        exec.current_dir = defaults.directory.as_ref().map(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::versioned::assert_pinned;

    fn metadata() -> Metadata {
        let file = |path: &str, size| StoredFile { path: path.into(), size };
        let modules = vec![file("modules/00-virtio.ko", 7), file("modules/01-fuse.ko", 8)];
        let boot = Boot { kernel: file("kernel", 6), lent: false, modules };
        Metadata::new("ab".into(), (file("disk.qcow2", 5), 10), "ext4", boot)
    }

    #[test]
    fn it_is_pinned() {
        let mut metadata = metadata();
        metadata.root.flags = "subvol=root".into();
        metadata.origin =
            Some(Origin { source: "s".into(), digest: Some("d".into()), trust: Some("TLS".into()), time: 9 });
        metadata.defaults = Defaults { environment: vec![("K".into(), "v".into())], directory: Some("/srv".into()) };
        metadata.lent_kernel = true;
        let pinned = r#"{"version":1,"digest":"ab","disk":{"path":"disk.qcow2","size":5},"disk_size":10,"file_system":"ext4","root":{"device":"/dev/vda","flags":"subvol=root"},"origin":{"source":"s","digest":"d","trust":"TLS","time":9},"defaults":{"environment":[["K","v"]],"directory":"/srv"},"kernel":{"path":"kernel","size":6},"lent_kernel":true,"modules":[{"path":"modules/00-virtio.ko","size":7},{"path":"modules/01-fuse.ko","size":8}]}"#;
        let now = serde_json::to_string(&metadata).unwrap();
        assert_pinned("an image's image.json", "raise VERSION in metadata.rs", pinned, &now);
        assert_eq!(Metadata::parse(pinned.as_bytes()).unwrap(), metadata);
    }

    #[test]
    fn what_is_written_is_read() {
        let metadata = metadata();
        assert_eq!(Metadata::parse(&metadata.to_json().unwrap()).unwrap(), metadata);
        assert_eq!(metadata.files().map(|file| file.size).collect::<Vec<_>>(), [5, 6, 7, 8]);
    }

    #[test]
    fn a_higher_version_is_told_whatever_else_it_holds() {
        let error = Metadata::parse(br#"{"version": 2, "disk": ["other", "shape"]}"#).unwrap_err();
        assert!(matches!(error, MetadataError::Version(2)), "{error}");
    }

    #[test]
    fn garbage_is_an_error() {
        let whole = metadata().to_json().unwrap();
        for text in
            [&b""[..], b"\0\xff", b"[]", b"{}", br#"{"version": "1"}"#, br#"{"version": 1}"#, &whole[..whole.len() / 2]]
        {
            let error = Metadata::parse(text).unwrap_err();
            assert!(matches!(error, MetadataError::Unreadable(_)), "{error}");
        }
    }

    #[test]
    fn an_image_without_a_word_on_its_root_has_all_of_the_disk() {
        let mut json: serde_json::Value = serde_json::from_slice(&metadata().to_json().unwrap()).unwrap();
        json.as_object_mut().unwrap().remove("root");
        let root = Metadata::parse(json.to_string().as_bytes()).unwrap().root;
        assert_eq!((root.device.as_str(), root.flags.as_str()), ("/dev/vda", ""));
    }

    #[test]
    fn an_image_without_a_word_on_its_kernel_has_its_own() {
        let own = metadata();
        let text = String::from_utf8(own.to_json().unwrap()).unwrap();
        assert!(!text.contains("lent_kernel") && !Metadata::parse(text.as_bytes()).unwrap().lent_kernel);
        let lent = Metadata { lent_kernel: true, ..own };
        assert_eq!(Metadata::parse(&lent.to_json().unwrap()).unwrap(), lent);
    }

    #[test]
    fn a_root_is_no_way_to_the_command_line() {
        let mut good = metadata();
        good.root = Root { device: "/dev/vda3".into(), flags: "subvol=@/.snapshots/1/snapshot".into() };
        assert_eq!(Metadata::parse(&good.to_json().unwrap()).unwrap(), good);
        for (device, flags) in [("/dev/sda", ""), ("/dev/vda init=/bin/sh", ""), ("/dev/vda", "a b"), ("", "")] {
            let mut metadata = metadata();
            metadata.root = Root { device: device.into(), flags: flags.into() };
            let error = Metadata::parse(&metadata.to_json().unwrap()).unwrap_err();
            assert!(matches!(error, MetadataError::Root(_)), "{error}");
        }
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["/etc/passwd", "../disk.qcow2", "modules/../../x", "", "."] {
            let mut metadata = metadata();
            metadata.modules[1].path = path.into();
            let error = Metadata::parse(&metadata.to_json().unwrap()).unwrap_err();
            assert!(matches!(error, MetadataError::Outside(_)), "{path}: {error}");
        }
    }
}
