//! `quicksand saves`: made by `run --save`, listed, carried elsewhere in one file, started there.

#[path = "../../tests/oci/server.rs"]
mod server;

use std::{
    path::Path,
    process::{Command, Output},
};

fn quicksand(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quicksand"));
    command.args(arguments).current_dir(directory).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(directory: &Path, arguments: &[&str]) -> String {
    let output = quicksand(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_save_is_made_listed_carried_and_started() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (here, there) = (here.path(), there.path());
    succeeds(here, &["run", "debian", "-q", "--save", "mine", "--", "sh", "-c", "echo kept > /root/mark"]);
    assert_eq!(succeeds(here, &["run", "mine", "-q", "--", "cat", "/root/mark"]), "kept\n");
    let listed = succeeds(here, &["saves", "list"]);
    assert!(listed.lines().nth(1).unwrap().starts_with("mine  debian  512 MiB  1     warm "), "{listed}");

    let file = there.join("mine.save");
    succeeds(here, &["saves", "export", "mine", file.to_str().unwrap()]);
    succeeds(there, &["saves", "import", "mine.save", "theirs"]);
    let shown: serde_json::Value =
        serde_json::from_str(&succeeds(there, &["saves", "show", "theirs", "--json"])).unwrap();
    assert_eq!((&shown["image"], &shown["has_memory"]), (&"debian".into(), &false.into()));
    assert_eq!(succeeds(there, &["run", "theirs", "-q", "--", "cat", "/root/mark"]), "kept\n");

    let removed = succeeds(here, &["saves", "remove", "mine"]);
    assert!(removed.starts_with("mine: freed "), "{removed}");
    let gone = quicksand(here, &["saves", "show", "mine"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).starts_with("quicksand: failed to "), "{}", text(&gone.stderr));
}

#[test]
fn a_save_is_pushed_and_starts_warm_elsewhere() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let registry = server::Server::start(|_| (String::new(), String::new()));
    let place = format!("{}/fleet/saves:mine", registry.host());
    succeeds(here.path(), &["run", "debian", "-q", "--save", "mine", "--", "sh", "-c", "echo kept > /root/mark"]);
    let pushed = succeeds(here.path(), &["saves", "push", "mine", &place]);
    let (repository, digest) = pushed.trim().split_once('@').unwrap();
    assert_eq!((repository, digest.len()), (place.strip_suffix(":mine").unwrap(), "sha256:".len() + 64));
    let blobs = registry.directory.path().join("data/docker/registry/v2/blobs/sha256");
    let digest = digest.trim_start_matches("sha256:");
    assert!(blobs.join(&digest[..2]).join(digest).is_dir(), "the manifest is there by its digest");

    // A clean cache of its own: all that a start needs came with the save.
    let elsewhere = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quicksand"));
        command.args(arguments).current_dir(there.path()).envs(variables.iter().copied());
        command.env("QUICKSAND_CACHE_DIR", there.path().join("cache")).output().unwrap()
    };
    let refused = elsewhere(&["saves", "pull", &place], &[("QUICKSAND_OFFLINE", "1")]);
    let said = text(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("QUICKSAND_OFFLINE forbids it"), "{said}");
    let pulled = elsewhere(&["saves", "pull", pushed.trim(), "theirs"], &[]);
    assert_eq!(text(&pulled.stdout), format!("theirs {}", pushed), "{}", text(&pulled.stderr));
    assert!(text(&pulled.stderr).contains("a machine's memory came along"), "{}", text(&pulled.stderr));
    let run = elsewhere(&["run", "theirs", "--", "cat", "/root/mark"], &[]);
    assert_eq!((text(&run.stdout).as_str(), text(&run.stderr).contains("boot")), ("kept\n", false), "{run:?}");
}
