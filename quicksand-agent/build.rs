//! Compiles the guest program, statically, and leaves it in `OUT_DIR` for the library to embed.
//!
//! Cargo has no stable way to depend on another package's executable, so this runs cargo once more on this very package
//! with the feature `guest`, in a target directory of its own (the outer one is locked).

use std::{
    env, fs,
    hash::{DefaultHasher, Hasher},
    path::PathBuf,
    process::Command,
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=guest");
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rerun-if-changed=../quicksand-protocol/src");
    if env::var_os("CARGO_FEATURE_GUEST").is_some() {
        return;
    }
    let var = |name: &str| env::var(name).unwrap_or_else(|e| panic!("cargo sets {name} for build scripts: {e}"));
    let out_dir = PathBuf::from(var("OUT_DIR"));
    let target_dir = out_dir.join("guest-target");
    let target = format!("{}-unknown-linux-gnu", var("CARGO_CFG_TARGET_ARCH"));

    let mut cargo = Command::new(var("CARGO"));
    cargo
        .args(["build", "--release", "--quiet", "--features", "guest", "--bin", "quicksand-agent", "--target", &target])
        .arg("--manifest-path")
        .arg(PathBuf::from(var("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir);
    // The outer build's flags are for the host: sanitizers, coverage or a lint driver must not reach the guest.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PROFILE_")
            || text.starts_with("CARGO_BUILD_")
            || text.starts_with("CARGO_TARGET_")
            || matches!(&*text, "CARGO_ENCODED_RUSTFLAGS" | "RUSTFLAGS" | "RUSTC_WORKSPACE_WRAPPER" | "CARGO_MAKEFLAGS")
        {
            cargo.env_remove(&name);
        }
    }
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "4");
    let status = cargo.status().expect("cargo started this script and can be started again");
    assert!(
        status.success(),
        "failed to build the guest agent for {target}: {status}; linking it statically needs the C library's static \
         archive (Debian: libc6-dev, Fedora: glibc-static)"
    );
    let built = target_dir.join(&target).join("release").join("quicksand-agent");
    let bytes = fs::read(&built).unwrap_or_else(|e| panic!("failed to read {}: {e}", built.display()));
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    let write = |name: &str, content: &[u8]| {
        fs::write(out_dir.join(name), content).unwrap_or_else(|e| panic!("failed to write {name}: {e}"));
    };
    write("quicksand-agent", &bytes);
    write("quicksand-agent.id", format!("{:016x}", hasher.finish()).as_bytes());
}
