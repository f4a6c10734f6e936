//! The variables of the environment: their table in the documentation, and what a wrong one says.

use std::process::{Command, Stdio};

use quicksand::{Sandbox, environment::VARIABLES};

#[test]
fn every_variable_is_in_the_tables_of_the_documentation() {
    let rows: String = VARIABLES
        .iter()
        .map(|variable| format!("| `{}` | {} | {} |\n", variable.name, variable.accepted, variable.meaning))
        .collect();
    let library: String = include_str!("../src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .map(|line| format!("{line}\n"))
        .collect();
    for (file, text) in [("docs/environment.md", include_str!("../docs/environment.md")), ("src/lib.rs", &library)] {
        assert!(text.contains(&rows), "{file} needs these rows:\n{rows}");
        assert_eq!(text.matches("| `QUICKSAND_").count(), VARIABLES.len(), "{file} has other rows");
    }
}

#[tokio::test]
#[ignore = "run by the other test in a process of its own, with variables in its environment"]
async fn child() {
    println!("outcome: {}", Sandbox::builder("debian").start().await.unwrap_err());
}

#[test]
fn a_wrong_variable_is_refused_at_every_start() {
    for (name, value, answer) in [
        ("QUICKSAND_CACHE_DIR", "relative/path", "use QUICKSAND_CACHE_DIR=relative/path: write an absolute path"),
        ("QUICKSAND_KEEP", "sometimes", "use QUICKSAND_KEEP=sometimes: write always, failed or never"),
        ("QUICKSAND_REQIURE", "1", "use QUICKSAND_REQIURE: there is no such variable; there are QUICKSAND_ACCEL, "),
        ("QUICKSAND_ACCEL", "hvf", "use accel = \"hvf\": this is linux, which has none"),
    ] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env(name, value)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&format!("outcome: {answer}")), "{name}={value}: {said}");
    }
}
