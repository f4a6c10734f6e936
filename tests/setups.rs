//! Setups as layers, among processes: what is made when, and what a failure looks like.
//!
//! Each test here runs this very program several times over as children, one process for each test, as cargo-nextest does. The
//! children are in a package of their own, where their saves and inputs are.

#![forbid(unsafe_code)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use quicksand::{Sandbox, sandbox_setup, sandbox_test};

// What the children do.

const CHILD: &str = "run by the other tests in a process of its own";

fn package_of_child() -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR").unwrap().into()
}

/// Adds a line on the host for each time that a setup runs.
fn log(setup: &str) {
    let path = package_of_child().join(setup);
    let lines = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, lines + "ran\n").unwrap();
}

#[sandbox_setup(image = "debian", save = "base")]
async fn base(sb: &Sandbox) -> quicksand::Result<()> {
    log("base");
    sb.write_file("/root/layers", "base\n").await
}

#[sandbox_setup(
    from = "base",
    save = "with-db",
    inputs("scripts/db.sh", "data"),
    setup("sh scripts/db.sh data/rows", "test -d data")
)]
fn with_db();

#[sandbox_setup(from = "with-db", save = "with-user", max_age = "1h")]
async fn with_user(sb: &Sandbox) {
    log("with-user");
    sb.execute("cat /root/layers; echo user >> /root/layers; test ! -e /tmp/quicksand-inputs")
        .await
        .unwrap()
        .check()
        .unwrap();
    if let Some(words) = env::var_os("CHILD_FAILS") {
        let _ = sb.execute("echo no uid is left >&2; exit 4").await.unwrap();
        panic!("{}", words.display());
    }
}

#[sandbox_test(save = "with-user")]
#[ignore = "run by the other tests in a process of its own"]
async fn on_user(sb: Sandbox) {
    let layers = sb.execute("cat /root/layers; rm /root/layers").await.unwrap().stdout;
    let rows = fs::read_to_string(package_of_child().join("data/rows")).unwrap();
    assert_eq!(layers, format!("base\ndb {rows}user\n"));
}

#[sandbox_test(save = "base")]
#[ignore = "run by the other tests in a process of its own"]
async fn on_base(sb: Sandbox) {
    assert_eq!(sb.execute("cat /root/layers; rm /root/layers").await.unwrap().stdout, "base\n");
}

#[sandbox_setup(image = "debian", save = "short-lived", max_age = "3s", setup("true"))]
fn short_lived();

#[sandbox_test(save = "short-lived")]
#[ignore = "run by the other tests in a process of its own"]
async fn on_short_lived(_sb: Sandbox) {}

#[sandbox_setup(
    image = "debian",
    save = "broken",
    setup("echo first", "seq 1000; echo the mirror is down >&2; exit 100", "echo never")
)]
fn broken();

#[sandbox_test(from = "broken", save = "own", setup("true"))]
#[ignore = "run by the other tests in a process of its own"]
async fn on_broken(_sb: Sandbox) {}

#[sandbox_setup(image = "debian", save = "slow", timeout = "1s", setup("sleep 60"))]
fn slow();

#[sandbox_test(save = "slow")]
#[ignore = "run by the other tests in a process of its own"]
async fn on_slow(_sb: Sandbox) {}

#[sandbox_test(save = "with-dv")]
#[ignore = "run by the other tests in a process of its own"]
async fn on_nothing(_sb: Sandbox) {}

async fn which(sb: &Sandbox) -> quicksand::Result<()> {
    sb.execute("cat /root/image > /root/which").await.map(drop)
}

#[sandbox_test(images = ["one", "two", ignore("three", "never made")], save = "marked", setup = which)]
#[ignore = "run by the other tests in a process of its own"]
async fn on_images(sb: Sandbox) {
    println!("on image {}", sb.execute("cat /root/which").await.unwrap().stdout);
}

#[sandbox_setup(images = ["one", "two"], save = "each", setup("cat /root/image > /root/which"))]
fn each();

#[sandbox_setup(from = "each", save = "above-each", setup("echo above >> /root/which"))]
fn above_each();

#[sandbox_test(images = ["two", "one"], save = "above-each")]
#[ignore = "run by the other tests in a process of its own"]
async fn on_each(sb: Sandbox) {
    println!("on image {}", sb.execute("cat /root/which").await.unwrap().stdout);
}

macro_rules! layers {
    ($($function:ident $save:literal on $key:ident $below:literal;)*) => {
        $(
            #[sandbox_setup($key = $below, save = $save, setup(concat!("echo ", $save, " >> /root/deep")))]
            fn $function();
        )*
    };
}

