//! Software that people really run, from where they get it: installed, used, rebooted, used again and removed, each test in a machine
//! of its own. What stays after the removal is named to the letter.
//!
//! Docker is tried in `containers.rs`, and kernels are in `kernels.rs`.

mod databases;
mod servers;
mod system;
mod tools;
mod users;

use std::time::Duration;

use quicksand::{Sandbox, sandbox_setup};

/// A large package in an emulated guest on a busy host.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What is to stay of packages.
const NOTHING: [&str; 0] = [];

/// A system that knows which packages there are. Packages that a mirror no longer has are in old lists.
#[sandbox_setup(image = "debian", save = "real", network = "full", timeout = "30m", max_age = "1d")]
async fn lists(sb: &Sandbox) {
    apt(sb, "update").await;
}

/// Runs apt-get, and tells why it is not the software's fault where the mirror isn't there.
async fn apt(sb: &Sandbox, words: &str) {
    let line = format!(
        "DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet=2 --option Acquire::Retries=3 --option APT::Update::Error-Mode=any {words}"
    );
    let output = sb.command("sh").args(["-c", &line]).timeout(PATIENCE).output().await.unwrap();
    assert!(
        output.success(),
        "apt-get {words} failed; this test needs a mirror of the packages that the guest reaches through this host: {output}"
    );
}

/// Runs a line of shell as a user, which must end well, and returns what it prints.
async fn run_as(sb: &Sandbox, user: &str, line: &str) -> String {
    let output = sb.command("sh").args(["-c", line]).user(user).timeout(PATIENCE).output().await.unwrap();
    assert!(output.success(), "{line}: {output}");
    output.stdout
}

async fn run(sb: &Sandbox, line: &str) -> String {
    run_as(sb, "root", line).await
}

/// Waits until a line of shell ends well, and returns what it prints then.
async fn until(sb: &Sandbox, line: &str) -> String {
    sb.wait_until_succeeds(line).timeout(PATIENCE).await.unwrap().stdout
}

/// Reboots, and waits until everything that is to run at a boot has been started, and well.
async fn reboot(sb: &Sandbox) {
    sb.reboot().await.unwrap();
    assert_eq!(sb.warnings().unwrap(), Vec::<String>::new());
    let booted = "systemctl is-system-running --wait; systemctl list-units --failed --no-legend";
    assert_eq!(run(sb, booted).await, "running\n");
}

/// Removes every package that came since the start with all that it owns, and returns what stays: the changed paths, packages and units.
/// apt by itself keeps what others recommend or suggest.
async fn remove_packages(sb: &Sandbox) -> Vec<String> {
    let changes = sb.changes().await.unwrap();
    let came = changes.packages.iter().filter(|package| package.before.is_none());
    let names: Vec<_> = came.map(|package| &*package.name).collect();
    apt(sb, &format!("purge {}", names.join(" "))).await;
    left(sb).await
}

async fn left(sb: &Sandbox) -> Vec<String> {
    let changes = sb.changes().await.unwrap();
    let files = changes.files.iter().map(|file| file.path.display().to_string());
    let packages = changes.packages.iter().map(|package| package.name.clone());
    files.chain(packages).chain(changes.units.iter().map(|unit| unit.name.clone())).collect()
}
