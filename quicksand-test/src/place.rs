//! Where a test leaves what is known of its failure: `target/quicksand/RUN/TEST`.

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Once, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How many runs with failures are kept.
const RUNS: usize = 10;
/// Longest name of a test's directory.
const NAME: usize = 180;

/// A directory of its own for a test, which is new. Tests of the same name in one run, as in two packages or in a second attempt, are
/// told apart by a number.
pub(crate) fn test_directory(test: &str, manifest_dir: &Path) -> io::Result<PathBuf> {
    let run = runs(manifest_dir).join(run_id());
    let name = directory_name(test);
    let mut number = 1;
    loop {
        // A test that passed may remove the run's directory, where it is empty, between the two.
        fs::create_dir_all(&run)?;
        let path = run.join(if number == 1 { name.clone() } else { format!("{name}-{number}") });
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
}

/// Makes this run the one that `latest` names, and removes the oldest runs. Once a process.
pub(crate) fn settle_run(directory: &Path) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Some(run) = directory.parent() else { return };
        let (Some(runs), Some(id)) = (run.parent(), run.file_name()) else { return };
        // Of several processes one wins; it is a convenience.
        let fresh = runs.join(format!(".latest-{}", std::process::id()));
        let _ = symlink(id, &fresh).and_then(|()| fs::rename(&fresh, runs.join("latest")));
        remove_old(runs, RUNS);
    });
}

fn remove_old(runs: &Path, most: usize) {
    let Ok(entries) = fs::read_dir(runs) else { return };
    let mut all: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        // Not followed: `latest` is no directory.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    all.sort_by_key(|(modified, _)| std::cmp::Reverse(*modified));
    for (modified, run) in all.into_iter().skip(most) {
        // One that is still under way was touched lately.
        if modified.elapsed().is_ok_and(|age| age > Duration::from_secs(60 * 60)) || !is_under_way(&run) {
            let _ = fs::remove_dir_all(run);
        }
    }
}

/// Whether a test of the run still holds its mark.
fn is_under_way(run: &Path) -> bool {
    let Ok(tests) = fs::read_dir(run) else { return true };
    tests.flatten().any(|test| crate::attempt::is_running(&test.path()))
}

/// Where cargo puts what it builds, and we what tests leave.
fn runs(manifest_dir: &Path) -> PathBuf {
    let program = env::current_exe().ok();
    // What cargo leaves in the directory tells it, whatever the options of the build and whoever runs the test.
    let is_target =
        |directory: &&Path| ["CACHEDIR.TAG", ".rustc_info.json"].iter().any(|name| directory.join(name).is_file());
    let marked = program.as_deref().and_then(|program| program.ancestors().find(is_target).map(Path::to_owned));
    let named = || env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let target = marked.or_else(named).unwrap_or_else(|| manifest_dir.join("target"));
    target.join("quicksand")
}

/// Tells this run from others: nextest's, which all of its processes share, else the time and this process.
fn run_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let plain = |id: &String| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let own = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            format!("{}-{}", utc(since.as_secs()), std::process::id())
        };
        env::var("NEXTEST_RUN_ID").ok().filter(plain).unwrap_or_else(own)
    })
}

/// `20261124T065023Z`, so that names are in the order of time.
fn utc(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // The calendar repeats itself every 400 years, which are counted from a first of March here, so that a leap day comes last; see
    // Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

/// The test's path as one name.
fn directory_name(test: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let mut name: String = test.replace("::", ".").chars().map(plain).collect();
    while name.len() > NAME {
        name.pop();
    }
    if name.starts_with('.') || name.is_empty() { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_found() {
        assert_eq!(utc(0), "19700101T000000Z");
        assert_eq!(utc(951_827_696), "20000229T123456Z");
        assert_eq!(utc(1_798_761_599), "20261231T235959Z");
        assert_eq!(utc(4_107_542_400), "21000301T000000Z");
    }

    #[test]
    fn names_are_names() {
        assert_eq!(directory_name("install::works::debian"), "install.works.debian");
        assert_eq!(directory_name("a::case_1<u8>/../é"), "a.case_1_u8__.._é");
        assert_eq!(directory_name(""), "_");
        assert!(directory_name(&"é".repeat(500)).len() <= NAME);
    }

    #[test]
    fn directories_are_made_for_each_and_old_runs_go() {
        let directory = tempfile::tempdir().unwrap();
        // This program lies in a target directory, so that is where it goes.
        let (one, two) = (test_directory("x::y", directory.path()), test_directory("x::y", directory.path()));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(one.ends_with(format!("quicksand/{}/x.y", run_id())), "{one:?}");
        assert_eq!(two.file_name().unwrap(), "x.y-2");
        fs::remove_dir(&two).unwrap();
        fs::remove_dir(&one).unwrap();
        let _ = fs::remove_dir(one.parent().unwrap());

        let runs = directory.path();
        for n in 0..5 {
            fs::create_dir_all(runs.join(n.to_string()).join("test")).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        remove_old(runs, 2);
        let mut left: Vec<_> = fs::read_dir(runs).unwrap().flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, ["3", "4"]);
    }
}
