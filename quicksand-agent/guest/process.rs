//! What the kernel tells of the guest's processes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, libc};

/// How many descriptors of a process are looked at: more than most may have.
const MOST_DESCRIPTORS: usize = 1024;

/// A process, as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) session: i32,
    /// When it began, in ticks: together with its number it is told from all others.
    pub(crate) begun: u64,
    /// How long it had a processor, in ticks.
    pub(crate) worked: u64,
    state: u8,
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

    /// Reads a `/proc/PID/stat`: `pid (name) state parent group session …`, where the name may hold anything.
    fn parse(pid: i32, stat: &str) -> Option<Process> {
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Process {
            pid,
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            worked: number(11)? + number(12)?,
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

    /// Whether the number still is this process.
    pub(crate) fn is_there(&self) -> bool {
        Process::find(self.pid).is_some_and(|now| now.begun == self.begun)
    }

    /// The ends of pipes that it has open, with names or without.
    pub(crate) fn pipe_ends(&self) -> Vec<PipeEnd> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten().flatten();
        entries.take(MOST_DESCRIPTORS).filter_map(|entry| PipeEnd::of(&entry.path())).collect()
    }
}

/// A pipe, told from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pipe {
    device: (u32, u32),
    inode: u64,
}

/// An end of a pipe that a process has open; or both, of one with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PipeEnd {
    pub(crate) pipe: Pipe,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

impl PipeEnd {
    /// Of a descriptor in /proc, whose link has the rights with which it was opened.
    fn of(link: &Path) -> Option<PipeEnd> {
        let pipe = Pipe::behind(link.to_owned())?;
        let mode = fs::symlink_metadata(link).ok()?.permissions().mode();
        Some(PipeEnd { pipe, reads: mode & 0o400 != 0, writes: mode & 0o200 != 0 })
    }
}

impl Pipe {
    /// The pipe that one of our own descriptors leads to, if it is one.
    #[cfg(test)]
    pub(crate) fn of(file: &impl std::os::fd::AsRawFd) -> Option<Pipe> {
        Pipe::behind(format!("/proc/self/fd/{}", file.as_raw_fd()).into())
    }

    /// Asks no file system for what it knows, unlike `stat`: the descriptor may be one of a mount that never answers.
    #[allow(unsafe_code)]
    fn behind(link: PathBuf) -> Option<Pipe> {
        let link = std::ffi::CString::new(link.into_os_string().into_encoded_bytes()).ok()?;
        let (flags, wanted) = (libc::AT_STATX_DONT_SYNC, libc::STATX_TYPE | libc::STATX_INO);
        let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
        // SAFETY: the path ends with a NUL, and the kernel writes a `statx` where there is room for one.
        let result = unsafe { libc::statx(libc::AT_FDCWD, link.as_ptr(), flags, wanted, found.as_mut_ptr()) };
        Errno::result(result).ok()?;
        // SAFETY: it was all zeros, which is a value of it, before the kernel wrote it.
        let found = unsafe { found.assume_init() };
        let is_pipe = u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFIFO;
        is_pipe.then_some(Pipe { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino })
    }
}

#[cfg(test)]
impl Process {
    /// One that sleeps.
    pub(crate) fn example(pid: i32, parent: i32, session: i32) -> Process {
        Process { pid, parent, session, begun: 1, worked: 0, state: b'S', threads: 1 }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_process_is_read_behind_any_name() {
        let stat = "12 (a) b) S 3 12 10 34816 12 4194304 1 2 3 4 50 7 1 1 20 0 1 0 4711 99";
        let process = Process::parse(12, stat).unwrap();
        assert_eq!((process.parent, process.session, process.worked, process.begun), (3, 10, 57, 4711));
        assert!(process.lives() && !process.is_busy());
        assert_eq!(Process::parse(12, "12 (sh) S 1 12"), None);
        assert_eq!(Process::parse(12, ""), None);
    }

    #[test]
    fn we_find_ourselves_and_our_pipes() {
        let (reader, writer) = std::io::pipe().unwrap();
        let us = Process::all().into_iter().find(|process| process.pid as u32 == std::process::id()).unwrap();
        assert!(us.is_there() && us.lives());
        let pipe = Pipe::of(&reader).unwrap();
        assert_eq!(Pipe::of(&writer), Some(pipe));
        let ends = us.pipe_ends();
        let has = |reads, writes| ends.contains(&PipeEnd { pipe, reads, writes });
        assert!(has(true, false) && has(false, true) && !has(true, true), "{ends:?}");
        assert_eq!(Pipe::of(&fs::File::open("/dev/null").unwrap().as_fd()), None);
    }
}
