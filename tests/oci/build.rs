//! Container images for tests, made of nothing but busybox.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Where Debian's package busybox-static and its kin have it.
const BUSYBOX: [&str; 2] = ["/usr/bin/busybox", "/bin/busybox"];
const APPLETS: [&str; 17] = [
    "sh", "true", "cat", "echo", "ls", "stat", "env", "pwd", "id", "find", "ps", "sleep", "readlink", "uname", "mount",
    "test", "head",
];

/// The program of many names, which needs nothing else.
pub(crate) fn busybox() -> Vec<u8> {
    BUSYBOX.iter().find_map(|path| fs::read(path).ok()).expect("install busybox-static")
}

/// A layer's archive in the making. All in it belongs to root unless a test says otherwise.
pub(crate) struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Layer {
        Layer(Builder::new(Vec::new()))
    }

    /// A layer that a shell and what it runs need.
    pub(crate) fn busybox() -> Layer {
        let mut layer = Layer::new();
        for directory in ["bin/", "etc/", "root/", "sbin/", "usr/", "var/"] {
            layer = layer.directory(directory, 0o755);
        }
        layer = layer.directory("tmp/", 0o1777).file("bin/busybox", 0o755, busybox());
        for applet in APPLETS {
            layer = layer.link(EntryType::Link, &format!("bin/{applet}"), "bin/busybox");
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n";
        layer.file("etc/passwd", 0o644, passwd).file("etc/group", 0o644, "root:x:0:\napp:x:1000:\n")
    }

    pub(crate) fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Layer {
        self.owned_file(path, mode, 0, content)
    }

    pub(crate) fn owned_file(mut self, path: &str, mode: u32, owner: u64, content: impl AsRef<[u8]>) -> Layer {
        let mut header = header(EntryType::Regular, mode, owner);
        header.set_size(content.as_ref().len() as u64);
        self.0.append_data(&mut header, path, content.as_ref()).unwrap();
        self
    }

    pub(crate) fn directory(mut self, path: &str, mode: u32) -> Layer {
        self.0.append_data(&mut header(EntryType::Directory, mode, 0), path, &b""[..]).unwrap();
        self
    }

    pub(crate) fn link(mut self, kind: EntryType, path: &str, target: &str) -> Layer {
        self.0.append_link(&mut header(kind, 0o777, 0), path, target).unwrap();
        self
    }

    /// Extended attributes of the next entry.
    pub(crate) fn attribute(mut self, name: &str, value: &[u8]) -> Layer {
        self.0.append_pax_extensions([(format!("SCHILY.xattr.{name}").as_str(), value)]).unwrap();
        self
    }

    /// An entry of any name, also one that the crate `tar` refuses to write.
    pub(crate) fn raw(mut self, path: &str) -> Layer {
        let mut header = header(EntryType::Regular, 0o644, 0);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(0);
        header.set_cksum();
        self.0.append(&header, &b""[..]).unwrap();
        self
    }

    pub(crate) fn into_archive(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn header(kind: EntryType, mode: u32, owner: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(1_700_000_000);
    header.set_size(0);
    header
}

/// How a layer is stored.
#[derive(Clone, Copy)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    pub(crate) fn pack(self, archive: &[u8]) -> Vec<u8> {
        match self {
            Packing::Plain => archive.to_vec(),
            Packing::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(archive).unwrap();
                encoder.finish().unwrap()
            }
            Packing::Zstd => ruzstd::encoding::compress_to_vec(archive, ruzstd::encoding::CompressionLevel::Fastest),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Packing::Plain => "application/vnd.oci.image.layer.v1.tar",
            Packing::Gzip => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A blob with its digest.
pub(crate) struct Blob {
    pub(crate) media_type: String,
    pub(crate) content: Vec<u8>,
}

impl Blob {
    pub(crate) fn json(media_type: &str, value: &Value) -> Blob {
        Blob { media_type: media_type.into(), content: serde_json::to_vec(value).unwrap() }
    }

    pub(crate) fn digest(&self) -> String {
        digest(&self.content)
    }

    pub(crate) fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.content.len() })
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// An image in memory.
pub(crate) struct Image {
    pub(crate) archives: Vec<Vec<u8>>,
    pub(crate) layers: Vec<Blob>,
    pub(crate) config: Blob,
    pub(crate) manifest: Blob,
}

impl Image {
    /// An image of layers from the bottom up. `config` is what its configuration says of how programs are run.
    pub(crate) fn new(layers: impl IntoIterator<Item = (Layer, Packing)>, config: Value) -> Image {
        let (mut archives, mut blobs) = (Vec::new(), Vec::new());
        for (layer, packing) in layers {
            let archive = layer.into_archive();
            blobs.push(Blob { media_type: packing.media_type().into(), content: packing.pack(&archive) });
            archives.push(archive);
        }
        let diff_ids: Vec<_> = archives.iter().map(|archive| digest(archive)).collect();
        let config = json!({
            "os": "linux",
            "architecture": "amd64",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = Blob::json("application/vnd.oci.image.config.v1+json", &config);
        let manifest = Image::manifest_of(&config, &blobs);
        Image { archives, layers: blobs, config, manifest }
    }

    pub(crate) fn manifest_of(config: &Blob, layers: &[Blob]) -> Blob {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let layers: Vec<_> = layers.iter().map(Blob::descriptor).collect();
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": media_type, "config": config.descriptor(), "layers": layers });
        Blob::json(media_type, &manifest)
    }

    /// A manifest for a machine that nobody has.
    pub(crate) fn other_manifest(&self) -> Blob {
        let mut manifest: Value = serde_json::from_slice(&self.manifest.content).unwrap();
        manifest["annotations"] = json!({ "for": "another machine" });
        Blob::json(&self.manifest.media_type, &manifest)
    }

    /// An index of both manifests.
    pub(crate) fn index(&self) -> Blob {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let entry = |manifest: &Blob, architecture| {
            let mut entry = manifest.descriptor();
            entry["platform"] = json!({ "os": "linux", "architecture": architecture });
            entry
        };
        let manifests = [entry(&self.other_manifest(), "s390x"), entry(&self.manifest, "amd64")];
        Blob::json(media_type, &json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests }))
    }

    /// Writes it as a layout in a directory, under that name.
    pub(crate) fn write_layout(&self, directory: &Path, name: &str) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let index = self.index();
        for blob in self.layers.iter().chain([&self.config, &self.manifest, &index]) {
            fs::write(blobs.join(&blob.digest()["sha256:".len()..]), &blob.content).unwrap();
        }
        let path = directory.join("index.json");
        let mut all: Vec<Value> = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes).unwrap()["manifests"].as_array().unwrap().clone(),
            Err(_) => Vec::new(),
        };
        let mut own = index.descriptor();
        own["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        all.push(own);
        fs::write(&path, json!({ "schemaVersion": 2, "manifests": all }).to_string()).unwrap();
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }

    /// Writes it as `docker save` did for years: layers in directories of their own, one of which may be a link to another.
    pub(crate) fn write_docker_archive(&self, path: &Path, tag: &str) {
        let mut archive = Builder::new(fs::File::create(path).unwrap());
        let mut add = |name: &str, content: &[u8]| {
            let mut header = header(EntryType::Regular, 0o644, 0);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content).unwrap();
        };
        let mut names = Vec::new();
        for (number, content) in self.archives.iter().enumerate() {
            names.push(format!("{number}/layer.tar"));
            add(&names[number], content);
        }
        let config = format!("{}.json", &self.config.digest()["sha256:".len()..]);
        add(&config, &self.config.content);
        let manifest = json!([{ "Config": config, "RepoTags": [tag], "Layers": names }]);
        add("manifest.json", manifest.to_string().as_bytes());
        archive.finish().unwrap();
    }

    /// The blob of that number in a layout.
    pub(crate) fn layer_path(&self, layout: &Path, number: usize) -> PathBuf {
        layout.join("blobs/sha256").join(&self.layers[number].digest()["sha256:".len()..])
    }
}
