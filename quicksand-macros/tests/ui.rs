//! What the compiler says where an attribute is used wrongly: `tests/ui/*.rs` must fail with the messages beside them.
//!
//! `TRYBUILD=overwrite cargo test -p quicksand-macros --test ui` writes the messages anew. Read the difference before you
//! commit it: each must say what is accepted.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

#[test]
fn a_setup_of_another_file_without_a_mark_is_pointed_at() {
    let said = compiled_as_test("setup_elsewhere_unmarked.rs");
    // The words around the names are the compiler's, which change.
    assert!(said.contains("`base` in `setups`") && said.contains("setup_elsewhere_unmarked.rs:6:"), "{said}");
}

/// What the compiler says of a test program with one mistake.
///
/// trybuild makes programs, of which the compiler leaves tests out before it looks at what they mention. These it must
/// look at, so they are compiled as tests, with the library that this very test was linked with or a later one.
fn compiled_as_test(file: &str) -> String {
    let program = env::current_exe().unwrap();
    let libraries = program.parent().unwrap();
    let mut library = OsString::from("quicksand=");
    library.push(newest_library(libraries));
    let mut dependencies = OsString::from("dependency=");
    dependencies.push(libraries);
    let out = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--test", "--edition", "2024", "--emit", "metadata", "--out-dir", env!("CARGO_TARGET_TMPDIR")])
        .args([OsStr::new("-L"), &dependencies, OsStr::new("--extern"), &library])
        .arg(Path::new("tests/ui/support").join(file))
        .output()
        .unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success(), "it compiles");
    assert_eq!(said.matches("error[").count(), 1, "{said}");
    said
}

fn newest_library(directory: &Path) -> PathBuf {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libquicksand-") && name.ends_with(".rlib")
    };
    paths.filter(is_ours).max_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok()).unwrap()
}
