//! The tutorial, step by step as a reader takes it: its files are written and its commands run in a new crate outside of the workspace,
//! and what they print is compared with the page.
//!
//! The crate is built from what `tests/runners.rs` builds its project from, with the same profile and under `target/runners`, so that
//! only the first run of the two compiles all of it.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

const PAGE: &str = include_str!("../docs/tutorial.md");

/// What the page has its reader do.
#[derive(Debug)]
enum Step {
    /// Write a file, which the line above the block names: "Write `tests/install.rs`:".
    Write { path: String, content: String },
    /// Run a command of a `console` block, which prints this on standard output and ends with this code.
    Run { line: String, exit_code: i32, stdout: Vec<String> },
}

/// The steps of the page, in its order.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut above = "";
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            above = if line.is_empty() { above } else { line };
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if language == "console" {
            run_steps(&block, &mut steps);
        } else {
            let path = above.strip_suffix("`:").and_then(|above| Some(above.rsplit_once('`')?.1));
            let path = path.unwrap_or_else(|| panic!("the line above a file must name it, and is {above:?}"));
            steps.push(Step::Write { path: path.to_owned(), content: block.join("\n") + "\n" });
        }
    }
    steps
}

fn run_steps(block: &[&str], steps: &mut Vec<Step>) {
    for line in block {
        if let Some(line) = line.strip_prefix("$ ") {
            steps.push(Step::Run { line: line.to_owned(), exit_code: 0, stdout: Vec::new() });
            continue;
        }
        let Some(Step::Run { exit_code, stdout, .. }) = steps.last_mut() else { panic!("{line:?} follows no command") };
        match line.strip_prefix("? ") {
            Some(code) => *exit_code = code.parse().unwrap(),
            None => stdout.push((*line).to_owned()),
        }
    }
}

/// The lines of a text, those that tell how tests ended by name: which one ends first is chance.
fn in_order(text: &str) -> Vec<&str> {
    // A busy host adds such lines.
    let mut lines: Vec<&str> = text.trim_end().lines().filter(|line| !line.ends_with(" for over 60 seconds")).collect();
    for results in lines.chunk_by_mut(|one, next| [one, next].iter().all(|line| is_result(line))) {
        results.sort_unstable();
    }
    lines
}

fn is_result(line: &str) -> bool {
    line.starts_with("test ") && line.contains(" ... ")
}

/// Whether lines are those of the page, in which `...` stands for any lines and `[..]` for anything within one.
fn fit(lines: &[&str], page: &[&str]) -> bool {
    match page.split_first() {
        None => lines.is_empty(),
        Some((&"...", rest)) => (0..=lines.len()).any(|skipped| fit(&lines[skipped..], rest)),
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, lines)| line_fits(line, first) && fit(lines, rest))
        }
    }
}

fn line_fits(line: &str, page: &str) -> bool {
    match page.split_once("[..]") {
        None => without_times(line) == without_times(page),
        Some((before, after)) => line.starts_with(before) && line[before.len()..].ends_with(after),
    }
}

/// A line without the time that a run of tests took.
fn without_times(line: &str) -> &str {
    line.find("; finished in ").map_or(line, |at| &line[..at])
}

/// A cache whose failed machines and slots are its own, with the images and warm states of the real one.
fn cache(directory: &Path) -> PathBuf {
    let cache = directory.join("cache");
    let own = env::var_os("QUICKSAND_CACHE_DIR").map(PathBuf::from);
    let real = own.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache/quicksand"));
    fs::create_dir(&cache).unwrap();
    for name in ["images", "initramfs", "states", "locks"] {
        fs::create_dir_all(real.join(name)).unwrap();
        symlink(real.join(name), cache.join(name)).unwrap();
    }
    cache
}

/// A shell's command with nothing of this very run of tests in its environment.
fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    let ours = |name: &str| ["CARGO", "NEXTEST", "QUICKSAND_", "RUST_"].iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in env::vars_os().filter(|(name, _)| name != "CARGO_HOME") {
        if name.to_str().is_some_and(ours) {
            command.env_remove(name);
        }
    }
    command.args(["-c", line]);
    command
}

#[test]
fn every_step_does_what_the_page_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("runners");
    fs::create_dir_all(&target).unwrap();
    // No other run there is the latest meanwhile.
    let only_one = File::create(target.join("lock")).unwrap();
    only_one.lock().unwrap();
    // Outside of the workspace, to which cargo would add the crate.
    let temporary = tempfile::tempdir().unwrap();
    let cache = cache(temporary.path());
    let mut directory = temporary.path().to_owned();

    for step in steps(PAGE) {
        match step {
            Step::Write { path, content } => {
                let path = directory.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            Step::Run { line, .. } if line.starts_with("cd ") => {
                directory.push(&line["cd ".len()..]);
                // The versions that the workspace has, so that nothing is fetched, and what an earlier run built.
                fs::copy(root.join("Cargo.lock"), directory.join("Cargo.lock")).unwrap();
                symlink(&target, directory.join("target")).unwrap();
            }
            Step::Run { line, exit_code, stdout } => {
                // Through another path cargo would take the packages of the workspace for others, and build them again.
                let output = shell(&line.replace("../quicksand", root.to_str().unwrap()))
                    .current_dir(&directory)
                    .env("QUICKSAND_CACHE_DIR", &cache)
                    .env("CARGO_NET_OFFLINE", "true")
                    .env("CARGO_TERM_COLOR", "never")
                    .env("CARGO_INCREMENTAL", "0")
                    .env("CARGO_PROFILE_DEV_DEBUG", "0")
                    .output()
                    .unwrap();
                let (printed, errors) =
                    (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                assert_eq!(output.status.code(), Some(exit_code), "`{line}`:\n{printed}{errors}");
                let shown = stdout.join("\n");
                assert!(
                    stdout.is_empty() || fit(&in_order(&printed), &in_order(&shown)),
                    "`{line}` printed\n{printed}\nand the page has\n{shown}\n{errors}"
                );
            }
        }
    }
}
