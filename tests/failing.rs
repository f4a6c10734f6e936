//! What a test leaves that fails, and that it leaves nothing when it passes: each test here runs this very program several times over
//! as children, one process for each test, as cargo-nextest does.

use std::{
    fs,
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
use quicksand::{
    __private::{MachineMeta, Start, TestMeta, Variant, run},
    Accel, KeptMachine, Sandbox,
};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// What this program does as a child of the tests below: one test, which ends as it is told.
#[test]
#[ignore = "run by the other tests in a process of its own, with what to do in its environment"]
fn child() {
    let how = variable("FAILING_HOW");
    let start = Start::Image(Variant::only(if how == "no-image" { "no-such-image" } else { "debian" }));
    let meta = TestMeta {
        machine: MachineMeta {
            accel: Some(Accel::Tcg),
            display: (how == "display").then_some(true),
            ..MachineMeta::default()
        },
        timeout: Some(Duration::from_secs(if how == "time" { 3 } else { 100 })),
        should_panic: how == "should-panic",
        ..TestMeta::new(variable("FAILING_NAME").leak(), variable("FAILING_PACKAGE").leak(), start)
    };
    run(&meta, async |sb: Sandbox| -> Result<(), String> {
        sb.execute("echo only > /dev/shm/here; logger -t failing 'a line in the journal'")
            .await
            .unwrap()
            .check()
            .unwrap();
        assert_eq!(sb.execute("echo printed; echo complained >&2; exit 3").await.unwrap().exit_code, 3);
        let _program = sb.command("sleep").arg("4321").spawn().await.unwrap();
        sb.execute("until pgrep -x sleep; do :; done; cat /etc/machine-id > /dev/shm/id")
            .await
            .unwrap()
            .check()
            .unwrap();
        println!("is there");
        match how.as_str() {
            "pass" => Ok(()),
            "error" => Err("the error of the body".to_owned()),
            "panic" | "should-panic" | "display" => panic!("the words of the panic"),
            "block" => loop {
                thread::sleep(Duration::from_secs(600));
            },
            "end" => {
                // The machine ends, not the test.
                sb.stop().await.unwrap();
                panic!("after the end");
            }
            _ => {
                let _ = sb.execute("sleep 600").await.unwrap();
                Ok(())
            }
        }
    });
}

/// As a child of a test below: goes on with a machine that was kept.
#[tokio::test]
#[ignore = "run by the other tests in a process of its own, with what to do in its environment"]
async fn resume() {
    let name = variable("FAILING_NAME");
    let kept = KeptMachine::find(name.rsplit("::").next().unwrap()).unwrap();
    assert_eq!((kept.test(), kept.package()), (name.as_str(), Path::new(&variable("FAILING_PACKAGE"))));
    assert!(kept.report().is_some_and(|report| report.join("report.json").is_file()));
    println!("it ended: {}", kept.end());
    // Twice: what is kept stays as it is.
    for _ in 0..2 {
        let sb = kept.resume().await.unwrap();
        sb.ping().await.unwrap();
        println!("resumed, {:?}", sb.start_report().unwrap().kind);
        let out = sb
            .execute("pgrep -x sleep -a; cat /dev/shm/here; cmp /etc/machine-id /dev/shm/id && rm /dev/shm/here")
            .await;
        let out = out.unwrap().check().unwrap();
        assert!(out.stdout.contains("sleep 4321") && out.stdout.ends_with("only\n"), "{out:?}");
    }
}

/// A cache directory of its own, so that no other failures of the user count, with the images and states of the real one.
struct House {
    cache: tempfile::TempDir,
    run: String,
}

impl House {
    fn new(run: &str) -> House {
        let cache = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let own = std::env::var_os("QUICKSAND_CACHE_DIR").map(PathBuf::from);
        let real = own.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/quicksand"));
        for name in ["images", "initramfs", "states", "locks"] {
            fs::create_dir_all(real.join(name)).unwrap();
            symlink(real.join(name), cache.path().join(name)).unwrap();
        }
        House { cache, run: format!("failing-{run}-{}", std::process::id()) }
    }

    fn command(&self, mode: &str, name: &str, how: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([mode, "--exact", "--ignored", "--nocapture"])
            .env_remove("CARGO_MANIFEST_DIR")
            .env_remove("QUICKSAND_KEEP")
            .env("QUICKSAND_CACHE_DIR", self.cache.path())
            .env("NEXTEST_RUN_ID", &self.run)
            .env("FAILING_PACKAGE", self.cache.path())
            .env("FAILING_NAME", name)
            .env("FAILING_HOW", how)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, name: &str, how: &str) -> Child {
        self.command("child", name, how).spawn().unwrap()
    }

    fn run(&self, name: &str, how: &str) -> (Output, String) {
        said(self.start(name, how))
    }

    fn directory(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("quicksand").join(&self.run)
    }

    fn kept(&self) -> usize {
        fs::read_dir(self.cache.path().join("failed")).map_or(0, Iterator::count)
    }

    /// Waits until the child of that name runs its body.
    fn wait_for(&self, child: &mut Child) {
        use std::io::{BufRead, BufReader};
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("is there") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "it ended before its body ran");
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.directory());
    }
}

