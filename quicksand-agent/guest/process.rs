//! What the kernel tells of the guest's processes.

use std::fs;

use nix::libc;

/// A process, as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// The device that is its terminal, or 0.
    pub(crate) terminal: u64,
    /// When it began, in ticks: together with its number it is told from all others.
    pub(crate) begun: u64,
    pub(crate) state: u8,
    threads: u64,
}

impl Process {
    /// Looks at one process. `None` where there is none.
    pub(crate) fn find(pid: i32) -> Option<Process> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Process::parse(pid, &String::from_utf8_lossy(&stat))
    }

    /// Looks at all of them.
    pub(crate) fn all() -> Vec<Process> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| Process::find(entry.file_name().to_str()?.parse().ok()?)).collect()
    }

    /// Reads a `/proc/PID/stat`: `pid (name) state parent group session terminal …`, where the name may hold anything.
    fn parse(pid: i32, stat: &str) -> Option<Process> {
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Process {
            pid,
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            terminal: device(fields.get(4)?.parse().ok()?),
            threads: number(17)?,
            begun: number(19)?,
        })
    }

    /// Whether any of its threads is still to end.
    pub(crate) fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X') || self.threads > 1
    }

    /// Whether it works, would work if it had a processor, or waits for a disk.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.state, b'R' | b'D')
    }
}

/// A device by its number in there, which has the bits of major and minor in another order than elsewhere.
fn device(number: i32) -> u64 {
    let number = number as u32;
    libc::makedev(number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00)
}

#[cfg(test)]
impl Process {
    /// One that sleeps.
    pub(crate) fn example(pid: i32, parent: i32, session: i32) -> Process {
        Process { pid, parent, group: session, session, terminal: 0, begun: 1, state: b'S', threads: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_behind_any_name() {
        let stat = "12 (a) b) S 3 11 10 34816 12 4194304 1 2 3 4 50 7 1 1 20 0 1 0 4711 99";
        let process = Process::parse(12, stat).unwrap();
        assert_eq!((process.parent, process.group, process.session), (3, 11, 10));
        assert_eq!((process.begun, process.terminal), (4711, libc::makedev(136, 0)));
        assert!(process.lives() && !process.is_busy());
        assert_eq!(Process::parse(12, "12 (sh) S 1 12"), None);
        assert_eq!(Process::parse(12, ""), None);
    }

    #[test]
    fn we_find_ourselves() {
        let us = Process::all().into_iter().find(|process| process.pid as u32 == std::process::id()).unwrap();
        assert!(us.lives());
    }
}
