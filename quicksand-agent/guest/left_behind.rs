//! What programs in the background still write when nobody takes it any more.
//!
//! A pipe whose reader is gone kills whoever writes to it. So what a program of the host's leaves open when it ends is read on for as long
//! as anybody may write, and dropped: by one thread for all of it, which sleeps while there is nothing to read.

use std::{
    collections::HashMap,
    error::Error,
    fs::File,
    io::{ErrorKind, Read},
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use crate::serve::STACK;

/// How much is read of each source at a time: what a pipe holds.
const PIECE: usize = 64 * 1024;
/// Between two reads of whatever writes on. One that writes without end is to take little of the guest's processors.
const REST: Duration = Duration::from_millis(10);
static DRAIN: OnceLock<Drain> = OnceLock::new();

struct Drain {
    epoll: Epoll,
    sources: Mutex<HashMap<RawFd, Arc<File>>>,
}

/// Makes ready for what will be left behind.
pub(crate) fn start() -> Result<(), Box<dyn Error>> {
    let drain = Drain { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, sources: Mutex::default() };
    let drain = DRAIN.get_or_init(|| drain);
    thread::Builder::new().stack_size(STACK).spawn(|| drain.run())?;
    Ok(())
}

/// Reads a source to its end from now on, and drops what it reads.
pub(crate) fn leave(source: Arc<File>) {
    if let Some(drain) = DRAIN.get() {
        drain.add(source);
    }
}

impl Drain {
    fn add(&self, source: Arc<File>) {
        // Else a read would block all others where somebody else has read what was there, as through /proc.
        if let Ok(flags) = fcntl(&source, FcntlArg::F_GETFL) {
            let _ = fcntl(&source, FcntlArg::F_SETFL(OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK));
        }
        let number = source.as_raw_fd();
        // Before it is watched, since it may be found at its end at once. Where it can't be watched it stays open all the same: whoever
        // fills it is blocked, and not killed.
        self.sources().insert(number, Arc::clone(&source));
        let _ = self.epoll.add(&source, EpollEvent::new(EpollFlags::EPOLLIN, number as u64));
    }

    fn run(&self) {
        let (mut events, mut buffer) = ([EpollEvent::empty(); 64], vec![0; PIECE]);
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(_) => 0,
            };
            for event in &events[..count] {
                self.take(event.data() as RawFd, &mut buffer);
            }
            thread::sleep(REST);
        }
    }

    fn take(&self, number: RawFd, buffer: &mut [u8]) {
        let mut sources = self.sources();
        let Some(source) = sources.get(&number) else { return };
        match source.as_ref().read(buffer) {
            Ok(1..) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // A terminal fails when no program has it open any more.
            Ok(0) | Err(_) => {
                let _ = self.epoll.delete(source);
                sources.remove(&number);
            }
        }
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<RawFd, Arc<File>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
