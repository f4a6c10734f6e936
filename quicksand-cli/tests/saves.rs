//! `quicksand saves`: made by `run --save`, listed, carried elsewhere in one file, started there.

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