layers! {
    l01 "l01" on image "debian"; l02 "l02" on from "l01"; l03 "l03" on from "l02"; l04 "l04" on from "l03";
    l05 "l05" on from "l04"; l06 "l06" on from "l05"; l07 "l07" on from "l06"; l08 "l08" on from "l07";
    l09 "l09" on from "l08"; l10 "l10" on from "l09"; l11 "l11" on from "l10"; l12 "l12" on from "l11";
    l13 "l13" on from "l12"; l14 "l14" on from "l13"; l15 "l15" on from "l14";
}

#[sandbox_test(save = "l15")]
#[ignore = "run by the other tests in a process of its own"]
async fn on_fifteen_layers(sb: Sandbox) {
    let lines: String = (1..=15).map(|n| format!("l{n:02}\n")).collect();
    assert_eq!(sb.execute("cat /root/deep").await.unwrap().stdout, lines);
    assert_eq!(sb.start_report().unwrap().kind, quicksand::StartKind::Warm);
}

// The tests.

struct Package(tempfile::TempDir);

impl Package {
    fn new() -> Package {
        let package = Package(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        package.write("scripts/db.sh", "echo db $(cat $1) >> /root/layers");
        package.write("data/rows", "1\n");
        package
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Starts a test in a process of its own, in the run of that name.
    fn start(&self, test: &str, run: &str, environment: &[(&str, &str)]) -> Child {
        Command::new(env::current_exe().unwrap())
            .args([test, "--exact", "--ignored", "--nocapture"])
            .env("CARGO_MANIFEST_DIR", self.0.path())
            .env("NEXTEST_RUN_ID", run)
            .env("NEXTEST_ATTEMPT", "1")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn run(&self, test: &str, run: &str, environment: &[(&str, &str)]) -> Output {
        self.start(test, run, environment).wait_with_output().unwrap()
    }

    #[track_caller]
    fn passes(&self, test: &str, run: &str, environment: &[(&str, &str)]) -> String {
        let output = self.run(test, run, environment);
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    }

    #[track_caller]
    fn fails(&self, test: &str, run: &str, environment: &[(&str, &str)]) -> String {
        let output = self.run(test, run, environment);
        assert!(!output.status.success(), "{}", said(&output));
        said(&output)
    }

    /// How often a setup ran that logs.
    fn runs(&self, setup: &str) -> usize {
        fs::read_to_string(self.0.path().join(setup)).unwrap_or_default().lines().count()
    }

    /// What tells a save from others that had its name before.
    fn id(&self, save: &str) -> String {
        let manifest = fs::read_to_string(self.saves().join(save).join("manifest.json")).unwrap();
        manifest.lines().find(|line| line.contains("\"id\"")).unwrap().to_owned()
    }

    fn ids(&self) -> [String; 3] {
        ["base", "with-db", "with-user"].map(|save| self.id(save))
    }

    fn saves(&self) -> PathBuf {
        self.0.path().join(".quicksand/sandboxes")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Which of the layers were made again.
fn changed(before: &[String; 3], after: &[String; 3]) -> [bool; 3] {
    std::array::from_fn(|at| before[at] != after[at])
}

#[test]
fn layers_are_made_once_and_again_from_the_one_that_changed() {
    let package = Package::new();
    let children = ["on_user", "on_base", "on_user", "on_user"].map(|test| package.start(test, "first", &[]));
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!((package.runs("base"), package.runs("with-user")), (1, 1), "each once among all");
    let first = package.ids();
    package.passes("on_user", "second", &[]);
    assert_eq!(package.ids(), first, "and never again");

    package.write("data/rows", "2\n");
    package.passes("on_user", "third", &[]);
    let third = package.ids();
    assert_eq!(changed(&first, &third), [false, true, true], "what depends on the file, and what is above");
    package.write("scripts/db.sh", "# the same\necho db $(cat $1) >> /root/layers");
    package.passes("on_user", "third", &[]);
    let fourth = package.ids();
    assert_eq!(changed(&third, &fourth), [false, true, true]);

    // An update is for the whole run, not for each of its processes.
    let update = [("QUICKSAND_UPDATE", "with-user")];
    let children = ["on_user", "on_user"].map(|test| package.start(test, "fifth", &update));
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    let fifth = package.ids();
    assert_eq!(changed(&fourth, &fifth), [false, false, true]);
    assert_eq!(package.runs("with-user"), 4);
    package.passes("on_base", "sixth", &[("QUICKSAND_UPDATE", "1")]);
    package.passes("on_base", "sixth", &[("QUICKSAND_UPDATE", "1")]);
    assert_eq!((changed(&fifth, &package.ids()), package.runs("base")), ([true, false, false], 2));

    fs::remove_file(package.0.path().join("scripts/db.sh")).unwrap();
    let text = package.fails("on_user", "seventh", &[]);
    assert!(
        text.contains("scripts/db.sh, which the setup setups::with_db (tests/setups.rs) names in inputs(..)"),
        "{text}"
    );
    package.passes("on_base", "seventh", &[]);
}

#[test]
fn a_setup_that_fails_fails_all_tests_on_it_once_and_quickly() {
    let package = Package::new();
    let fails = [("CHILD_FAILS", "no such user")];
    let children: Vec<Child> = (0..3).map(|_| package.start("on_user", "first", &fails)).collect();
    let texts: Vec<String> = children.into_iter().map(|child| said(&child.wait_with_output().unwrap())).collect();
    for text in &texts {
        assert!(
            text.contains(r#"setups::on_user: the setup of the save "with-user" failed: it panicked: no such user"#),
            "{text}"
        );
        assert!(text.contains("--- stderr ---\nno uid is left"), "{text}");
    }
    assert_eq!((package.runs("with-user"), package.runs("base")), (1, 1));
    assert!(!package.saves().join("with-user").exists());
    package.fails("on_user", "first", &fails);
    assert_eq!(package.runs("with-user"), 1);
    // A runner that tries a test again has the setup tried again, and so has the next run.
    package.fails("on_user", "first", &[fails[0], ("NEXTEST_ATTEMPT", "2")]);
    assert_eq!(package.runs("with-user"), 2);
    package.passes("on_user", "second", &[]);
    assert_eq!((package.runs("with-user"), package.runs("base")), (3, 1));
}

#[test]
fn a_command_that_fails_is_shown_with_its_output() {
    let package = Package::new();
    let text = package.fails("on_broken", "first", &[]);
    let start = r#"setups::on_broken: the setup of the save "broken", which "own" builds on, failed: command 2 of 3, "seq 1000; "#;
    assert!(text.contains(start), "{text}");
    assert!(text.contains("ended with exit code 100\n--- stdout ---\n941\n"), "{text}");
    assert!(text.contains("\n1000\n--- stderr ---\nthe mirror is down"), "{text}");
    let text = package.fails("on_slow", "first", &[]);
    assert!(
        text.contains(r#"the save "slow" failed: it took longer than 1s; a longer time is given with timeout"#),
        "{text}"
    );
}

#[test]
fn a_save_grows_old() {
    let package = Package::new();
    package.passes("on_short_lived", "first", &[]);
    let first = package.id("short-lived");
    sleep(Duration::from_millis(3100));
    package.passes("on_short_lived", "first", &[]);
    assert_eq!(package.id("short-lived"), first, "not within a run");
    package.passes("on_short_lived", "second", &[]);
    assert_ne!(package.id("short-lived"), first);
}

#[test]
fn a_save_that_nothing_makes_is_an_error_that_lists_what_there_is() {
    let text = Package::new().fails("on_nothing", "first", &[]);
    assert!(text.contains(r#"setups::on_nothing: failed to find the save "with-dv": no setup makes it; "#), "{text}");
    assert!(text.contains(r#"the setups of this test program make "above-each", "base", "broken", "#), "{text}");
}

#[tokio::test]
async fn images_have_tests_and_saves_of_their_own() {
    let package = Package::new();
    let sb = Sandbox::builder("debian").saves_dir(package.saves()).start().await.unwrap();
    for image in ["one", "two"] {
        sb.write_file("/root/image", image).await.unwrap();
        sb.save(image).await.unwrap();
    }
    for image in ["one", "two"] {
        let text = package.passes(&format!("on_images::{image}"), "first", &[]);
        assert!(text.contains(&format!("on image {image}\n")), "{text}");
        let text = package.passes(&format!("on_each::{image}"), "first", &[]);
        assert!(text.contains(&format!("on image {image}above\n")), "{text}");
        for save in ["marked", "each", "above-each"] {
            assert!(package.saves().join(format!("{save}.{image}")).is_dir());
        }
    }
    let output = Command::new(env::current_exe().unwrap()).args(["on_images"]).output().unwrap();
    let text = said(&output);
    assert!(text.contains("test on_images::three ... ignored, never made"), "{text}");
    assert!(text.contains(&format!("test on_images::one ... ignored, {CHILD}")), "{text}");
}

#[test]
fn fifteen_layers_are_not_too_many() {
    let package = Package::new();
    let [made, found] = ["first", "second"].map(|run| {
        let begun = Instant::now();
        package.passes("on_fifteen_layers", run, &[]);
        begun.elapsed()
    });
    assert!(found < made, "{found:?} to start from them, {made:?} to make them");
    assert_eq!(fs::read_dir(package.saves()).unwrap().count(), 15);
    assert!(Path::new(&package.saves()).join("l15/layers/14.qcow2").is_file());
}
