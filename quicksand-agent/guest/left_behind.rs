//! What programs in the background still write when nobody takes it any more.
//!
//! A pipe whose reader is gone kills whoever writes to it. So what a program of the host's leaves open when it ends is read on for as long
//! as anybody may write, and dropped: by one thread for all of it, which sleeps while there is nothing to read. Who floods it is read
//! seldom, and waits at a full pipe meanwhile: it is to take little of the guest's processors.

use std::{
    collections::HashMap,
    error::Error,
    fs::File,
    io::{ErrorKind, Read},
    os::fd::{AsRawFd, RawFd},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use crate::serve::STACK;

/// How much is read at once.
const PIECE: usize = 64 * 1024;
/// How much is taken of a source before the others have their turn, and what a pipe then holds that was found full.
const GULP: usize = 1 << 20;
/// Between two reads of whatever writes on.
const REST: Duration = Duration::from_millis(10);
/// The same, at most, of what floods us.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// How much a source may write in a second for as long as it likes, and how much at once beyond that.
const RATE: u64 = 1 << 20;
const BURST: u64 = 8 << 20;
static DRAIN: OnceLock<Drain> = OnceLock::new();

struct Drain {
    epoll: Epoll,
    sources: Mutex<HashMap<RawFd, Source>>,
}

struct Source {
    file: File,
    /// How much it wrote of late: what it writes, less what it may in the time that has passed.
    level: u64,
    taken: Instant,
    /// When it is to be watched again.
    due: Option<Instant>,
}

/// Makes ready for what will be left behind.
pub(crate) fn start() -> Result<(), Box<dyn Error>> {
    let drain = Drain::new()?;
    let drain = DRAIN.get_or_init(|| drain);
    thread::Builder::new().stack_size(STACK).spawn(|| drain.run())?;
    Ok(())
}

/// Reads a source to its end from now on, and drops what it reads.
pub(crate) fn leave(source: File) {
    if let Some(drain) = DRAIN.get() {
        drain.add(source);
    }
}

impl Drain {
    fn new() -> nix::Result<Drain> {
        Ok(Drain { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, sources: Mutex::default() })
    }

    fn add(&self, file: File) {
        // Else a read would block all others where somebody else has read what was there, as through /proc.
        if let Ok(flags) = fcntl(&file, FcntlArg::F_GETFL) {
            let _ = fcntl(&file, FcntlArg::F_SETFL(OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK));
        }
        let number = file.as_raw_fd();
        let mut sources = self.sources();
        // Where it can't be watched it stays open all the same: whoever fills it is blocked, and not killed.
        let _ = self.epoll.add(&file, watched(number));
        sources.insert(number, Source { file, level: 0, taken: Instant::now(), due: None });
    }

    fn run(&self) {
        let mut buffer = vec![0; PIECE];
        loop {
            self.step(&mut buffer);
        }
    }

    /// Waits until there is something to be done, and does it.
    fn step(&self, buffer: &mut [u8]) {
        let mut events = [EpollEvent::empty(); 64];
        let wait = match self.watch_those_due() {
            // A millisecond more, since it is rounded down.
            Some(time) => EpollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(EpollTimeout::ZERO),
            None => EpollTimeout::NONE,
        };
        let count = match self.epoll.wait(&mut events, wait) {
            Ok(count) => count,
            Err(Errno::EINTR) => return,
            Err(_) => return thread::sleep(LONGEST_REST),
        };
        for event in &events[..count] {
            self.take(event.data() as RawFd, buffer);
        }
    }

    /// Returns when the next one is due, if any is.
    fn watch_those_due(&self) -> Option<Duration> {
        let now = Instant::now();
        for (number, source) in self.sources().iter_mut() {
            if source.due.is_some_and(|due| due <= now) {
                source.due = None;
                let _ = self.epoll.modify(&source.file, &mut watched(*number));
            }
        }
        self.sources().values().filter_map(|source| source.due).min().map(|due| due.saturating_duration_since(now))
    }

    fn take(&self, number: RawFd, buffer: &mut [u8]) {
        let mut sources = self.sources();
        let Some(source) = sources.get_mut(&number) else { return };
        if source.take(buffer) {
            source.due = Some(source.taken + source.rest());
        } else {
            let _ = self.epoll.delete(&source.file);
            sources.remove(&number);
        }
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<RawFd, Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// Reads what is there. Returns whether more may come.
    fn take(&mut self, buffer: &mut [u8]) -> bool {
        let holds = fcntl(&self.file, FcntlArg::F_GETPIPE_SZ).map_or(GULP, |size| size as usize);
        let mut taken = 0;
        while taken < GULP {
            match self.file.read(buffer) {
                // A terminal fails when no program has it open any more.
                Ok(0) => return false,
                Ok(len) => taken += len,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        if (holds..GULP).contains(&taken) {
            // Fails only where the guest has no memory for it.
            let _ = fcntl(&self.file, FcntlArg::F_SETPIPE_SZ(GULP as i32));
        }
        self.count(taken as u64, Instant::now());
        true
    }

    fn count(&mut self, taken: u64, now: Instant) {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.taken, now));
        let allowed = passed.as_millis() * u128::from(RATE) / 1000;
        self.level = self.level.saturating_sub(u64::try_from(allowed).unwrap_or(u64::MAX)).saturating_add(taken);
    }

    /// How long to leave it alone: until it has come down to what it may write at once.
    fn rest(&self) -> Duration {
        let beyond = self.level.saturating_sub(BURST);
        Duration::from_millis(beyond * 1000 / RATE).clamp(REST, LONGEST_REST)
    }
}

/// Once: it is watched again when it has rested.
fn watched(number: RawFd) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, number as u64)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::OwnedFd};

    use super::*;

    fn source() -> (Source, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        let source = Source { file: OwnedFd::from(reader).into(), level: 0, taken: Instant::now(), due: None };
        fcntl(&source.file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        (source, writer)
    }

    #[test]
    fn a_flood_is_read_seldom_and_a_log_often() {
        let (mut source, _writer) = source();
        let mut now = Instant::now();
        source.count(BURST, now);
        assert_eq!(source.rest(), REST, "a burst");
        for _ in 0..100 {
            source.count(GULP as u64 / 2, now);
            now += source.rest();
        }
        // Half as much as it wrote at once is what it may write in half a second.
        assert!(source.rest() > Duration::from_millis(400), "{:?}", source.rest());
        source.count(100, now + Duration::from_secs(20));
        assert_eq!(source.rest(), REST);
    }

    #[test]
    fn a_pipe_that_was_full_holds_more_and_one_whose_writers_have_gone_has_ended() {
        let (mut source, mut writer) = source();
        let size = |source: &Source| fcntl(&source.file, FcntlArg::F_GETPIPE_SZ).unwrap() as usize;
        let before = size(&source);
        writer.write_all(&vec![b'y'; before]).unwrap();
        let mut buffer = vec![0; PIECE];
        assert!(source.take(&mut buffer) && size(&source) > before);
        drop(writer);
        assert!(!source.take(&mut buffer));
    }

    #[test]
    fn a_writer_is_neither_killed_nor_held_up() {
        let drain = Drain::new().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        drain.add(OwnedFd::from(reader).into());
        let writes = thread::spawn(move || writer.write_all(&vec![b'y'; 3 * GULP]));
        let mut buffer = vec![0; PIECE];
        while !drain.sources().is_empty() {
            drain.step(&mut buffer);
        }
        writes.join().unwrap().unwrap();
    }
}
