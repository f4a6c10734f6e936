//! `quicksand prune`, with a cache of its own.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

fn prune(cache: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quicksand"));
    let output = command.arg("prune").args(arguments).env("QUICKSAND_CACHE_DIR", cache).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_freed_is_told_by_kind_and_what_is_in_use_stays() {
    let temp = tempfile::tempdir().unwrap();
    let cache = temp.path();
    let old = SystemTime::now() - Duration::from_secs(60 * 86_400);
    let put = |directory: &str, name: &str, when: SystemTime| {
        let path = cache.join(directory).join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("disk"), vec![1; 1 << 20]).unwrap();
        File::open(&path).unwrap().set_modified(when).unwrap();
        path
    };
    let (idle, used) = (put("states", "idle", old), put("states", "used", old));
    let (image, test) = (put("images", "mine", old), put("failed", "tests.fails-0", old));
    let young = put("images", "young", SystemTime::now());
    let user = File::open(&used).unwrap();
    user.lock_shared().unwrap();

    let told = prune(cache, &["--dry-run"]);
    for line in [
        "would free 1 MiB in warm states (1)",
        "would free 1 MiB in images (1)",
        "would free 1 MiB in machines of failed tests (1)",
        "3 MiB would be freed; 2 MiB stay; in use, and kept whatever the rule: 1",
    ] {
        assert!(told.contains(line), "{told}");
    }
    assert!(idle.exists() && image.exists() && test.exists());

    let value: serde_json::Value = serde_json::from_str(&prune(cache, &["--json"])).unwrap();
    assert_eq!(value["dry_run"], false);
    assert!(value["freed_bytes"].as_u64().unwrap() >= 3 << 20, "{value:#}");
    let kinds: Vec<_> = value["by_kind"].as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["warm states", "images", "machines of failed tests"]);
    let kept = value["kept"].as_array().unwrap();
    assert!(kept.iter().any(|it| it["name"] == "used" && it["kept"] == "in use"), "{value:#}");
    assert!(!idle.exists() && !image.exists() && !test.exists() && used.exists() && young.exists());

    prune(cache, &["--max-size", "0"]);
    assert!(!young.exists() && used.exists());
    drop(user);
    prune(cache, &[]);
    assert!(!used.exists());
}
