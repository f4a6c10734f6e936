//! The harness among processes: who makes a save, when it is made again, what its failure looks like.
//!
//! Each test here runs this very program several times over as children, one process for each test, as cargo-nextest does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use quicksand::{
    __private::{Base, MachineMeta, SetupMeta, Start, TestMeta, Variant, Work, run},
    Sandbox,
};

fn variable(name: &str) -> Option<&'static str> {
    std::env::var(name).ok().map(|value| &*value.leak())
}

/// What this program does as a child of the tests below: one test with a save, as its attribute would describe it.
#[test]
#[ignore = "run by the other tests in a process of its own, with what to do in its environment"]
fn child() {
    let machine = MachineMeta {
        memory: variable("HARNESS_MEMORY").map(|bytes| bytes.parse().unwrap()),
        ..MachineMeta::default()
    };
    let manifest_dir = variable("HARNESS_PACKAGE").unwrap();
    let save = SetupMeta {
        name: "harness::child",
        manifest_dir,
        save: "s",
        base: Base::Image(Variant::only("debian")),
        work: Work::Function { fingerprint: variable("HARNESS_FINGERPRINT").unwrap(), setup: |sb| Box::pin(setup(sb)) },
        inputs: &[],
        max_age: None,
        machine,
        timeout: None,
    };
    let meta = TestMeta { machine, ..TestMeta::new("harness::child", manifest_dir, Start::Own(save)) };
    run(&meta, async |sb: Sandbox| {
        assert_eq!(sb.execute("cat /root/set-up; rm /root/set-up").await.unwrap().stdout, "by the setup\n");
    });
}

async fn setup(sb: &Sandbox) -> Result<(), String> {
    // A line on the host for each time that this runs.
    let log = Path::new(variable("HARNESS_PACKAGE").unwrap()).join("setups");
    let mut lines = fs::read_to_string(&log).unwrap_or_default();
    lines.push_str("ran\n");
    fs::write(log, lines).unwrap();
    if let Some(words) = variable("HARNESS_FAIL") {
        return Err(words.to_owned());
    }
    sb.write_file("/root/set-up", "by the setup\n").await.map_err(|error| error.to_string())
}

struct Package(tempfile::TempDir);

impl Package {
    fn new() -> Package {
        Package(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    fn start(&self, environment: &[(&str, &str)]) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env("HARNESS_PACKAGE", self.0.path())
            .env_remove("CARGO_MANIFEST_DIR")
            .env("HARNESS_FINGERPRINT", "one")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn run(&self, environment: &[(&str, &str)]) -> Output {
        self.start(environment).wait_with_output().unwrap()
    }

    fn setups(&self) -> usize {
        fs::read_to_string(self.0.path().join("setups")).unwrap_or_default().lines().count()
    }

    fn saves(&self) -> PathBuf {
        self.0.path().join(".quicksand/sandboxes")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn many_processes_make_a_save_once_and_a_change_makes_it_again() {
    let package = Package::new();
    let children: Vec<Child> = (0..6).map(|_| package.start(&[])).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!(package.setups(), 1, "made once");

    assert!(package.run(&[]).status.success());
    assert_eq!(package.setups(), 1, "and never again");

    assert!(package.run(&[("HARNESS_FINGERPRINT", "two")]).status.success());
    assert_eq!(package.setups(), 2, "but when the setup changed");
    let memory = (640u64 << 20).to_string();
    assert!(package.run(&[("HARNESS_FINGERPRINT", "two"), ("HARNESS_MEMORY", &memory)]).status.success());
    assert_eq!(package.setups(), 3, "or the attribute");
    assert_eq!(fs::read_to_string(package.0.path().join(".quicksand/.gitignore")).unwrap(), "*\n");
}

#[test]
fn a_setup_that_fails_is_told_and_leaves_nothing() {
    let package = Package::new();
    let output = package.run(&[("HARNESS_FAIL", "the mirror is down")]);
    assert!(!output.status.success());
    let text = said(&output);
    assert!(text.contains(r#"harness::child: the setup of the save "s" failed: the mirror is down"#), "{text}");
    assert!(!package.saves().join("s").exists());
    // Another run tries again.
    let output = package.run(&[("NEXTEST_RUN_ID", "the-next-one")]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(package.setups(), 2);
}

#[tokio::test]
async fn a_save_made_by_hand_is_not_overwritten() {
    let package = Package::new();
    let sb = Sandbox::builder("debian").saves_dir(package.saves()).start().await.unwrap();
    sb.save("s").await.unwrap();
    let manifest = fs::read(package.saves().join("s/manifest.json")).unwrap();
    let output = package.run(&[]);
    assert!(!output.status.success());
    assert!(said(&output).contains("was made by hand"), "{}", said(&output));
    assert_eq!(fs::read(package.saves().join("s/manifest.json")).unwrap(), manifest);
}

/// Saved in the middle of a transfer, in both directions: the clone's agent finds the start of the next session.
#[tokio::test]
async fn a_save_in_the_middle_of_a_transfer_is_whole() {
    let package = Package::new();
    let sb = Sandbox::builder("debian").saves_dir(package.saves()).start().await.unwrap();
    let bytes = vec![0xA5; 40_000_000];
    let transfer = async {
        sb.write_file("/root/in", &bytes).await.unwrap();
        assert_eq!(sb.read_file("/root/in").await.unwrap().len(), bytes.len());
    };
    let saving = async {
        for n in 0..4 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            sb.save(&format!("s{n}")).await.unwrap();
        }
    };
    tokio::join!(transfer, saving);
    for n in 0..4 {
        let clone = Sandbox::builder(format!("s{n}")).saves_dir(package.saves()).start().await.unwrap();
        let report = clone.start_report().unwrap();
        assert_eq!(report.kind, quicksand::StartKind::Warm, "{report:?}");
        assert_eq!(clone.execute("echo fine").await.unwrap().stdout, "fine\n");
        assert_eq!(clone.read_file("/etc/debian_version").await.unwrap().len(), 6);
    }
}
