//! Downloads and registries through a proxy that the environment names. The servers have names that nobody can look up here, so
//! that there is no other way to them.

#[path = "oci/build.rs"]
#[allow(dead_code)]
mod build;
#[path = "../quicksand-fetch/tests/support/https_server.rs"]
mod https_server;
#[path = "../quicksand-fetch/tests/support/proxy.rs"]
mod proxy;

use std::{fs, path::Path, process::Command};

use build::{Image, Layer, Packing};
use https_server::{Served, Server};
use proxy::Proxy;
use quicksand::{Reporter, images};
use serde_json::json;

/// Has a test of this file that is ignored otherwise run with an environment of its own, outside of any project. Returns what it
/// printed.
fn child(name: &str, directory: &Path, server: &Server, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).current_dir(directory);
    for variable in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(variable).env_remove(variable.to_uppercase());
    }
    let output =
        command.env("SSL_CERT_FILE", server.certificate.path()).envs(variables.iter().copied()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{name}:\n{out}\n{err}");
    out.into_owned()
}

fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// Asks for an image by name, or for one in a registry, and says how that ended.
async fn ensure(name: &str) {
    let cache = images::Cache::from_environment().unwrap();
    match images::ensure(&cache, name, &Reporter::silent()).await {
        Ok(image) => {
            println!("got {}", image.origin().unwrap().source);
            let name = image.name().to_owned();
            drop(image);
            images::remove(&cache, &name).await.unwrap();
        }
        Err(error) => println!("failed to {}", told(&error)),
    }
}

#[tokio::test]
#[ignore = "run by another test"]
async fn child_asks_a_publisher() {
    ensure("alpine:3.22").await;
}

#[tokio::test]
#[ignore = "run by another test"]
async fn child_pulls() {
    ensure(&std::env::var("PULLED").unwrap()).await;
}

#[tokio::test]
async fn a_publisher_is_asked_through_the_proxy_of_its_scheme() {
    let server = Server::start();
    // Its publisher has no such version, which it says in its own words.
    server.serve("/alpine/v3.22/releases/cloud/", Served::bytes("<a href=\"other.qcow2\">other.qcow2</a>"));
    let (proxy, other) = (Proxy::to(server.port()), Proxy::to(server.port()));
    let temp = tempfile::tempdir().unwrap();
    let cache = temp.path().join("cache");
    let own = ("QUICKSAND_CACHE_DIR", cache.to_str().unwrap());
    let (url, other_url) = (proxy.url(), other.url());
    let asked = "CONNECT dl-cdn.alpinelinux.org:443 HTTP/1.1";
    for variable in ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        let said =
            child("child_asks_a_publisher", temp.path(), &server, &[own, (variable, &url), ("http_proxy", &other_url)]);
        assert!(said.contains("nocloud_alpine") && said.contains("dl-cdn.alpinelinux.org"), "{said}");
    }
    assert_eq!(proxy.asked(), [asked; 3]);
    assert_eq!(server.requests("/alpine/v3.22/releases/cloud/").len(), 3);
    let exempt = [own, ("HTTPS_PROXY", url.as_str()), ("NO_PROXY", "localhost,alpinelinux.org")];
    let said = child("child_asks_a_publisher", temp.path(), &server, &exempt);
    assert!(said.contains("failed to download https://dl-cdn.alpinelinux.org/"), "{said}");
    assert_eq!((proxy.asked().len(), other.asked().len()), (3, 0));
    let said = child("child_asks_a_publisher", temp.path(), &server, &[own, ("HTTPS_PROXY", "gopher://u:secret@x")]);
    assert!(said.contains("https_proxy") && !said.contains("secret"), "{said}");
}

#[tokio::test]
async fn a_registry_is_asked_through_the_proxy() {
    let server = Server::start();
    // What a tag means is remembered.
    let tag = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_string();
    let image = Image::new([(Layer::busybox().file("etc/unique", 0o644, &tag), Packing::Gzip)], json!({}));
    server.serve("/v2/", Served::bytes("{}"));
    server.serve(&format!("/v2/tools/busybox/manifests/{tag}"), Served::bytes(image.manifest.content.clone()));
    for blob in image.layers.iter().chain([&image.config]) {
        server.serve(&format!("/v2/tools/busybox/blobs/{}", blob.digest()), Served::bytes(blob.content.clone()));
    }
    let proxy = Proxy::to(server.port());
    let temp = tempfile::tempdir().unwrap();
    let (url, reference) = (proxy.url(), format!("oci:registry.test/tools/busybox:{tag}"));
    let pulled = ("PULLED", reference.as_str());
    let said = child("child_pulls", temp.path(), &server, &[pulled, ("HTTPS_PROXY", &url)]);
    assert!(said.contains(&format!("got the image registry.test/tools/busybox:{tag}")), "{said}");
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.iter().all(|line| line == "CONNECT registry.test:443 HTTP/1.1"), "{asked:?}");
    let exempt = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", ".test")];
    fs::create_dir(temp.path().join("own")).unwrap();
    let own = temp.path().join("own");
    let cache = ("QUICKSAND_CACHE_DIR", own.to_str().unwrap());
    let said = child("child_pulls", temp.path(), &server, &[pulled, exempt[0], exempt[1], cache]);
    assert!(said.contains("failed to log in to registry.test"), "{said}");
    assert_eq!(proxy.asked().len(), asked.len());
}
