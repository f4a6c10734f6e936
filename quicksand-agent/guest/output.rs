//! Carries what a program writes to the host, a thread for each of its streams.
//!
//! The read end of a stream is never closed while anybody may write to it: whoever does would be killed for it. What is not to be
//! carried any more is [left](left_behind::leave) to be read and dropped.

use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter, Read},
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    left_behind,
    operation::{Operation, Output},
    serve::STACK,
    tail::{self, Tail},
};

/// What is read of a stream at the last, at most: what a pipe can hold. Its writers may go on for ever.
const LAST: usize = 64 * 1024;

/// The threads that carry a program's streams.
#[derive(Debug)]
pub(crate) struct Pumps {
    progress: Arc<Progress>,
    /// Closed to stop them.
    running: PipeWriter,
    threads: Vec<thread::JoinHandle<()>>,
}

/// How far they have come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    counts: Mutex<Counts>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    /// How many have not come to the end of their stream.
    running: usize,
    /// How many have something that the host has not taken yet.
    sending: usize,
    /// How many bytes they have read.
    read: u64,
}

impl Pumps {
    /// Starts one for each stream.
    pub(crate) fn start(sources: Vec<(File, u8)>, operation: &Arc<Operation>) -> io::Result<Pumps> {
        let (stopped, running) = io::pipe()?;
        let progress = Arc::new(Progress::default());
        progress.counts().running = sources.len();
        operation.set_progress(Arc::clone(&progress));
        let mut threads = Vec::new();
        for (source, number) in sources {
            let pump = Pump { progress: Arc::clone(&progress), stopped: stopped.try_clone()?, source };
            let output = operation.output(number);
            threads.push(thread::Builder::new().stack_size(STACK).spawn(move || pump.run(output))?);
        }
        Ok(Pumps { progress, running, threads })
    }

    /// Waits for a while until all have come to the end of their streams.
    pub(crate) fn have_ended_within(&self, time: Duration) -> bool {
        let waited = self.progress.ended.wait_timeout_while(self.progress.counts(), time, |counts| counts.running > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.running == 0
    }

    /// Whether there is more to be waited for, now that the program has ended.
    pub(crate) fn await_more(&self, tail: &mut Tail) -> bool {
        self.progress.is_sending() || tail.is_awaited(self.progress.read())
    }

    /// Has them take what is there, and leave the rest.
    pub(crate) fn stop(self) {
        drop(self.running);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Waits for the filters that a program which runs on has started and whose input has ended. Returns whether there were any.
pub(crate) fn await_filters(operation: &Operation) -> bool {
    let Some((leader, progress)) = operation.program() else { return false };
    let mut tail = Tail::of(leader);
    let mut waited = false;
    while operation.is_wanted() && (waited && progress.is_sending() || tail.has_filters(progress.read())) {
        waited = true;
        thread::sleep(tail::STEP);
    }
    waited
}

impl Progress {
    /// Whether something waits for the host, which keeps those who write from writing more.
    fn is_sending(&self) -> bool {
        self.counts().sending > 0
    }

    fn read(&self) -> u64 {
        self.counts().read
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that is carried.
#[derive(Debug)]
struct Pump {
    progress: Arc<Progress>,
    stopped: PipeReader,
    source: File,
}

impl Pump {
    fn run(mut self, output: Output) {
        let has_ended = self.carry(output);
        self.progress.counts().running -= 1;
        self.progress.ended.notify_all();
        if !has_ended {
            left_behind::leave(Arc::new(self.source));
        }
    }

    /// Sends what comes until the end of the stream, or until it is stopped and there is nothing more. Returns whether the stream has
    /// ended.
    fn carry(&mut self, mut output: Output) -> bool {
        let mut buffer = vec![0; 32 * 1024];
        let mut last = 0;
        while last < LAST {
            let Ok([readable, stopped]) = self.wait() else { return false };
            if !readable {
                return false;
            }
            let len = match self.source.read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // The second is that of a terminal that no program has open any more.
                Ok(0) | Err(_) => return true,
                Ok(len) => len,
            };
            self.count(len, 1);
            output.send_or_discard(&buffer[..len]);
            self.count(0, -1);
            if stopped {
                last += len;
            }
        }
        false
    }

    fn count(&self, read: usize, sending: isize) {
        let mut counts = self.progress.counts();
        counts.read += read as u64;
        counts.sending = counts.sending.saturating_add_signed(sending);
    }

    /// Waits until there is something to read, or an end, or it is stopped; tells which.
    fn wait(&self) -> nix::Result<[bool; 2]> {
        loop {
            let fds = [self.source.as_fd(), self.stopped.as_fd()];
            let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => {}
                polled => return polled.map(|_| fds.map(|fd| fd.any().unwrap_or(true))),
            }
        }
    }
}
