//! Compiles a program of a package, statically, and leaves it in `OUT_DIR` for the package's library to embed. For build
//! scripts.
//!
//! Cargo has no stable way to depend on another package's executable, so this runs cargo once more on the very package whose
//! build script calls it, with a feature that turns the program on, in a target directory of its own (the outer one is
//! locked). That is one for all builds into the outer one, so that a program is compiled once, not once for each profile and set
//! of features.
#![forbid(unsafe_code)]

use std::{
    env,
    fs::{self, File},
    hash::{DefaultHasher, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

/// A program of the package whose build script runs.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// Its name, as of its `[[bin]]`.
    pub name: &'a str,
    /// The feature that it needs. Where the package itself is built with it, nothing is compiled.
    pub feature: &'a str,
    /// The optimization level.
    pub opt_level: &'a str,
    /// Files and directories that it is made from, beside the package's `Cargo.toml` and its build script, seen from the package.
    pub sources: &'a [&'a str],
}

impl Program<'_> {
    /// Leaves the program in `OUT_DIR` under its name, and beside it in `NAME.id` a word that tells it from every other build.
    ///
    /// # Panics
    ///
    /// Where it can't be compiled: the build fails.
    pub fn embed(&self) {
        for source in ["build.rs", "Cargo.toml"].iter().chain(self.sources) {
            println!("cargo::rerun-if-changed={source}");
        }
        let feature = format!("CARGO_FEATURE_{}", self.feature.to_uppercase());
        if env::var_os(feature).is_none() {
            self.compile();
        }
    }

    fn compile(&self) {
        let var = |name: &str| env::var(name).unwrap_or_else(|e| panic!("cargo sets {name} for build scripts: {e}"));
        let out_dir = PathBuf::from(var("OUT_DIR"));
        let target_dir = shared_directory(&out_dir);
        let target = format!("{}-unknown-linux-gnu", var("CARGO_CFG_TARGET_ARCH"));

        let mut cargo = Command::new(var("CARGO"));
        cargo
            .args(["build", "--release", "--quiet", "--features", self.feature, "--bin", self.name])
            .args(["--target", &target])
            .arg("--manifest-path")
            .arg(PathBuf::from(var("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target_dir);
        // The outer build's flags are for what it builds: sanitizers, coverage or a lint driver must not reach the program.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PROFILE_")
                || text.starts_with("CARGO_BUILD_")
                || text.starts_with("CARGO_TARGET_")
                || matches!(
                    &*text,
                    "CARGO_ENCODED_RUSTFLAGS" | "RUSTFLAGS" | "RUSTC_WORKSPACE_WRAPPER" | "CARGO_MAKEFLAGS"
                )
            {
                cargo.env_remove(&name);
            }
        }
        cargo
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", self.opt_level)
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "4");
        fs::create_dir_all(&target_dir).unwrap_or_else(|e| panic!("failed to create {}: {e}", target_dir.display()));
        // Another build may be about to leave a program of the same name, from other sources.
        let lock = target_dir.join("lock");
        let only_one = File::create(&lock).and_then(|file| file.lock().map(|()| file));
        let _only_one = only_one.unwrap_or_else(|e| panic!("failed to lock {}: {e}", lock.display()));
        let status = cargo.status().expect("cargo started this script and can be started again");
        assert!(
            status.success(),
            "failed to build {} for {target}: {status}; linking it statically needs the C library's static archive \
             (Debian: libc6-dev, Fedora: glibc-static)",
            self.name
        );
        let built = target_dir.join(&target).join("release").join(self.name);
        let bytes = fs::read(&built).unwrap_or_else(|e| panic!("failed to read {}: {e}", built.display()));
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        let write = |name: &str, content: &[u8]| {
            fs::write(out_dir.join(name), content).unwrap_or_else(|e| panic!("failed to write {name}: {e}"));
        };
        write(self.name, &bytes);
        write(&format!("{}.id", self.name), format!("{:016x}", hasher.finish()).as_bytes());
    }
}

/// Where programs are compiled: in the outermost target directory that there is around `out_dir`. Cargo marks them.
fn shared_directory(out_dir: &Path) -> PathBuf {
    let of_cargo = |directory: &&Path| {
        fs::read_to_string(directory.join("CACHEDIR.TAG")).is_ok_and(|tag| tag.contains("created by cargo"))
    };
    out_dir.ancestors().filter(of_cargo).last().unwrap_or(out_dir).join("quicksand-embed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_directory_is_found_from_all_within() {
        let outside = env::temp_dir().join(format!("quicksand-embed-{}", std::process::id()));
        let out_dirs =
            ["target/debug/build/a-1/out", "target/release/build/a-2/out", "target/tests/b/debug/build/a-3/out"];
        for out_dir in out_dirs {
            fs::create_dir_all(outside.join(out_dir)).unwrap();
        }
        let unmarked = shared_directory(&outside.join(out_dirs[0]));
        for marked in ["target", "target/tests/b"] {
            fs::write(outside.join(marked).join("CACHEDIR.TAG"), "# created by cargo.\n").unwrap();
        }
        fs::write(outside.join("CACHEDIR.TAG"), "# another program's\n").unwrap();
        let found = out_dirs.map(|out_dir| shared_directory(&outside.join(out_dir)));
        fs::remove_dir_all(&outside).unwrap();
        assert_eq!(unmarked, outside.join(out_dirs[0]).join("quicksand-embed"));
        assert_eq!(found, out_dirs.map(|_| outside.join("target/quicksand-embed")));
    }
}
