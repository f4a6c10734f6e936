//! Images by name: found at a publisher's, fetched, verified, imported, locked. The publisher is a server on the loopback interface
//! that has the layout of a real one, and a disk with a partition table and another system on it.

#[path = "foreign_guests/disks.rs"]
mod disks;
#[path = "../quicksand-core/tests/support/gpg.rs"]
mod gpg;
#[path = "../quicksand-fetch/tests/support/https_server.rs"]
mod https_server;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use gpg::Publisher;
use https_server::{Served, Server};
use quicksand::{Sandbox, StartKind, images};
use sha2::{Digest, Sha256};

const PUBLISHER: &str = "/cloud-images.ubuntu.com/releases/24.04";
const FILE: &str = "ubuntu-24.04-server-cloudimg-amd64.img";

/// A cache of this test's own, since what it fetches is not what its name says. It has the user's `debian` already.
fn own_cache() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("catalogue-cache");
    let target = cache.join("images/debian");
    if !target.exists() {
        let users = images::Cache::from_environment().unwrap().root().join("images/debian");
        let unfinished = cache.join("images/.new-debian");
        let _ = fs::remove_dir_all(&unfinished);
        link_tree(&users, &unfinished);
        fs::rename(unfinished, target).unwrap();
    }
    cache
}

fn link_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() {
            link_tree(&from, &to);
        } else if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// Puts a disk where the publisher has the release of a day.
fn publish(server: &Server, publisher: &Publisher, days: &[&str], disk: &Path) -> String {
    let day = days.last().unwrap();
    let listing: String = days.iter().map(|day| format!("<a href=\"release-{day}/\">release-{day}/</a>\n")).collect();
    server.serve(&format!("{PUBLISHER}/"), Served::bytes(format!("<html>{listing}<a href=\"release/\">x</a></html>")));
    let digest: String = Sha256::digest(fs::read(disk).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    let directory = format!("{PUBLISHER}/release-{day}");
    let list = format!("{digest} *{FILE}\n");
    server.serve(&format!("{directory}/SHA256SUMS.gpg"), Served::bytes(publisher.sign(&list, "--detach-sign")));
    server.serve(&format!("{directory}/SHA256SUMS"), Served::bytes(list));
    server.serve(&format!("{directory}/{FILE}"), Served::file(disk));
    digest
}

/// Runs a test of this file that is ignored otherwise, as a user's test in a project of theirs.
fn in_project(name: &str, project: &Path, variables: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .current_dir(project)
        .env("QUICKSAND_CACHE_DIR", own_cache())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{name}:\n{out}\n{err}");
}

#[tokio::test]
#[ignore = "run by another test"]
async fn child_starts_ubuntu() {
    let sandbox = Sandbox::builder("ubuntu").start().await.unwrap_or_else(|error| panic!("failed to {error}"));
    let release = sandbox.execute("cat /etc/os-release").await.unwrap().stdout;
    assert!(release.contains("VERSION_CODENAME=trixie"), "{release}");
    assert!(sandbox.execute("mount").await.unwrap().stdout.contains("/dev/vda2 on / type ext4"));
    let state = sandbox.execute("systemctl is-system-running").await.unwrap().stdout;
    assert_eq!(state, "running\n", "{}", sandbox.execute("systemctl --failed").await.unwrap().stdout);
    sandbox.stop().await.unwrap();
}

#[tokio::test]
#[ignore = "run by another test"]
async fn child_starts_ubuntu_warm() {
    let sandbox = Sandbox::builder("ubuntu:24.04").start().await.unwrap_or_else(|error| panic!("failed to {error}"));
    assert_eq!(sandbox.start_report().unwrap().kind, StartKind::Warm);
    assert!(sandbox.execute("cat /etc/os-release").await.unwrap().stdout.contains("trixie"));
    sandbox.stop().await.unwrap();
}

#[tokio::test]
#[ignore = "run by another test"]
async fn child_updates() {
    let cache = images::Cache::from_environment().unwrap();
    let updates = images::update(&cache, &[], &quicksand::Reporter::silent()).await.unwrap();
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].name, "ubuntu:24.04");
    assert!(updates[0].before.as_ref().unwrap().source.contains("release-20250101/"));
    assert!(updates[0].after.source.contains("release-20250202/"));
    let trust = updates[0].after.trust.clone().unwrap();
    assert!(trust.starts_with("signature of "), "{trust}");
    let names: Vec<_> = images::list(&cache).unwrap().iter().map(|info| info.image.name().to_owned()).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("ubuntu:24.04-")).count(), 2, "{names:?}");
    let sandbox = Sandbox::builder("ubuntu").start().await.unwrap_or_else(|error| panic!("failed to {error}"));
    assert_eq!(sandbox.execute("uname -n").await.unwrap().stdout, "tiny\n");
    sandbox.stop().await.unwrap();
    for name in names.iter().filter(|name| name.starts_with("ubuntu:24.04-")) {
        let info = images::show(&cache, name).unwrap().unwrap();
        assert!(info.bytes > 1 << 20);
        assert_eq!(info.image.origin().unwrap().trust.as_ref(), Some(&trust));
        drop(info);
        images::remove(&cache, name).await.unwrap();
        assert!(images::show(&cache, name).unwrap().is_none());
    }
}

