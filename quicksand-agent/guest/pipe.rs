//! Pipes of the guest's programs, seen from outside.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rustix::pipe::{SpliceFlags, tee};

use crate::process::Process;

/// How many descriptors of a process are looked at: more than most may have.
const MOST_DESCRIPTORS: usize = 1024;

/// A pipe, told from all others; or a terminal, which is one for what its programs write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pipe {
    Pipe { device: u64, inode: u64 },
    Terminal { device: u64 },
}

/// The major number of terminals that other programs carry, as ours is.
const PSEUDO_TERMINALS: u32 = 136;
/// `/dev/tty`: to each program its own terminal.
const OWN_TERMINAL: (u32, u32) = (5, 0);

/// An end of a pipe that a process has open; or both, of one with a name. Of a terminal, that it writes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PipeEnd {
    pub(crate) pipe: Pipe,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    /// The descriptor, in /proc.
    link: PathBuf,
}

/// What is in a pipe for those who read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// The bytes that nobody has read yet.
    pub(crate) unread: u64,
    /// Whether nothing can come after these, as nobody has it open for writing.
    pub(crate) ended: bool,
}

impl Pipe {
    /// The pipe or terminal that one of our own files is an end of: of a terminal, ours.
    pub(crate) fn of(file: &File) -> Option<Pipe> {
        let metadata = file.metadata().ok()?;
        if metadata.file_type().is_fifo() {
            return Some(Pipe::Pipe { device: metadata.dev(), inode: metadata.ino() });
        }
        Some(Pipe::Terminal { device: libc::makedev(PSEUDO_TERMINALS, terminal_number(file)?) })
    }

    /// Asks no file system for what it knows, unlike `stat`: the descriptor may be one of a mount that never answers.
    #[allow(unsafe_code)]
    fn behind(link: &Path, of: &Process) -> Option<Pipe> {
        let link = CString::new(link.as_os_str().as_encoded_bytes()).ok()?;
        let (flags, wanted) = (libc::AT_STATX_DONT_SYNC, libc::STATX_TYPE | libc::STATX_INO);
        let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
        // SAFETY: the path ends with a NUL, and the kernel writes a `statx` where there is room for one.
        let result = unsafe { libc::statx(libc::AT_FDCWD, link.as_ptr(), flags, wanted, found.as_mut_ptr()) };
        Errno::result(result).ok()?;
        // SAFETY: it was all zeros, which is a value of it, before the kernel wrote it.
        let found = unsafe { found.assume_init() };
        match (u32::from(found.stx_mode) & libc::S_IFMT, (found.stx_rdev_major, found.stx_rdev_minor)) {
            (libc::S_IFIFO, _) => {
                let device = libc::makedev(found.stx_dev_major, found.stx_dev_minor);
                Some(Pipe::Pipe { device, inode: found.stx_ino })
            }
            (libc::S_IFCHR, OWN_TERMINAL) => Some(Pipe::Terminal { device: of.terminal }),
            (libc::S_IFCHR, (PSEUDO_TERMINALS, number)) => {
                Some(Pipe::Terminal { device: libc::makedev(PSEUDO_TERMINALS, number) })
            }
            _ => None,
        }
    }

    fn is_terminal(self) -> bool {
        matches!(self, Pipe::Terminal { .. })
    }
}

impl PipeEnd {
    /// Those that a process has open, of pipes with names or without, and of terminals.
    pub(crate) fn all_of(process: &Process) -> Vec<PipeEnd> {
        let entries = fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten().flatten();
        entries.take(MOST_DESCRIPTORS).filter_map(|entry| PipeEnd::at(entry.path(), process)).collect()
    }

    /// At a descriptor in /proc, whose link has the rights with which it was opened.
    fn at(link: PathBuf, of: &Process) -> Option<PipeEnd> {
        let pipe = Pipe::behind(&link, of)?;
        let mode = fs::symlink_metadata(&link).ok()?.permissions().mode();
        // What is typed is no output of another program.
        let reads = mode & 0o400 != 0 && !pipe.is_terminal();
        Some(PipeEnd { pipe, reads, writes: mode & 0o200 != 0, link })
    }

    /// Looks into the pipe. `None` where it is not there any more.
    pub(crate) fn content(&self) -> Option<Content> {
        // A reader more does no harm: there is one already.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(&self.link).ok()?;
        if Pipe::of(&file) != Some(self.pipe) {
            return None;
        }
        let unread = rustix::io::ioctl_fionread(&file).ok()?;
        let ended = is_hung_up(&file) || unread == 0 && has_no_writer(&file).unwrap_or(false);
        Some(Content { unread, ended })
    }
}

#[allow(unsafe_code)]
fn terminal_number(file: &File) -> Option<u32> {
    nix::ioctl_read_bad!(number_of, libc::TIOCGPTN, libc::c_uint);
    let mut number = 0;
    // SAFETY: TIOCGPTN writes one number, for which there is room; other files than terminals fail.
    unsafe { number_of(file.as_raw_fd(), &mut number) }.ok()?;
    Some(number)
}

fn is_hung_up(file: &File) -> bool {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

/// The same of an empty pipe with a name: such a one does not tell who has just opened it of a hang-up before.
fn has_no_writer(file: &File) -> io::Result<bool> {
    let (_reader, writer) = io::pipe()?;
    Ok(tee(file, &writer, 1, SpliceFlags::NONBLOCK)? == 0)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::OwnedFd};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    fn ours(pipe: Pipe) -> impl Iterator<Item = PipeEnd> {
        PipeEnd::all_of(&Process::find(std::process::id() as i32).unwrap())
            .into_iter()
            .filter(move |end| end.pipe == pipe)
    }

    fn content(pipe: Pipe) -> (u64, bool) {
        let content = ours(pipe).find(|end| end.reads).unwrap().content().unwrap();
        (content.unread, content.ended)
    }

    #[test]
    fn the_ends_of_our_pipes_are_found() {
        let (reader, writer) = io::pipe().unwrap();
        let [reader, writer] = [OwnedFd::from(reader), writer.into()].map(File::from);
        let pipe = Pipe::of(&reader).unwrap();
        assert_eq!(Pipe::of(&writer), Some(pipe));
        let ends: Vec<_> = ours(pipe).map(|end| (end.reads, end.writes)).collect();
        assert!(ends.contains(&(true, false)) && ends.contains(&(false, true)), "{ends:?}");
        assert_eq!(Pipe::of(&File::open("/dev/null").unwrap()), None);
    }

    #[test]
    fn what_is_in_a_pipe_is_told_and_whether_more_can_come() {
        let (reader, mut writer) = io::pipe().unwrap();
        let reader = File::from(OwnedFd::from(reader));
        let pipe = Pipe::of(&reader).unwrap();
        assert_eq!(content(pipe), (0, false));
        writer.write_all(b"abc").unwrap();
        assert_eq!(content(pipe), (3, false));
        drop(writer);
        assert_eq!(content(pipe), (3, true));
        io::Read::read(&mut &reader, &mut [0; 9]).unwrap();
        assert_eq!(content(pipe), (0, true));
    }

    #[test]
    fn a_pipe_with_a_name_is_no_different_when_it_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let both = File::options().read(true).write(true).open(&path).unwrap();
        let reader = File::open(&path).unwrap();
        let pipe = Pipe::of(&reader).unwrap();
        let of_reader = || ours(pipe).find(|end| !end.writes).unwrap().content().unwrap();
        assert_eq!(of_reader(), Content { unread: 0, ended: false });
        drop(both);
        assert_eq!(of_reader(), Content { unread: 0, ended: true });
    }
}
