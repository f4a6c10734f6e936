//! The program run as a child.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quicksand::Case;

/// What is checked, each as a case of its own.
pub(crate) fn checks(package: &Path) -> Result<Vec<Case>, String> {
    assert_eq!(package, Path::new(env!("CARGO_MANIFEST_DIR")));
    let checks: [(&str, fn()); 11] = [
        ("is_listed_as_by_libtest", is_listed_as_by_libtest),
        ("listing_starts_nothing", listing_starts_nothing),
        ("nextest_runs_each_by_its_name", nextest_runs_each_by_its_name),
        ("what_is_not_run_is_ignored_with_its_reason", what_is_not_run_is_ignored_with_its_reason),
        ("failures_have_their_own_words", failures_have_their_own_words),
        ("a_flaky_test_passes_and_is_told", a_flaky_test_passes_and_is_told),
        ("tries_come_to_an_end", tries_come_to_an_end),
        ("a_wrong_variable_is_refused", a_wrong_variable_is_refused),
        ("a_terminal_has_a_line_for_each_machine", a_terminal_has_a_line_for_each_machine),
        ("an_interrupt_ends_the_machines", an_interrupt_ends_the_machines),
        ("what_is_known_is_kept_at_the_end_of_the_process", what_is_known_is_kept_at_the_end_of_the_process),
    ];
    Ok(checks.into_iter().map(|(name, check)| Case::new(format!("program::{name}"), check)).collect())
}

/// A place of its own for what children leave, with the images and states of the real cache.
struct House {
    directory: tempfile::TempDir,
}

impl House {
    fn new() -> House {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let own = env::var_os("QUICKSAND_CACHE_DIR").map(PathBuf::from);
        let real = own.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache/quicksand"));
        for name in ["images", "initramfs", "states", "locks"] {
            fs::create_dir_all(real.join(name)).unwrap();
            symlink(real.join(name), directory.path().join(name)).unwrap();
        }
        House { directory }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(arguments);
        self.set_up(&mut command);
        command
    }

