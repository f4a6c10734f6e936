//! `quicksand images`, with a cache of its own.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn quicksand(cache: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quicksand"));
    command.args(arguments).env("QUICKSAND_CACHE_DIR", cache).env("QUICKSAND_OFFLINE", "1").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_empty_cache_has_none_and_says_how_to_get_one() {
    let cache = tempfile::tempdir().unwrap();
    let listed = quicksand(cache.path(), &["images", "list"]);
    assert_eq!(text(&listed.stdout), "IMAGE  SIZE  SHARED  MADE  FROM\n");
    let json = quicksand(cache.path(), &["images", "list", "--json"]);
    assert_eq!(text(&json.stdout), "[]\n");
    let missing = quicksand(cache.path(), &["images", "show", "ubuntu"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("hint: `quicksand images pull ubuntu`"), "{}", text(&missing.stderr));
    let removed = quicksand(cache.path(), &["images", "remove", "ubuntu"]);
    assert_eq!(removed.status.code(), Some(1));
    let unknown = quicksand(cache.path(), &["images", "pull", "plan9"]);
    assert!(
        text(&unknown.stderr).contains("debian") && text(&unknown.stderr).contains("fedora"),
        "{}",
        text(&unknown.stderr)
    );
}

/// Where a file is wanted, a pipe, a socket or a device is refused by its name, and nothing is waited for.
#[test]
fn what_is_no_file_is_refused_by_its_name() {
    let cache = tempfile::tempdir().unwrap();
    let path = |name: &str| cache.path().join(name).to_str().unwrap().to_owned();
    let [pipe, socket, layout] = ["a.pipe", "a.socket", "layout"].map(path);
    let make_pipe = |path: &str| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    make_pipe(&pipe);
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::create_dir(&layout).unwrap();
    fs::write(path("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    make_pipe(&path("layout/index.json"));
    fs::write(path("disk.qcow2"), "x").unwrap();
    let (archive, layout) = (format!("docker-archive:{pipe}"), format!("oci-layout:{layout}"));
    for (arguments, named, what) in [
        (&["images", "import", &pipe, "x"][..], "a.pipe", "a pipe"),
        (&["images", "pull", &pipe], "a.pipe", "a pipe"),
        (&["images", "pull", &socket], "a.socket", "a socket"),
        (&["run", &pipe, "--", "true"], "a.pipe", "a pipe"),
        (&["run", &socket, "--", "true"], "a.socket", "a socket"),
        (&["run", "/dev/zero", "--", "true"], "/dev/zero", "a device"),
        (&["run", &archive, "--", "true"], "a.pipe", "a pipe"),
        (&["run", &layout, "--", "true"], "layout/index.json", "a pipe"),
        (&["saves", "import", &pipe, "x"], "a.pipe", "a pipe"),
    ] {
        let output = Command::new("timeout")
            .args(["100", env!("CARGO_BIN_EXE_quicksand")])
            .args(arguments)
            .env("QUICKSAND_CACHE_DIR", cache.path())
            .env("QUICKSAND_OFFLINE", "1")
            .current_dir(cache.path())
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success() && output.status.code() != Some(124), "{arguments:?}: {said}");
        assert!(said.contains(named) && said.contains(what), "{arguments:?}: {said}");
    }
}

/// The image that the other tests made: listed, shown and removed in a copy of its own.
#[test]
fn what_is_there_is_listed_shown_and_removed() {
    // Has the image made, where this test is the first.
    let made = Command::new(env!("CARGO_BIN_EXE_quicksand")).args(["images", "pull", "debian"]).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let shown =
        Command::new(env!("CARGO_BIN_EXE_quicksand")).args(["images", "show", "debian", "--json"]).output().unwrap();
    let image: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let directory = Path::new(image["disk"].as_str().unwrap()).parent().unwrap();

    let cache = tempfile::tempdir().unwrap();
    let copy = cache.path().join("images/debian");
    fs::create_dir_all(cache.path().join("images")).unwrap();
    let copied = Command::new("cp").args(["-r", "--reflink=auto"]).arg(directory).arg(&copy).status().unwrap();
    assert!(copied.success());
    let listed = text(&quicksand(cache.path(), &["images", "list"]).stdout);
    let line = listed.lines().nth(1).unwrap();
    assert!(line.starts_with("debian ") && line.contains("MiB") && line.contains(" no "), "{listed}");
    let shown = text(&quicksand(cache.path(), &["images", "show", "debian"]).stdout);
    assert!(
        shown.contains("(ext4)") && shown.contains(image["digest"].as_str().unwrap().trim_start_matches("sha256:")),
        "{shown}"
    );
    let removed = quicksand(cache.path(), &["images", "remove", "debian"]);
    assert!(text(&removed.stdout).starts_with("debian: freed "), "{}", text(&removed.stderr));
    assert!(!copy.exists());
}