fn said(child: Child) -> (Output, String) {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output, text)
}

fn last_words(output: &Output) -> Vec<String> {
    let lines = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<_> = lines.lines().map(str::to_owned).collect();
    let end = lines.iter().rposition(|line| line.starts_with("to look into it")).map_or(lines.len(), |at| at + 1);
    lines[end.saturating_sub(2)..end].to_vec()
}

#[test]
fn a_test_that_passes_leaves_nothing() {
    let house = House::new("passes");
    for how in ["pass", "should-panic"] {
        house.run("failing::passes", how);
        assert!(!house.directory().exists() && house.kept() == 0, "{how}");
    }
    let output = house.command("child", "failing::passes", "pass").env("QUICKSAND_KEEP", "always").output().unwrap();
    assert!(output.status.success() && !house.directory().exists());
    assert_eq!(house.kept(), 1);
}

#[test]
fn a_failure_leaves_what_explains_it_and_the_machine_goes_on() {
    let house = House::new("explains");
    let name = "failing::explains";
    let mut command = house.command("child", name, "panic");
    let (output, text) = said(command.env("NEXTEST", "1").spawn().unwrap());
    assert!(!output.status.success());
    let directory = house.directory().join("failing.explains");
    let words =
        [format!("what is known of it: {}", directory.display()), format!("to look into it: quicksand shell {name}")];
    assert_eq!(last_words(&output), words, "{text}");
    assert!(text.contains("the words of the panic"), "{text}");
    let file = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    for name in ["report.json", "failure.txt", "commands.jsonl", "console.log", "journal.log", "qemu.sh", "qemu.log"] {
        file(name);
        assert!(text.contains(&format!("[[ATTACHMENT|{}]]", directory.join(name).display())), "{name} in {text}");
    }
    assert!(directory.join("failed").exists() && !directory.join("running").exists());

    let commands = file("commands.jsonl");
    let lines: Vec<&str> = commands.lines().collect();
    assert_eq!(lines.len(), 4, "{commands}");
    for part in
        [r#""stdout":"printed\n""#, r#""stderr":"complained\n""#, r#""end":"code 3""#, "exit 3", "\"took_s\":0."]
    {
        assert!(lines[1].contains(part), "{part} in {}", lines[1]);
    }
    assert!(lines[2].contains("sleep 4321") && lines[2].contains(r#""end":null"#), "{}", lines[2]);
    assert!(file("journal.log").contains("a line in the journal"));
    assert!(file("qemu.sh").contains("qemu-system-x86_64") && file("qemu.sh").contains("-incoming defer"));
    assert_eq!(file("failure.txt"), "failing::explains: panicked: the words of the panic\n");
    let report = file("report.json");
    for part in
        ["prepare_s", "waited_s", "start_s", "body_s", r#""end": "panicked: the words of the panic""#, r#""Ok":"#]
    {
        assert!(report.contains(part), "{part} in {report}");
    }

    assert_eq!(house.kept(), 1);
    let (output, text) = said(house.command("resume", name, "").spawn().unwrap());
    assert!(output.status.success(), "{text}");
    assert!(text.contains("it ended: panicked: the words of the panic"), "{text}");
    let warm = text.lines().filter(|line| line.starts_with("resumed, Warm"));
    assert_eq!(warm.count(), 2, "{text}");
}

#[test]
fn a_display_is_kept_as_it_was() {
    let house = House::new("display");
    let (output, text) = house.run("failing::shown", "display");
    assert!(!output.status.success(), "{text}");
    let picture = fs::File::open(house.directory().join("failing.shown/screenshot.png")).unwrap();
    let picture = png::Decoder::new(std::io::BufReader::new(picture)).read_info().unwrap();
    assert_eq!((picture.info().width, picture.info().height), (720, 400), "the console's text mode");
}

#[test]
fn each_way_to_fail_is_told_and_the_last_five_machines_are_kept() {
    let house = House::new("ways");
    let told = |how: &str, reason: &str, next: &str| {
        let name = format!("failing::{}", how.replace('-', "_"));
        let (output, text) = house.run(&name, how);
        assert!(!output.status.success() && text.contains(reason), "{text}");
        let directory = house.directory().join(name.replace("::", "."));
        let next = next.replace("DIR", &directory.to_string_lossy());
        assert_eq!(last_words(&output)[1..], [format!("to look into it: {next}")], "{text}");
        let report = fs::read_to_string(directory.join("report.json")).unwrap();
        assert!(directory.join("failed").exists(), "{report}");
        report
    };
    told("error", "the error of the body", "quicksand shell failing::error");
    let report = told("time", "the test's body took longer than 3s", "quicksand shell failing::time");
    assert!(report.contains(r#""body_s": 3."#), "{report}");
    let report = told("no-image", "it is neither a save", "quicksand doctor");
    assert!(report.contains(r#""start": null"#), "{report}");
    let report = told("end", "after the end", "cat DIR/commands.jsonl");
    assert!(report.contains(r#""Err":"#), "{report}");
    assert_eq!(house.kept(), 2);

    // The program that the body had started still runs after an error, too.
    let (output, text) = said(house.command("resume", "failing::error", "").spawn().unwrap());
    assert!(output.status.success(), "{text}");

    let begin = |n: usize| house.start(&format!("failing::t{n}"), "panic");
    for pair in [[1, 2], [3, 4]] {
        pair.map(begin).into_iter().for_each(|child| drop(said(child)));
    }
    assert_eq!(house.kept(), 5, "of six, the last five");
    let (output, text) = said(house.command("resume", "failing::error", "").spawn().unwrap());
    assert!(!output.status.success() && text.contains("NotKept"), "{text}");
    let output = house.command("child", "failing::never", "panic").env("QUICKSAND_KEEP", "never").output().unwrap();
    let directory = house.directory().join("failing.never");
    let next = format!("to look into it: cat {}/commands.jsonl", directory.display());
    assert_eq!(last_words(&output)[1..], [next]);
    assert!(directory.join("journal.log").exists() && house.kept() == 5);
}

#[test]
fn a_test_that_is_killed_can_be_told_from_one_that_passed() {
    let house = House::new("killed");
    let start = |name: &str, how: &str| {
        let mut child = house.start(name, how);
        house.wait_for(&mut child);
        let directory = house.directory().join(name.replace("::", "."));
        assert!(directory.join("running").exists());
        (child, directory)
    };
    let signal = |child: &Child, signal: Signal| kill(Pid::from_raw(child.id() as i32), signal).unwrap();

    let (mut child, directory) = start("failing::killed", "sleep");
    // What was run is written down as it comes: what has ended with its output, what was under way as well.
    let commands = || fs::read_to_string(directory.join("commands.jsonl")).unwrap();
    let begun = Instant::now();
    while !commands().contains("sleep 600") {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", commands());
        thread::sleep(Duration::from_millis(20));
    }
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    assert!(directory.join("running").exists() && !directory.join("failed").exists());
    let commands = commands();
    let lines: Vec<&str> = commands.lines().collect();
    assert_eq!(lines.len(), 8, "three that ended, with two lines each, and two that did not: {commands}");
    assert!(lines[3].contains(r#""stdout":"printed\n""#) && lines[3].contains(r#""end":"code 3""#), "{commands}");
    assert!(lines[7].contains("sleep 600") && lines[7].contains(r#""end":null"#), "{commands}");

    // As nextest does when its patience is over: 10 s later it kills.
    for (name, how, kept) in [("failing::told", "sleep", 1), ("failing::deaf", "block", 2)] {
        let (child, directory) = start(name, how);
        let begun = Instant::now();
        signal(&child, Signal::SIGTERM);
        let (output, text) = said(child);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(output.status.code(), Some(143), "{text}");
        assert!(text.contains("told to end by SIGTERM"), "{text}");
        assert!(directory.join("failed").exists() && !directory.join("running").exists());
        let commands = fs::read_to_string(directory.join("commands.jsonl")).unwrap();
        assert!(commands.contains("printed"), "{commands}");
        // Where the host is too busy to write the machine down in time, that is told.
        let (was, late) = (house.kept(), text.contains("its machine is not kept: it took longer than"));
        assert!(directory.join("journal.log").exists() && (was == kept || late), "{was} kept: {text}");
        assert!(last_words(&output)[0].starts_with("what is known of it: "), "{text}");
    }
}
