//! A fleet: what one host made is pushed to a registry, and another one, with a cache of its own, starts from that.

use std::{
    env, fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
};

use flate2::{Compression, write::GzEncoder};
use quicksand::{
    Reporter, Sandbox, Saves, WithMemory,
    images::{Cache, Image, pull, push},
    sandbox_setup, sandbox_test,
};
use serde_json::{Value, json};

use crate::{
    build::{self, Blob, Layer, Packing, digest},
    registry::Registry,
};

// What the children do, in a package and a cache of their own.

fn log(setup: &str) {
    let path = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("log");
    let lines = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, format!("{lines}{setup}\n")).unwrap();
}

#[sandbox_setup(image = "fleet-tools", save = "fleet-base")]
async fn fleet_base(sb: &Sandbox) {
    log("base");
    sb.execute("echo base > /root/layers; sleep 9999 </dev/null >/dev/null 2>&1 &").await.unwrap().check().unwrap();
}

#[sandbox_setup(from = "fleet-base", save = "fleet-top")]
async fn fleet_top(sb: &Sandbox) {
    log("top");
    sb.execute("echo top >> /root/layers").await.unwrap().check().unwrap();
}

#[sandbox_test(save = "fleet-top")]
#[ignore = "run by another test, in a package of its own"]
async fn child_on_top(sb: Sandbox) {
    let out = sb.execute("cat /root/layers; ps | grep -c '[9]999'").await.unwrap();
    assert_eq!(out.stdout, "base\ntop\n1\n", "the disk is that of both setups, and the process of one runs on");
}

#[sandbox_test(image = "fleet-tools")]
#[ignore = "run by another test, in a package of its own"]
async fn child_on_image(sb: Sandbox) {
    println!("unique {}", sb.execute("cat /etc/unique").await.unwrap().stdout);
}

#[tokio::test]
#[ignore = "run by another test, with a QEMU of its own"]
async fn child_pull() {
    let place = env::var("FLEET_PLACE").unwrap();
    let saves = Saves::at("saves");
    let pulled = saves.pull(&place, None, WithMemory::IfItFits, &Reporter::silent()).await.unwrap();
    println!("warm {}, has memory {}, left out: {:?}", pulled.warm, pulled.item.has_memory(), pulled.left_out);
}

/// One of the hosts.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let host = Host { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(host.package()).unwrap();
        fs::write(host.package().join("Cargo.toml"), "").unwrap();
        host
    }

    fn package(&self) -> PathBuf {
        self.directory.path().join("package")
    }

    fn cache(&self) -> Cache {
        Cache::at(&self.directory.path().join("cache")).unwrap()
    }

    fn saves(&self) -> Saves {
        Saves::at(self.package().join(".quicksand/sandboxes"))
    }

    /// Runs a test there. Returns what it told on its way, and which setups have run so far.
    fn test(&self, name: &str, variables: &[(&str, &str)]) -> (String, String) {
        let Output { status, stdout, stderr } = Command::new(env::current_exe().unwrap())
            .args([name, "--ignored", "--nocapture"])
            .current_dir(self.package())
            .env("CARGO_MANIFEST_DIR", self.package())
            .env("QUICKSAND_CACHE_DIR", self.directory.path().join("cache"))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        assert!(status.success() && text.contains("1 passed"), "{text}");
        (text, fs::read_to_string(self.package().join("log")).unwrap_or_default())
    }
}

