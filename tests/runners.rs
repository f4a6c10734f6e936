//! The harness under the runners that people use: a project outside of the workspace, `tests/runners/project`, whose tests are run by
//! cargo and by cargo-nextest, killed in the middle, and run twice at once.
//!
//! What it is built from stays under `target/runners`, so that only the first run compiles all of it. `tests/tutorial.rs` has its
//! crate built there as well, and is alone there while it runs: both look at what the latest run with a failure left.

use std::{
    env,
    fs::{self, File},
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use quicksand::__private::{Requirement, Start, TestMeta, Variant, is_skipped};

/// How long a run of the project may take on a busy host.
const PATIENCE: Duration = Duration::from_secs(300);

/// The project, built.
struct Project {
    directory: PathBuf,
    target: PathBuf,
    /// Shared by these tests for as long as they run.
    lock: File,
}

/// Copies the project and builds its tests, once.
fn project() -> &'static Project {
    static PROJECT: OnceLock<Project> = OnceLock::new();
    PROJECT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("runners");
        fs::create_dir_all(target.join("project")).unwrap();
        let lock = File::create(target.join("lock")).unwrap();
        let project = Project { directory: target.join("project"), target, lock };
        // Each of these tests may be a process of its own.
        project.lock.lock().unwrap();
        let source = root.join("tests/runners/project");
        for file in [".config/nextest.toml", "src/lib.rs", "tests/suite.rs"] {
            copy(&fs::read_to_string(source.join(file)).unwrap(), &project.directory.join(file));
        }
        let manifest = fs::read_to_string(source.join("Cargo.toml")).unwrap();
        let dependency = format!("path = {:?}", root.to_str().unwrap());
        assert!(manifest.contains(r#"path = "../../..""#));
        copy(&manifest.replace(r#"path = "../../..""#, &dependency), &project.directory.join("Cargo.toml"));
        // The versions that the workspace has; cargo leaves out what the project does not need.
        let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
        if copy(&lock, &project.directory.join("Cargo.lock.of-workspace")) {
            fs::write(project.directory.join("Cargo.lock"), lock).unwrap();
        }
        let output = project.cargo(&["test", "--offline", "--no-run"]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        project.lock.lock_shared().unwrap();
        project
    })
}

/// Writes a file, unless it is that already: cargo goes by its time. Whether it did.
fn copy(text: &str, to: &Path) -> bool {
    let differs = !fs::read_to_string(to).is_ok_and(|old| old == text);
    if differs {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, text).unwrap();
    }
    differs
}

impl Project {
    /// A command of cargo, with nothing of this very run of tests in its environment.
    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let ours = |name: &str| ["CARGO", "NEXTEST", "QUICKSAND_"].iter().any(|prefix| name.starts_with(prefix));
        for (name, _) in env::vars_os().filter(|(name, _)| name != "CARGO_HOME") {
            if name.to_str().is_some_and(ours) {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_TERM_COLOR", "never")
            .env("RUST_BACKTRACE", "0")
            .env("QUICKSAND_REQUIRE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// Where a run of the project keeps what it leaves, with the images and states of the real cache.
struct House(tempfile::TempDir);

impl House {
    fn new() -> House {
        let cache = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let own = env::var_os("QUICKSAND_CACHE_DIR").map(PathBuf::from);
        let real = own.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache/quicksand"));
        for name in ["images", "initramfs", "states", "locks"] {
            fs::create_dir_all(real.join(name)).unwrap();
            symlink(real.join(name), cache.path().join(name)).unwrap();
        }
        House(cache)
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = project().cargo(arguments);
        command.env("QUICKSAND_CACHE_DIR", self.0.path()).env("PROJECT_NOTES", self.notes_file());
        // A group of its own, as a shell gives to what it starts.
        command.process_group(0).spawn().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.start(arguments).wait_with_output().unwrap()
    }

    fn notes_file(&self) -> PathBuf {
        self.0.path().join("notes")
    }

    /// What tests noted: their process, and words.
    fn notes(&self) -> Vec<(i32, String)> {
        let notes = fs::read_to_string(self.notes_file()).unwrap_or_default();
        let note =
            |line: &str| line.split_once(' ').map(|(process, words)| (process.parse().unwrap(), words.to_owned()));
        notes.lines().filter_map(note).collect()
    }

    /// Waits until the test that hangs does so. Its process, and that of its QEMU.
    fn wait_for_hang(&self) -> (i32, i32) {
        let begun = Instant::now();
        loop {
            if let [(process, words), ..] = &self.notes()[..] {
                return (*process, words.strip_prefix("qemu ").unwrap().parse().unwrap());
            }
            assert!(begun.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The machines that still have a directory or a slot.
    fn machines(&self) -> usize {
        let count = |name: &str| fs::read_dir(self.0.path().join(name)).map_or(0, Iterator::count);
        count("run") + count("slots") + count("queue")
    }

    /// The machines that run. Of one that was made ready and that nobody took, the files stay until the next start.
    fn running(&self) -> usize {
        let slots = fs::read_dir(self.0.path().join("slots")).into_iter().flatten().flatten();
        slots.filter(|slot| fs::File::open(slot.path()).is_ok_and(|file| file.try_lock_shared().is_err())).count()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Whether that part of the test is left out, since there is no cargo-nextest.
fn lacks_nextest(test: &'static str) -> bool {
    is_skipped(&TestMeta {
        requires: &[Requirement::Command("cargo-nextest")],
        ..TestMeta::new(test, env!("CARGO_MANIFEST_DIR"), Start::Image(Variant::only("debian")))
    })
}

fn is_there(process: i32) -> bool {
    // A zombie has no command line.
    fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn wait_until_gone(process: i32) {
    let begun = Instant::now();
    while is_there(process) {
        assert!(begun.elapsed() < PATIENCE, "{process} is still there");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The directory of a failed test, which its last words name.
fn report_of(text: &str, test: &str) -> PathBuf {
    let ends = format!("/suite.{test}");
    let mut named = text.lines().filter_map(|line| line.trim().strip_prefix("what is known of it: "));
    named.find(|path| path.ends_with(&ends)).unwrap_or_else(|| panic!("nothing of {test} in {text}")).into()
}

/// What the report of a failed test says of its times, and checks of what else it left.
fn check_report(directory: &Path, end: &str) -> serde_json::Value {
    let report = fs::read_to_string(directory.join("report.json")).unwrap();
    assert!(report.contains(end), "{report}");
    assert!(directory.join("failed").exists() && !directory.join("running").exists());
    for name in ["failure.txt", "commands.jsonl", "console.log", "journal.log", "qemu.sh"] {
        assert!(directory.join(name).is_file(), "{name}");
    }
    // Those of tests that passed are not there.
    let run = fs::read_dir(directory.parent().unwrap()).unwrap();
    let names: Vec<_> = run.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [directory.file_name().unwrap()]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    report["times"].clone()
}

#[test]
fn cargo_test_tells_how_each_test_ended() {
    let house = House::new();
    let output = house.run(&["test", "--offline", "--test", "suite", "--", "outcomes::"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(101), "{text}");
    for part in [
        "test outcomes::passes ... ok",
        "test outcomes::fails ... FAILED",
        "test outcomes::panics - should panic ... ok",
        "test outcomes::is_ignored ... ignored, not today",
        "test outcomes::lacks_a_program ... ok",
        "SKIP suite::outcomes::lacks_a_program: it requires the program no-such-program: it is not on the path",
        "test result: FAILED. 3 passed; 1 failed; 1 ignored;",
        "to look into it: quicksand shell suite::outcomes::fails",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let directory = report_of(&text, "outcomes.fails");
    let times = check_report(&directory, "panicked: assertion `left == right` failed");
    let seconds = |name: &str| times[name].as_f64().unwrap();
    assert!(seconds("start_s") > 0.0 && seconds("prepare_s") >= seconds("start_s"), "{times}");
    assert!((1.0..100.0).contains(&seconds("body_s")), "{times}");
    let commands = fs::read_to_string(directory.join("commands.jsonl")).unwrap();
    assert!(commands.contains("wrong") && commands.contains("complained") && commands.contains("code 3"), "{commands}");
    assert_eq!(house.running(), 0, "nothing runs any more");
}

#[test]
fn nextest_tells_how_each_test_ended() {
    if lacks_nextest("runners::nextest_tells_how_each_test_ended") {
        return;
    }
    // nextest keeps its own things by the project, wherever it is built.
    let junit = project().directory.join("target/nextest/default/junit.xml");
    let _ = fs::remove_file(&junit);
    let house = House::new();
    let output = house.run(&["nextest", "run", "--offline", "--no-fail-fast", "outcomes::"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(100), "{text}");
    assert!(text.contains("4 tests run: 3 passed, 1 failed, "), "{text}");
    assert!(!text.contains("LEAK"), "no test leaves anything that holds its output: {text}");
    let directory = report_of(&text, "outcomes.fails");
    check_report(&directory, "panicked: assertion `left == right` failed");

    let report = fs::read_to_string(junit).unwrap();
    let whole = report.lines().find(|line| line.starts_with("<testsuites ")).unwrap();
    assert!(whole.contains(r#" tests="4""#) && whole.contains(r#" failures="1""#), "{whole}");
    for file in ["report.json", "commands.jsonl", "journal.log"] {
        let attachment = format!("[[ATTACHMENT|{}]]", directory.join(file).display());
        assert!(report.contains(&attachment), "{attachment} in {report}");
    }
    let case = report.split("<testcase ").find(|case| case.contains(r#"name="outcomes::fails""#)).unwrap();
    let time = case.split(r#" time=""#).nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(time.parse::<f64>().unwrap() >= 1.0, "{case}");
    assert_eq!(house.machines(), 0, "nothing runs any more");
}

#[test]
fn nextest_ends_a_test_that_takes_too_long_and_it_is_told() {
    if lacks_nextest("runners::nextest_ends_a_test_that_takes_too_long_and_it_is_told") {
        return;
    }
    let house = House::new();
    // How much patience a test needs to come to its body depends on the machine.
    for profile in ["impatient", "patient", "more-patient", "most-patient"] {
        let output = house.run(&["nextest", "run", "--offline", "--profile", profile, "killed::hangs"]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(100), "{text}");
        assert!(text.contains("TIMEOUT") && text.contains("1 timed out"), "{text}");
        let directory = report_of(&text, "killed.hangs");
        if house.notes().is_empty() {
            let failure = fs::read_to_string(directory.join("failure.txt")).unwrap();
            assert!(failure.contains("when its process was told to end by SIGTERM"), "{failure}");
            assert!(directory.join("report.json").is_file() && directory.join("failed").is_file());
            continue;
        }
        check_report(&directory, "the test still ran when its process was told to end by SIGTERM");
        let commands = fs::read_to_string(directory.join("commands.jsonl")).unwrap();
        assert!(commands.contains(r#""stdout":"before\n""#) && commands.contains(r#""end":null"#), "{commands}");
        break;
    }
    let (process, qemu) = house.wait_for_hang();
    assert!(!is_there(process) && !is_there(qemu));
    assert_eq!(house.machines(), 0);
}

#[test]
fn nothing_stays_of_a_run_that_is_killed() {
    let cargo = ["test", "--offline", "--test", "suite", "--", "killed::hangs"];
    let nextest = ["nextest", "run", "--offline", "killed::hangs"];
    for (arguments, signal) in [(&cargo[..], Signal::SIGKILL), (&cargo, Signal::SIGINT), (&nextest, Signal::SIGKILL)] {
        if arguments == nextest && lacks_nextest("runners::nothing_stays_of_a_run_that_is_killed") {
            continue;
        }
        let house = House::new();
        let mut runner = house.start(arguments);
        let (process, qemu) = house.wait_for_hang();
        assert!(is_there(process) && is_there(qemu));
        killpg(Pid::from_raw(runner.id() as i32), signal).unwrap();
        if arguments == nextest {
            // It has each test in a group of its own, which whoever kills all of them kills as well.
            kill(Pid::from_raw(process), signal).unwrap();
        }
        runner.wait().unwrap();
        wait_until_gone(process);
        wait_until_gone(qemu);
        let mark = format!("suite::killed::hangs, process {process};");
        let left = fs::read_dir(project().target.join("quicksand")).unwrap();
        let tests = left.map(|run| run.unwrap().path().join("suite.killed.hangs"));
        let is_it = |test: &PathBuf| fs::read_to_string(test.join("running")).is_ok_and(|text| text.starts_with(&mark));
        let tests: Vec<PathBuf> = tests.filter(is_it).collect();
        assert_eq!(tests.len(), 1, "it can be told from a test that passed");
        let commands = fs::read_to_string(tests[0].join("commands.jsonl")).unwrap();
        assert!(commands.contains(r#""stdout":"before\n""#) && commands.contains("sleep 600"), "{commands}");

        // The next start takes the slot, and clears up.
        let output = house.run(&["test", "--offline", "--test", "suite", "--", "outcomes::passes"]);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(house.machines(), 0);
    }
}

#[test]
fn of_two_runs_at_once_one_makes_the_save_and_the_other_waits() {
    let nextest = !lacks_nextest("runners::of_two_runs_at_once_one_makes_the_save_and_the_other_waits");
    let _ = fs::remove_dir_all(project().directory.join(".quicksand/sandboxes/slow"));
    let house = House::new();
    let cargo = ["test", "--offline", "--test", "suite", "--", "at_once::"];
    let other: &[&str] = if nextest { &["nextest", "run", "--offline", "at_once::"] } else { &cargo };
    let runs = [house.start(&cargo), house.start(other)];
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    let notes = house.notes();
    let words: Vec<&str> = notes.iter().map(|(_, words)| &**words).collect();
    assert_eq!(words, ["makes the save", "has made the save", "passes", "passes"]);
    assert_ne!(notes[2].0, notes[3].0, "two processes");
    assert_eq!(house.machines(), 0);
}
