//! `quicksand cache-key`: the same for the same, and another one for anything else.

use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

fn key(directory: &Path, inputs: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quicksand"));
    command.arg("cache-key").args(inputs).current_dir(directory).env("QUICKSAND_ACCEL", "tcg");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_part_counts() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("Cargo.toml"), "").unwrap();
    fs::create_dir(path("setups")).unwrap();
    fs::write(path("setups/install.sh"), "one").unwrap();
    let key = |inputs: &[&str], variables: &[(&str, &str)]| key(directory.path(), inputs, variables);

    let plain = key(&[], &[]);
    assert_eq!((plain.len(), plain.trim().bytes().all(|byte| byte.is_ascii_hexdigit())), (33, true), "{plain:?}");
    // Where its cache is, is nothing that it depends on.
    assert_eq!(key(&[], &[("QUICKSAND_CACHE_DIR", path("cache").to_str().unwrap())]), plain);
    let mut seen = HashSet::from([plain]);
    let mut is_new = |key: String, what: &str| assert!(seen.insert(key), "{what}");
    is_new(key(&["setups"], &[]), "inputs");
    fs::write(path("setups/install.sh"), "two").unwrap();
    is_new(key(&["setups"], &[]), "what they hold");
    fs::write(path("quicksand.lock"), "version = 1\n").unwrap();
    is_new(key(&[], &[]), "the lock");
    fs::write(path("quicksand.toml"), "\n").unwrap();
    is_new(key(&[], &[]), "the recipes");
    let qemu = path("qemu");
    fs::write(&qemu, "#!/bin/sh\necho QEMU emulator version 99.1.2\n").unwrap();
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
    is_new(key(&[], &[("QUICKSAND_QEMU", qemu.to_str().unwrap())]), "QEMU");

    let mut missing = Command::new(env!("CARGO_BIN_EXE_quicksand"));
    let output = missing.args(["cache-key", "nothing"]).current_dir(directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("failed to read nothing"), "{said}");
}