#[tokio::test]
async fn what_one_host_made_others_start_from() {
    let quiet = Reporter::silent();
    let registry = Registry::start(false);
    let place = |tag: &str| format!("{}/fleet/ci:{tag}", registry.host());
    // The image of a container, so that it is small. Its warm state is in the cache that all tests share.
    let temp = tempfile::tempdir().unwrap();
    let layer = Layer::busybox().file("etc/unique", 0o644, "fleet");
    let container = build::Image::new([(layer, Packing::Gzip)], json!({}));
    container.write_layout(temp.path(), "x");
    Sandbox::builder(format!("oci-layout:{}", temp.path().display())).start().await.unwrap().stop().await.unwrap();
    let shared = Cache::from_environment().unwrap();
    let name = container.index().digest().replace("sha256:", "oci2-");
    let pushed = push(&shared, &name, &place("image"), WithMemory::IfItFits, &quiet).await.unwrap();
    assert!(pushed.warm >= 1 && pushed.left_out.is_none() && pushed.sent == pushed.size, "{pushed:?}");

    // One host takes the image, and makes saves of it, without a boot of its own.
    let one = Host::new();
    let pulled = pull(&one.cache(), &place("image"), Some("fleet-tools"), WithMemory::IfItFits, &quiet).await.unwrap();
    assert_eq!((pulled.item.name(), pulled.warm, &pulled.reference), ("fleet-tools", pushed.warm, &pushed.reference));
    assert_eq!(pulled.item.digest(), Image::find(&shared, &name).unwrap().unwrap().digest());
    let (told, setups) = one.test("child_on_top", &[]);
    assert_eq!(setups, "base\ntop\n", "{told}");
    assert!(!told.contains("quicksand: boot"), "{told}");
    for save in ["fleet-base", "fleet-top"] {
        let pushed = one.saves().push(save, &place(save), WithMemory::IfItFits, &quiet).await.unwrap();
        // The image went over before.
        assert!(pushed.warm == 1 && pushed.sent.bytes() < pushed.size.bytes() * 3 / 4, "{pushed:?}");
        let again = one.saves().push(save, &place(save), WithMemory::IfItFits, &quiet).await.unwrap();
        assert_eq!((again.sent.bytes(), &again.reference), (0, &pushed.reference));
    }

    // Another host takes all of it: its tests boot nothing, and run no setup.
    let two = Host::new();
    pull(&two.cache(), &place("image"), Some("fleet-tools"), WithMemory::IfItFits, &quiet).await.unwrap();
    for save in ["fleet-base", "fleet-top"] {
        let pulled = two.saves().pull(&place(save), None, WithMemory::IfItFits, &quiet).await.unwrap();
        assert_eq!((pulled.item.name(), pulled.item.has_memory(), pulled.warm), (save, true, 1));
    }
    let (told, setups) = two.test("child_on_top", &[]);
    assert!(setups.is_empty() && !told.contains("quicksand: boot") && !told.contains("slower start"), "{setups}{told}");
    let (told, _) = two.test("child_on_image", &[]);
    assert!(told.contains("unique fleet") && !told.contains("quicksand: boot"), "{told}");
    // What is here is not fetched again, and no other save is overwritten.
    let again = two.saves().pull(&place("fleet-top"), None, WithMemory::IfItFits, &quiet).await.unwrap();
    assert_eq!(again.fetched.bytes(), 0);
    let error = two.saves().pull(&place("fleet-top"), Some("fleet-base"), WithMemory::IfItFits, &quiet).await;
    assert!(matches!(error.unwrap_err(), quicksand::Error::SaveExists { .. }));
    let cold = two.saves().pull(&place("fleet-top"), Some("cold"), WithMemory::Never, &quiet).await.unwrap();
    assert_eq!((cold.warm, cold.item.has_memory(), cold.left_out.len()), (0, false, 1));
    // Its disk is that of the save that is here, so that next to nothing is fetched.
    assert!(cold.fetched.bytes() < 1 << 20, "{cold:?}");

    // A host with another QEMU is told why it will not start warm.
    let three = Host::new();
    let program = three.directory.path().join("qemu");
    fs::write(&program, "#!/bin/sh\necho QEMU emulator version 99.1.2\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let variables = [("QUICKSAND_QEMU", program.to_str().unwrap()), ("FLEET_PLACE", &place("fleet-top"))];
    let (told, _) = three.test("child_pull", &variables);
    assert!(told.contains("warm 0, has memory false, left out: [\"it was frozen by QEMU "), "{told}");
    assert!(told.contains("and this host has 99.1.2"), "{told}");
}

/// An artifact in the making, of files of a few bytes, that claims to be a save.
struct Artifact {
    config: Value,
    blobs: Vec<Blob>,
}

impl Artifact {
    fn new(files: &[(&str, &[u8])]) -> Artifact {
        let mut artifact = Artifact { config: json!(null), blobs: Vec::new() };
        let files: Vec<Value> = files.iter().map(|(path, content)| artifact.file(path, content)).collect();
        let maker = json!({ "quicksand": "0", "agent": "a", "qemu": "7.2.0" });
        artifact.config = json!({ "version": 1, "kind": "save", "name": "x", "maker": maker, "files": files });
        artifact
    }

    fn file(&mut self, path: &str, content: &[u8]) -> Value {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(content).unwrap();
        let blob =
            Blob { media_type: "application/vnd.quicksand.chunk.v1+gzip".into(), content: packed.finish().unwrap() };
        let chunk = json!({ "at": 0, "size": content.len(), "blob": blob.digest() });
        self.blobs.push(blob);
        json!({ "path": path, "size": content.len(), "sha256": digest(content)[7..], "chunks": [chunk] })
    }

    fn push(&self, registry: &Registry, tag: &str, change: impl FnOnce(&mut Value)) {
        let config = Blob {
            media_type: "application/vnd.quicksand.config.v1+json".into(),
            content: self.config.to_string().into_bytes(),
        };
        let descriptor =
            |blob: &Blob| json!({ "mediaType": blob.media_type, "digest": blob.digest(), "size": blob.content.len() });
        for blob in self.blobs.iter().chain([&config]) {
            registry.push_blob("x/y", blob);
        }
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "artifactType": "application/vnd.quicksand.save.v1",
            "config": descriptor(&config),
            "layers": self.blobs.iter().map(descriptor).collect::<Vec<_>>(),
        });
        change(&mut manifest);
        let manifest = Blob { media_type: media_type.into(), content: manifest.to_string().into_bytes() };
        registry.push_manifest("x/y", tag, &manifest);
    }
}

