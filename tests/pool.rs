//! The machine of the next test is made ready while a test runs: this program runs itself as a child that runs tests in a row, as
//! `cargo test -- --test-threads=1` does.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use quicksand::{
    __private::{MachineMeta, Start, TestMeta, Variant, run},
    Accel, Sandbox,
};

const TESTS: usize = 8;

/// What this program does as a child of the test below.
#[test]
#[ignore = "run by the other test in a process of its own"]
fn tests_in_a_row() {
    let directory: &'static str = std::env::var("POOL_DIRECTORY").unwrap().leak();
    let seen = Mutex::new((vec![], vec![]));
    let meta = TestMeta {
        machine: MachineMeta { accel: Some(Accel::Tcg), ..MachineMeta::default() },
        ..TestMeta::new("pool::test", directory, Start::Image(Variant::only("debian")))
    };
    for _ in 0..TESTS {
        let begun = Instant::now();
        run(&meta, async |sb: Sandbox| {
            let waited = begun.elapsed();
            let report = sb.start_report().unwrap();
            let out = sb.execute(
                "cat /etc/machine-id; head -c 16 /dev/urandom | sha256sum; date +%s; test ! -e /root/x; touch /root/x",
            );
            let out = out.await.unwrap().check().unwrap();
            let lines: Vec<&str> = out.stdout.lines().collect();
            seen.lock().unwrap().0.extend([lines[0].to_owned(), lines[1].to_owned()]);
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            assert!(since.abs_diff(lines[2].parse().unwrap()) < 60, "at the time that it is");
            seen.lock().unwrap().1.push((waited, report.was_ready));
            tokio::time::sleep(Duration::from_millis(400)).await;
        });
    }
    let (mut identities, waits) = seen.into_inner().unwrap();
    identities.sort();
    identities.dedup();
    assert_eq!(identities.len(), 2 * TESTS, "machine ids and random bytes of their own");
    let mut times: Vec<_> = waits.iter().map(|(waited, _)| *waited).collect();
    times.sort_unstable();
    println!("ready {} median {}", waits.iter().filter(|wait| wait.1).count(), times[TESTS / 2].as_secs_f64());
}

/// How many of the child's machines were ready, and the median of the waits.
fn row(environment: &[(&str, &str)]) -> (usize, f64) {
    // A cache of its own, in which no machines of others count, with the images and states of the real one.
    let cache = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let own = std::env::var_os("QUICKSAND_CACHE_DIR").map(PathBuf::from);
    let real = own.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/quicksand"));
    for name in ["images", "initramfs", "states", "locks"] {
        fs::create_dir_all(real.join(name)).unwrap();
        symlink(real.join(name), cache.path().join(name)).unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["tests_in_a_row", "--ignored", "--nocapture"])
        .env_remove("NEXTEST")
        .env("QUICKSAND_CACHE_DIR", cache.path())
        .env("POOL_DIRECTORY", cache.path())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = said.lines().find_map(|line| line.split_once("ready ")).unwrap().1;
    let (ready, median) = line.split_once(" median ").unwrap();
    // What the process had ready at its end is nobody's.
    assert!(fs::read_dir(cache.path().join("slots")).unwrap().count() <= 1);
    (ready.parse().unwrap(), median.parse().unwrap())
}

#[test]
fn the_next_machine_is_ready_when_its_test_comes() {
    let (ready, with) = row(&[]);
    let (none, without) = row(&[("QUICKSAND_JOBS", "1")]);
    assert_eq!(none, 0, "one machine at a time is one machine");
    if std::thread::available_parallelism().unwrap().get() == 1 {
        return;
    }
    // Not the first two, and not where the host was too busy for a moment.
    assert!(ready >= TESTS / 2, "{ready}");
    assert!(with < without, "{with} with and {without} without");
    println!("a test waits {with:.3} s for its machine; {without:.3} s without");
}