#[tokio::test]
#[ignore = "run by another test"]
async fn child_fails_as_the_lock_says() {
    let error = Sandbox::builder("ubuntu").start().await.unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    assert!(text.contains("quicksand.lock") && text.contains("images update ubuntu:24.04"), "{text}");
    assert!(text.contains("release-20250101/ubuntu-24.04-server-cloudimg-amd64.img"), "{text}");
    assert!(text.contains("expected sha256:") && text.contains(" came"), "{text}");
}

/// A Debian of another release, as its publisher would give it out: a qcow2 with a partition table, and all that boots it inside.
async fn trixie() -> PathBuf {
    let name = "trixie.qcow2";
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("disks").join(name);
    if path.exists() {
        return path;
    }
    let cache = images::Cache::from_environment().unwrap();
    let image = images::ensure(&cache, "debian:13", &quicksand::Reporter::silent()).await;
    let image = image.unwrap_or_else(|error| panic!("failed to {error}"));
    disks::once(name, |path| {
        let temp = tempfile::tempdir_in(path.parent().unwrap()).unwrap();
        let (raw, disk) = (temp.path().join("root"), temp.path().join("disk"));
        let convert = |from: &Path, to: &Path, kinds: [&str; 2]| {
            disks::run("qemu-img", &["convert", "-f", kinds[0], "-O", kinds[1], disks::text(from), disks::text(to)]);
        };
        convert(&image.disk(), &raw, ["qcow2", "raw"]);
        disks::partitioned(&raw, &disk);
        convert(&disk, path, ["raw", "qcow2"]);
    })
}

#[tokio::test]
async fn a_name_is_found_fetched_locked_and_moved_on() {
    // The image that all others are read with, in the user's own cache.
    let cache = images::Cache::from_environment().unwrap();
    images::ensure(&cache, "debian", &quicksand::Reporter::silent()).await.unwrap();
    let disk = trixie().await;
    let (server, publisher) = (Server::start(), Publisher::new("Publisher"));
    let digest = publish(&server, &publisher, &["20241231", "20250101"], &disk);
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("Cargo.toml"), "[package]\nname = \"x\"\n").unwrap();
    fs::copy(publisher.armored_keyring(), project.path().join("ubuntu.asc")).unwrap();
    fs::write(project.path().join("quicksand.toml"), "[images.keyrings]\nubuntu = \"ubuntu.asc\"\n").unwrap();
    let signed = format!("trust = \"signature of {}\"", publisher.fingerprint());
    let mirror = server.url("");
    let trusted = server.certificate.path().to_str().unwrap().to_owned();
    let online = [("QUICKSAND_MIRROR", mirror.as_str()), ("SSL_CERT_FILE", trusted.as_str())];

    in_project("child_starts_ubuntu", project.path(), &online);
    let lock = fs::read_to_string(project.path().join("quicksand.lock")).unwrap();
    let url = format!("https:/{PUBLISHER}/release-20250101/{FILE}");
    assert!(lock.contains(&format!("source = \"{url}\"")) && lock.contains(&format!("digest = \"sha256:{digest}\"")));
    assert!(lock.contains(&signed), "{lock}");
    // Nothing is asked of anybody any more.
    let asked = server.requests(&format!("{PUBLISHER}/")).len();
    in_project("child_starts_ubuntu_warm", project.path(), &[("QUICKSAND_OFFLINE", "1")]);

    let tiny = disks::once("tiny.raw", |path| {
        let tree = tempfile::tempdir().unwrap();
        disks::busybox(tree.path());
        disks::ext4(tree.path(), path, "32M");
    });
    publish(&server, &publisher, &["20250101", "20250202"], &tiny);
    in_project("child_starts_ubuntu_warm", project.path(), &online);
    assert_eq!(server.requests(&format!("{PUBLISHER}/")).len(), asked);
    let before = fs::read_to_string(project.path().join("quicksand.lock")).unwrap();
    assert_eq!(before, lock);
    in_project("child_updates", project.path(), &online);

    // The publisher has something else under the same name now, and the cache has lost what it had.
    fs::write(project.path().join("quicksand.lock"), &lock).unwrap();
    server.serve(&format!("{PUBLISHER}/release-20250101/{FILE}"), Served::file(tiny));
    in_project("child_fails_as_the_lock_says", project.path(), &online);
}