/// A save's manifest, as far as it is read before anything is pulled.
const MANIFEST: &[u8] =
    br#"{"version":1,"id":"i","image":"debian","machine":{"memory":536870912,"cpus":1,"accelerator":"tcg",
    "extra_arguments":[]},"machine_key":"k","layers":1,"user_network":false,"in_frame":false}"#;

#[tokio::test]
async fn what_is_hostile_leaves_nothing() {
    let registry = Registry::start(false);
    let host = Host::new();
    let files: [(&str, &[u8]); 3] =
        [("manifest.json", MANIFEST), ("image/image.json", b"{}"), ("layers/0.qcow2", &[7; 5000])];
    let refused = async |tag: &str| {
        let place = format!("{}/x/y:{tag}", registry.host());
        let error = host.saves().pull(&place, None, WithMemory::IfItFits, &Reporter::silent()).await.unwrap_err();
        let left: Vec<_> = fs::read_dir(host.package().join(".quicksand/sandboxes")).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        let mut text = error.to_string();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(next) = cause.source() {
            text = format!("{text}: {next}");
            cause = next;
        }
        assert!(text.contains(&format!("{}/x/y", registry.host())), "it names the place: {text}");
        text
    };

    // Well formed, and no save after all: another build of quicksand's, so that its memory is left out, and then no image.
    Artifact::new(&files).push(&registry, "form", |_| {});
    let text = refused("form").await;
    assert!(text.contains("image/image.json is refused"), "{text}");

    // Paths that lead elsewhere, sizes that no disk has, chunks that are not there or are none.
    let with = |change: &dyn Fn(&mut Value)| {
        let mut artifact = Artifact::new(&files);
        change(&mut artifact.config["files"][2]);
        artifact
    };
    with(&|file| file["path"] = "../../../etc/cron.d/x".into()).push(&registry, "path", |_| {});
    assert!(refused("path").await.contains("no save has a file of that name"));
    with(&|file| file["size"] = (u64::MAX / 2).into()).push(&registry, "size", |_| {});
    with(&|file| file["size"] = (1u64 << 62).into()).push(&registry, "sparse", |_| {});
    assert!(refused("size").await.contains("no disk holds so much"));
    assert!(refused("sparse").await.contains("bytes that unpack to 46116860184"));
    with(&|file| file["chunks"][0]["at"] = u64::MAX.into()).push(&registry, "at", |_| {});
    assert!(refused("at").await.contains("does not fit"));
    with(&|file| file["chunks"][0]["blob"] = digest(b"nowhere").into()).push(&registry, "blob", |_| {});
    assert!(refused("blob").await.contains("does not fit"));
    // More than it says, less, and something else.
    with(&|file| (file["size"], file["chunks"][0]["size"]) = (4999.into(), 4999.into())).push(
        &registry,
        "bomb",
        |_| {},
    );
    assert!(refused("bomb").await.contains("unpacks to more than 4999 bytes"));
    with(&|file| file["sha256"] = digest(b"x")[7..].into()).push(&registry, "other", |_| {});
    assert!(refused("other").await.contains("another SHA-256 than its index says"));
    Artifact::new(&files).push(&registry, "huge", |manifest| manifest["config"]["size"] = (1u64 << 40).into());
    assert!(refused("huge").await.contains("at most 4194304 bytes, and 1099511627776 came"));
    // What others put into registries.
    Artifact::new(&files).push(&registry, "kind", |manifest| {
        manifest.as_object_mut().unwrap().remove("artifactType");
        manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    });
    assert!(refused("kind").await.contains("a save that quicksand pushed, and something of the type"));
    assert!(refused("none").await.contains("no such thing"));

    // A registry whose disk has rotten, or that lies.
    let artifact = Artifact::new(&files);
    artifact.push(&registry, "rotten", |_| {});
    let stored = registry.stored(&artifact.blobs[2]);
    let mut content = fs::read(&stored).unwrap();
    content[10] ^= 1;
    fs::write(&stored, &content).unwrap();
    let text = refused("rotten").await;
    let (expected, found) = (artifact.blobs[2].digest(), digest(&content));
    assert!(text.contains(&format!("expected {expected}, and {found} came")), "{text}");
    fs::write(&stored, &content[..content.len() - 1]).unwrap();
    let text = refused("rotten").await;
    assert!(text.contains(&expected), "{text}");
}
