//! A container image of ten layers, taken as an image.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use quicksand::{Reporter, images};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{Result, disks, results::Results};

pub(crate) const KEYS: [&str; 1] = ["import_oci_s"];

const LAYERS: usize = 10;
const FILES: usize = 400;
/// About that of a package's files, half of which is noise.
const FILE: usize = 40 << 10;

pub(crate) async fn measure(results: &mut Results) -> Result<()> {
    let cache = images::Cache::from_environment()?;
    let directory = tempfile::tempdir()?;
    let layout = directory.path().to_owned();
    tokio::task::spawn_blocking(move || write_layout(&layout)).await??;
    let name = format!("oci-layout:{}", disks::text(directory.path()));
    // The kernel that images without one share is there then.
    let first = images::ensure(&cache, &name, &Reporter::silent()).await?;
    let in_cache = first.name().to_owned();
    drop(first);
    images::remove(&cache, &in_cache).await?;
    let begun = Instant::now();
    images::ensure(&cache, &name, &Reporter::silent()).await?;
    results.add("import_oci_s", &[begun.elapsed().as_secs_f64()]);
    images::remove(&cache, &in_cache).await?;
    Ok(())
}

/// Writes the image as OCI lays one out in a directory.
fn write_layout(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory.join("blobs/sha256"))?;
    let (mut layers, mut archives) = (Vec::new(), Vec::new());
    for number in 0..LAYERS {
        let tree = tempfile::tempdir()?;
        if number == 0 {
            disks::busybox(tree.path());
        } else {
            fill(&tree.path().join(format!("data/{number}")), number)?;
        }
        let archive = tree.path().with_extension("tar");
        disks::run(
            "tar",
            &["-C", disks::text(tree.path()), "--owner=0", "--group=0", "-cf", disks::text(&archive), "."],
        );
        archives.push(format!("sha256:{}", digits(&fs::read(&archive)?)));
        let packed = Command::new("gzip").args(["-1", "-n", "-c"]).arg(&archive).stderr(Stdio::inherit()).output()?;
        fs::remove_file(&archive)?;
        layers.push(blob(directory, "application/vnd.oci.image.layer.v1.tar+gzip", &packed.stdout)?);
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({ "architecture": architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": archives } });
    let config = blob(directory, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    let manifest = blob(directory, MANIFEST, manifest.to_string().as_bytes())?;
    fs::write(directory.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())?;
    fs::write(directory.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
    Ok(())
}

/// Stores a blob and describes it.
fn blob(directory: &Path, media_type: &str, content: &[u8]) -> Result<serde_json::Value> {
    let digits = digits(content);
    fs::write(directory.join("blobs/sha256").join(&digits), content)?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digits}"), "size": content.len() }))
}

fn digits(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Files of which no two are alike, the same in every run.
fn fill(directory: &PathBuf, number: usize) -> Result<()> {
    fs::create_dir_all(directory)?;
    let mut state = number as u64;
    for file in 0..FILES {
        let mut content = vec![b'x'; FILE];
        for byte in &mut content[..FILE / 2] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 33) as u8;
        }
        fs::write(directory.join(file.to_string()), content)?;
    }
    Ok(())
}
