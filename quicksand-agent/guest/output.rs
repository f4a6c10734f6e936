//! Carries what a program writes to the host, a thread for each of its streams.
//!
//! The read end of a stream is never closed while anybody may write to it: whoever does would be killed for it. What is not to be
//! carried any more is [left](left_behind::leave) to be read and dropped.

use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    filters::Streams,
    left_behind,
    operation::{Operation, Output},
    pipe::Pipe,
    process::Process,
    serve::STACK,
    session::Program,
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
    streams: Streams,
    counts: Mutex<Counts>,
    ended: Condvar,
    /// Processes, by number and beginning, that were waited for in vain.
    given_up: Mutex<Vec<(i32, u64)>>,
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
    /// Starts one for each stream of a program that has that input.
    pub(crate) fn start(
        sources: Vec<(File, u8)>,
        input: Option<Pipe>,
        operation: &Arc<Operation>,
    ) -> io::Result<Pumps> {
        let (stopped, running) = io::pipe()?;
        let outputs = sources.iter().filter_map(|(source, _)| Pipe::of(source)).collect();
        let progress = Arc::new(Progress { streams: Streams { outputs, input }, ..Progress::default() });
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

    /// Waits for what is on its way once the program has ended.
    pub(crate) fn await_tail(&self, program: Program, operation: &Operation) {
        if self.have_ended_within(tail::STEP) {
            return;
        }
        let mut tail = Tail::of(program, &self.progress);
        while tail.is_awaited() && operation.is_wanted() && !self.have_ended_within(tail.rest()) {}
    }

    fn have_ended_within(&self, time: Duration) -> bool {
        let waited = self.progress.ended.wait_timeout_while(self.progress.counts(), time, |counts| counts.running > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.running == 0
    }

    /// Has them take what is there, and leave the rest.
    pub(crate) fn stop(self) {
        drop(self.running);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Waits for the filters that a program which runs on has started, while they have something to do. Returns whether there were any.
pub(crate) fn await_filters(operation: &Operation) -> bool {
    let Some((program, progress)) = operation.program() else { return false };
    let mut tail = Tail::of(program, &progress);
    let mut waited = false;
    while operation.is_wanted() && tail.has_filters() {
        waited = true;
        thread::sleep(tail.rest());
    }
    waited
}

impl Progress {
    /// Whether something waits for the host, which keeps those who write from writing more.
    pub(crate) fn is_sending(&self) -> bool {
        self.counts().sending > 0
    }

    /// How many bytes have been read.
    pub(crate) fn read(&self) -> u64 {
        self.counts().read
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Waits for these no more.
    pub(crate) fn give_up(&self, processes: Vec<Process>) {
        self.given_up().extend(processes.iter().map(|process| (process.pid, process.begun)));
    }

    pub(crate) fn is_given_up(&self, process: &Process) -> bool {
        self.given_up().contains(&(process.pid, process.begun))
    }

    fn given_up(&self) -> MutexGuard<'_, Vec<(i32, u64)>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
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
            left_behind::leave(self.source);
        }
    }

    /// Sends what comes until the end of the stream, until it is stopped and there is nothing more, or until nobody takes it any more.
    /// Returns whether the stream has ended.
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
            let sent = output.write_all(&buffer[..len]);
            self.count(0, -1);
            if sent.is_err() {
                return false;
            }
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
