//! How many machines run at once, among processes: each test here runs this very program several times over as children, one
//! process for each machine, as cargo-nextest does.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use quicksand::{
    __private::{MachineMeta, Start, TestMeta, Variant, run},
    Accel, Sandbox,
};

/// How long children may take on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What this program does as a child of the tests below: one test, which tells when its body begins and ends.
#[test]
#[ignore = "run by the other tests in a process of its own, with what to do in its environment"]
fn child() {
    let directory = variable("ADMISSION_DIRECTORY").unwrap().leak();
    let meta = TestMeta {
        // Shorter than some of them wait for their turn.
        timeout: Some(Duration::from_secs(20)),
        machine: MachineMeta { accel: Some(Accel::Tcg), ..MachineMeta::default() },
        ..TestMeta::new("admission::child", directory, Start::Image(Variant::only("debian")))
    };
    run(&meta, async |sb: Sandbox| {
        tell("begins");
        for _ in 0..variable("ADMISSION_MORE").map_or(0, |number| number.parse().unwrap()) {
            let more = Sandbox::builder("debian").accel(Accel::Tcg).start().await.unwrap();
            more.execute("true").await.unwrap().check().unwrap();
            std::mem::forget(more);
        }
        sb.execute("true").await.unwrap().check().unwrap();
        if let Some(seconds) = variable("ADMISSION_SECONDS") {
            tokio::time::sleep(Duration::from_secs_f64(seconds.parse().unwrap())).await;
        }
        tell("ends");
    });
}

/// A line in the log that all children write.
fn tell(what: &str) {
    let log = Path::new(&variable("ADMISSION_DIRECTORY").unwrap()).join("log");
    let mut log = File::options().append(true).create(true).open(log).unwrap();
    log.write_all(format!("{} {what}\n", variable("ADMISSION_NAME").unwrap()).as_bytes()).unwrap();
}

/// A cache directory of its own, so that no other machine of the user counts, with the images and states of the real one.
struct House(tempfile::TempDir);

impl House {
    fn new() -> House {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let own = std::env::var_os("QUICKSAND_CACHE_DIR").map(PathBuf::from);
        let real = own.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/quicksand"));
        for name in ["images", "initramfs", "states", "locks"] {
            fs::create_dir_all(real.join(name)).unwrap();
            symlink(real.join(name), directory.path().join(name)).unwrap();
        }
        House(directory)
    }

    fn start(&self, name: &str, environment: &[(&str, &str)]) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env("QUICKSAND_CACHE_DIR", self.0.path())
            .env("ADMISSION_DIRECTORY", self.0.path())
            .env("ADMISSION_NAME", name)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn log(&self) -> Vec<String> {
        fs::read_to_string(self.0.path().join("log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn waiting(&self) -> usize {
        fs::read_dir(self.0.path().join("queue")).map_or(0, Iterator::count)
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&House) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < PATIENCE, "still not {what}: {:?}", self.log());
            sleep(Duration::from_millis(20));
        }
    }
}

fn check(child: Child) {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The most that ran at once.
fn most(log: &[String]) -> i32 {
    let mut running = 0;
    let steps = log.iter().map(|line| {
        running += if line.ends_with("begins") { 1 } else { -1 };
        running
    });
    steps.max().unwrap_or(0)
}

#[test]
fn as_many_run_at_once_as_the_memory_allows() {
    let house = House::new();
    // Two of 512M with what their QEMUs take, and not a third; the processors would allow for more.
    let environment = [("QUICKSAND_MEMORY_BUDGET", "1500M"), ("ADMISSION_SECONDS", "0.5")];
    let children: Vec<Child> = (0..8).map(|n| house.start(&n.to_string(), &environment)).collect();
    children.into_iter().for_each(check);
    let log = house.log();
    assert_eq!((log.len(), most(&log)), (16, 2), "{log:?}");
    assert_eq!(house.waiting(), 0);
}

#[test]
fn who_came_first_is_first_and_a_killed_one_holds_nothing() {
    let house = House::new();
    let one_at_a_time = |name, seconds| house.start(name, &[("QUICKSAND_JOBS", "1"), ("ADMISSION_SECONDS", seconds)]);
    let mut holder = one_at_a_time("holder", "600");
    house.wait_until("held", |house| house.log() == ["holder begins"]);
    let mut others = vec![];
    for (number, name) in ["a", "killed", "b", "c"].into_iter().enumerate() {
        others.push(one_at_a_time(name, "0"));
        house.wait_until("queued", |house| house.waiting() == number + 1);
    }
    let mut killed = others.remove(1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(house.log(), ["holder begins"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    others.into_iter().for_each(check);
    let order = ["holder begins", "a begins", "a ends", "b begins", "b ends", "c begins", "c ends"];
    assert_eq!(house.log(), order);
    assert_eq!(house.waiting(), 0);
}

#[test]
fn a_test_with_machines_of_its_own_does_not_wait_for_itself() {
    let house = House::new();
    let environment = [("QUICKSAND_JOBS", "1"), ("ADMISSION_MORE", "3")];
    let children: Vec<Child> = (0..2).map(|n| house.start(&n.to_string(), &environment)).collect();
    children.into_iter().for_each(check);
    assert_eq!(most(&house.log()), 1, "{:?}", house.log());
}