    fn set_up(&self, command: &mut Command) {
        for name in ["CI", "NEXTEST", "QUICKSAND_JUNIT", "QUICKSAND_KEEP", "QUICKSAND_RETRIES", "RUST_BACKTRACE"] {
            command.env_remove(name);
        }
        command
            .env("QUICKSAND_CACHE_DIR", self.directory.path())
            .env("NEXTEST_RUN_ID", self.run())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    /// Where failures go.
    fn run(&self) -> String {
        let name = self.directory.path().file_name().unwrap().to_string_lossy();
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        format!("runner-{plain}")
    }

    fn failures(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("quicksand").join(self.run())
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.failures());
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

fn is_listed_as_by_libtest() {
    let list = |arguments: &[&str]| {
        let output = House::new().command(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        out(&output)
    };
    let all = list(&["--list", "--format", "terse"]);
    for name in [
        "has_a_machine",
        "inner::panics",
        "of_images::debian",
        "of_images::no_such_image",
        "of_rstest::case_2",
        "goes_on",
        "program::is_listed_as_by_libtest",
    ] {
        assert!(all.lines().any(|line| line == format!("{name}: test")), "{name} in {all}");
    }
    let ignored = list(&["--list", "--format", "terse", "--ignored"]);
    assert!(ignored.contains("of_images::no_such_image: test\n") && !ignored.contains("has_a_machine"), "{ignored}");
    assert_eq!(list(&["--list", "of_rstest", "--skip", "case_2"]), "of_rstest::case_1: test\n");
    assert_eq!(list(&["--list", "of_rstest", "--exact"]), "");
}

/// Nothing but memory and the program's own file is needed for it.
fn listing_starts_nothing() {
    let house = House::new();
    let mut command = house.command(&["--list"]);
    command.env("QUICKSAND_CACHE_DIR", "/proc/nowhere").env("QUICKSAND_QEMU", "/proc/nowhere").env("PATH", "");
    let begun = Instant::now();
    let output = command.output().unwrap();
    assert!(output.status.success() && out(&output).contains("has_a_machine: test"), "{output:?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(err(&output), "");
}

fn nextest_runs_each_by_its_name() {
    let house = House::new();
    let report = house.directory.path().join("report.xml");
    let mut command = house.command(&["of_rstest::case_1", "--exact", "--nocapture"]);
    let output = command.env("NEXTEST", "1").env("QUICKSAND_JUNIT", &report).output().unwrap();
    assert!(output.status.success() && out(&output).contains("1 passed; 0 failed; 0 ignored"), "{output:?}");
    assert!(!report.exists(), "nextest writes its own");
}

fn what_is_not_run_is_ignored_with_its_reason() {
    let house = House::new();
    let missing = "it requires the program no-such-program: it is not on the path";
    let report = house.directory.path().join("reports/");
    let run = |arguments: &[&str], required: &str| {
        let mut command = house.command(&[arguments, &["--test-threads", "1"]].concat());
        command.env("QUICKSAND_REQUIRE", required).env("QUICKSAND_JUNIT", format!("{}/", report.display()));
        let output = command.output().unwrap();
        (output.status.code().unwrap(), out(&output), fs::read_to_string(report.join("runner.xml")).unwrap())
    };
    let (code, text, report) = run(&["requires", "--ignored"], "0");
    assert_eq!(code, 0, "{text}");
    for name in ["requires_what_is_missing          ", "requires_what_is_missing_to_panic "] {
        assert!(text.contains(&format!("test {name}... ignored ({missing})")), "{text}");
    }
    assert!(text.contains("0 passed; 0 failed; 2 ignored"), "{text}");
    assert_eq!(count(&report, &format!(r#"<skipped message="{missing}"/>"#)), 2, "{report}");
    assert!(report.contains(r#"<testsuite name="runner" tests="2" skipped="2" errors="0" failures="0""#), "{report}");

    let (code, text, _) = run(&["requires", "--ignored"], "1");
    assert_eq!(code, 101, "{text}");
    assert!(text.contains(&format!("{missing}; with QUICKSAND_REQUIRE=0 the test is skipped instead")), "{text}");

    let (code, text, report) = run(&["no_such_image"], "0");
    assert_eq!(code, 0);
    assert!(text.contains("test of_images::no_such_image ... ignored (there is none)\n"), "{text}");
    assert!(report.contains(r#"<skipped message="there is none"/>"#), "{report}");
}

/// Also where several fail at once: each failure has its words, once, at its test.
fn failures_have_their_own_words() {
    let house = House::new();
    let report = house.directory.path().join("report.xml");
    let mut command = house.command(&["fails_by", "--ignored", "--test-threads", "3"]);
    let output = command.env("QUICKSAND_JUNIT", &report).output().unwrap();
    let (text, errors, report) = (out(&output), err(&output), fs::read_to_string(report).unwrap());
    assert_eq!(output.status.code(), Some(101), "{text}");
    assert!(text.contains("0 passed; 6 failed; 0 ignored"), "{text}");
    for (name, words) in [
        ("fails_by_a_code", "the test returned a failure: "),
        ("fails_by_a_panic", "the words of a task\n"),
        ("fails_by_a_panic", "the words of a panic\n"),
        ("fails_by_an_error", "the test returned an error: \"the words of an error\"\n"),
        ("fails_by_its_time", "the test's body took longer than 1s"),
        ("fails_by_no_panic", "the test did not panic as it should\n"),
        ("fails_by_another_panic", "the test did not panic with the words \"something else\" as it should\n"),
    ] {
        let at = |text: &str| text.split(&format!("---- {name} ----\n")).nth(1).unwrap().to_owned();
        let section = at(&text).split("\n\n").next().unwrap().to_owned() + "\n";
        assert_eq!(count(&section, words), 1, "{words} in {section}");
        if name != "fails_by_another_panic" {
            let directory = house.failures().join(format!("runner.{name}"));
            assert!(directory.join("failed").exists());
            let last = format!(
                "what is known of it: {}\nto look into it: quicksand shell runner::{name}\n",
                directory.display()
            );
            assert!(section.ends_with(&last), "{section}");
            assert_eq!(count(&(text.clone() + &errors), &last), 1, "{text}{errors}");
            let attachment = format!("[[ATTACHMENT|{}/commands.jsonl]]", directory.display());
            assert_eq!(count(&report, &attachment), 1, "{report}");
        }
    }
    assert!(report.contains(r#"tests="6" skipped="0" errors="0" failures="6""#), "{report}");
    for part in [
        r#"<testcase name="fails_by_a_panic" classname="runner" timestamp="2"#,
        r#"<failure message="the words of a panic">panicked at tests/runner/main.rs"#,
        "to look into it: quicksand shell runner::fails_by_an_error",
    ] {
        assert_eq!(count(&report, part), 1, "{part} in {report}");
    }
}

fn flaky(failures: &str, retries: Option<&str>) -> (Option<i32>, String, String, String) {
    let house = House::new();
    let (file, report) = (house.directory.path().join("failures"), house.directory.path().join("report.xml"));
    fs::write(&file, failures).unwrap();
    let mut command = house.command(&["fails_at_first", "--include-ignored"]);
    command.env("RUNNER_FAILURES", file).env("QUICKSAND_JUNIT", &report).env("QUICKSAND_KEEP", "never");
    if let Some(retries) = retries {
        command.env("QUICKSAND_RETRIES", retries);
    }
    let output = command.output().unwrap();
    (output.status.code(), out(&output), err(&output), fs::read_to_string(report).unwrap())
}

fn a_flaky_test_passes_and_is_told() {
    let (code, text, errors, report) = flaky("1", None);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("test fails_at_first ... ok\n") && text.contains("1 passed; 0 failed"), "{text}");
    assert!(errors.contains("RETRY fails_at_first: try 1 of 3 failed: 1 more failures\n"), "{errors}");
    assert!(errors.contains("FLAKY fails_at_first: passed at try 2, after these failures:\n"), "{errors}");
    assert_eq!(count(&errors, "    what is known of it: "), 1, "{errors}");
    assert_eq!(count(&report, r#"<flakyFailure timestamp="2"#), 1, "{report}");
    assert!(report.contains(r#"message="1 more failures""#) && report.contains(r#"failures="0""#), "{report}");
}

fn tries_come_to_an_end() {
    let (code, text, errors, report) = flaky("9", Some("1"));
    assert_eq!(code, Some(101), "the variable counts more than the test: {text}");
    for part in ["try 1 of 2:\n", "\n9 more failures\n", "try 2 of 2:\n", "\n8 more failures\n"] {
        assert_eq!(count(&text, part), 1, "{part} in {text}");
    }
    assert_eq!(count(&errors, "RETRY"), 1, "{errors}");
    assert!(report.contains(r#"<failure message="8 more failures">"#), "{report}");
    assert_eq!(count(&report, r#"<rerunFailure timestamp="2"#), 1, "{report}");
    let (code, text, errors, _) = flaky("1", Some("0"));
    assert_eq!((code, count(&errors, "RETRY"), count(&text, "try 1 of")), (Some(101), 0, 0), "{text}");
}

fn a_wrong_variable_is_refused() {
    let output = House::new().command(&["has_a_machine"]).env("QUICKSAND_RETRIES", "often").output().unwrap();
    assert_eq!(output.status.code(), Some(101));
    assert_eq!(err(&output), "failed to use QUICKSAND_RETRIES=often: write a number from 0 to 255\n");
}

/// What a terminal gets to see.
fn a_terminal_has_a_line_for_each_machine() {
    let house = House::new();
    let program = env::current_exe().unwrap();
    let mut command = Command::new("script");
    let line = format!("'{}' fails_by_its_time --include-ignored --test-threads 2", program.display());
    house.set_up(command.args(["--quiet", "--return", "--command", &line]));
    let output = command.arg("/dev/null").env("TERM", "xterm").output().unwrap();
    let text = out(&output);
    assert_eq!(output.status.code(), Some(101), "{text}");
    for part in ["fails_by_its_time: starting", "fails_by_its_time: restoring", "fails_by_its_time: running sleep 60"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // The results are whole lines, in colours.
    assert!(text.contains("test fails_by_its_time ... \x1b[31mFAILED\x1b[0m\r\n"), "{text}");
    assert!(text.contains("test result: \x1b[31mFAILED\x1b[0m. 0 passed; 1 failed"), "{text}");
}

/// The QEMUs of a process.
fn machines(owner: u32) -> Vec<PathBuf> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            status.starts_with("Name:\tqemu") && status.contains(&format!("\nPPid:\t{owner}\n"))
        })
        .collect()
}

/// Starts the test that goes on until it is ended, and waits until its machine runs.
fn going_on(house: &House) -> (Child, Vec<PathBuf>) {
    let child = house.command(&["goes_on", "--exact", "--ignored"]).spawn().unwrap();
    let machines = first_machines(child.id());
    (child, machines)
}

fn first_machines(owner: u32) -> Vec<PathBuf> {
    let begun = Instant::now();
    loop {
        let machines = machines(owner);
        if !machines.is_empty() {
            return machines;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no machine runs");
        thread::sleep(Duration::from_millis(50));
    }
}

fn an_interrupt_ends_the_machines() {
    let house = House::new();
    let (mut child, machines) = going_on(&house);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    assert!(!child.wait().unwrap().success());
    let begun = Instant::now();
    while machines.iter().any(|machine| machine.exists()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{machines:?} still run");
        thread::sleep(Duration::from_millis(20));
    }
}

fn what_is_known_is_kept_at_the_end_of_the_process() {
    let house = House::new();
    let (child, _) = going_on(&house);
    // Before that the test would still wait for its machine, which is told in other words.
    let commands = house.failures().join("runner.goes_on/commands.jsonl");
    let begun = Instant::now();
    while !fs::read_to_string(&commands).unwrap_or_default().contains("a few words") {
        assert!(begun.elapsed() < Duration::from_secs(60), "the test does not begin");
        thread::sleep(Duration::from_millis(20));
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    assert!(
        err(&output).contains("runner::goes_on: the test still ran when its process was told to end"),
        "{output:?}"
    );
    assert!(house.failures().join("runner.goes_on/failed").exists());
}
