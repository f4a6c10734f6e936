//! Which run of the test suite this process belongs to: what happens once in a run is told by it.

use std::{fs, process, sync::OnceLock};

/// How many parents up the program that runs the tests may be.
const MOST_PARENTS: usize = 16;

/// A run of the test suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ThisRun {
    /// The same in all processes of the run, and in no other run.
    pub(crate) id: String,
    /// Which try of its test this process is, from 1.
    pub(crate) attempt: u32,
}

impl ThisRun {
    /// cargo-nextest names its runs. With `cargo test` it is cargo's process that makes one. A test program that is started by hand
    /// is a run of its own.
    pub(crate) fn get() -> &'static ThisRun {
        static THIS: OnceLock<ThisRun> = OnceLock::new();
        THIS.get_or_init(|| {
            let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
            let attempt = variable("NEXTEST_ATTEMPT").and_then(|attempt| attempt.parse().ok()).unwrap_or(1);
            let id = variable("NEXTEST_RUN_ID").map_or_else(id_of_process, |id| format!("nextest {id}"));
            ThisRun { id, attempt }
        })
    }
}

fn id_of_process() -> String {
    let own = process::id();
    let mut pid = own;
    for _ in 0..MOST_PARENTS {
        let Some(Stat { parent, name, begun }) = Stat::of(pid) else { break };
        if name == "cargo" {
            return format!("cargo {pid} {begun} {}", boot());
        }
        pid = parent;
    }
    let begun = Stat::of(own).map(|stat| stat.begun).unwrap_or_default();
    format!("process {own} {begun} {}", boot())
}

/// Process ids come again after a reboot, and so do times since the boot.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// What the kernel tells of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    name: String,
    /// When it began, in ticks since the boot.
    begun: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Stat> {
        // The name may have spaces and parentheses of its own.
        let (before, after) = text.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let parent = fields.get(1)?.parse().ok()?;
        Some(Stat { parent, name: name.to_owned(), begun: fields.get(19)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read() {
        let text = "12 (a) b) (c) S 7 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 10 11";
        assert_eq!(Stat::parse(text), Some(Stat { parent: 7, name: "a) b) (c".into(), begun: 98765 }));
        assert_eq!(Stat::parse("12 (a) S 7"), None);
        assert_eq!(Stat::of(process::id()).unwrap().parent, std::os::unix::process::parent_id());
    }

    #[test]
    fn it_is_the_same_each_time() {
        assert_eq!(id_of_process(), id_of_process());
    }
}
