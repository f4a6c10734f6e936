//! One operation of the host's: its streams, their credit, and what ends it.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use nix::sys::{
    signal::{Signal, killpg},
    socket::{Shutdown, shutdown},
};
use quicksand_protocol::{
    flow::{ReceiveCredit, SendCredit},
    frame::{Kind, MAX_PAYLOAD},
    message::{Done, Failure, Reply, Window, stream, to_payload},
};

use crate::{
    output::Progress,
    port::{Session, Writer},
    serve::STACK,
    session::{self, Program},
    terminal,
};

/// An operation under way, shared by the threads that carry it out and the one that reads the port.
#[derive(Debug)]
pub(crate) struct Operation {
    id: u32,
    port: Arc<Writer>,
    session: Session,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    input: VecDeque<u8>,
    input_ended: bool,
    receive: ReceiveCredit,
    send: [SendCredit; 3],
    /// The program, with its process group and its session.
    program: Option<Program>,
    /// How far its output has been carried.
    progress: Option<Arc<Progress>>,
    /// Whether that session is being ended.
    ending: bool,
    /// The terminal that its process has.
    terminal: Option<File>,
    socket: Option<OwnedFd>,
    end: End,
}

/// Whether an operation is still wanted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    Wanted,
    /// The host gave it up and waits for its reply.
    Cancelled,
    /// Its session is over: nobody listens, but its process may go on.
    Detached,
}

impl Operation {
    pub(crate) fn new(id: u32, port: Arc<Writer>) -> Arc<Operation> {
        let session = port.session();
        Arc::new(Operation { id, port, session, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Sends the reply.
    pub(crate) fn finish(&self, result: Result<Done, Failure>) {
        let reply: Reply = result.map_err(|mut failure| {
            failure.message = failure.message.chars().take(1024).collect();
            failure
        });
        // A reply is short by construction; a port that can't be written has no one at its other end.
        if let Ok(payload) = to_payload(&reply) {
            let _ = self.send(Kind::Reply, 0, &payload);
        }
    }

    /// Takes bytes of the input stream from the host.
    pub(crate) fn data(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.receive.receive(bytes.len()).is_ok() {
            state.input.extend(bytes);
        } else {
            state.end = End::Cancelled;
        }
        self.changed.notify_all();
    }

    /// Takes the end of the input stream from the host.
    pub(crate) fn eof(&self) {
        self.state().input_ended = true;
        self.changed.notify_all();
    }

    /// Takes credit for an output stream from the host.
    pub(crate) fn credit(&self, stream: u8, payload: &[u8]) {
        if let Some(credit) = self.state().send.get_mut(usize::from(stream)) {
            // The host is trusted; a wrong grant of its would only be refused.
            let _ = credit.grant(payload);
        }
        self.changed.notify_all();
    }

    /// Ends the operation: what it runs is killed, and its streams fail. They do so last, so that a program dies of the kill, and not
    /// of a pipe that is closed.
    pub(crate) fn cancel(self: &Arc<Self>) {
        let mut state = self.state();
        let Some(program) = state.program else {
            drop(state);
            return self.give_up(End::Cancelled);
        };
        if !std::mem::replace(&mut state.ending, true) {
            drop(state);
            let operation = Arc::clone(self);
            // Not on this thread, which reads the port: it takes a while to find all of a session.
            let spawned = thread::Builder::new().stack_size(STACK).spawn(move || operation.end_session(program));
            if spawned.is_err() {
                self.end_session(program);
            }
        }
    }

    fn end_session(&self, program: Program) {
        session::end(program);
        self.state().ending = false;
        self.give_up(End::Cancelled);
    }

    /// Lets go of the operation, whose session is over: its output goes nowhere, its process runs on.
    pub(crate) fn detach(&self) {
        self.give_up(End::Detached);
    }

    fn give_up(&self, end: End) {
        let mut state = self.state();
        state.end = end;
        wake_socket(&state);
        self.changed.notify_all();
    }

    /// Whether the host has neither given the operation up nor gone away.
    pub(crate) fn is_wanted(&self) -> bool {
        self.state().end == End::Wanted
    }

    /// Names the socket on which a thread may wait, so that it hears of the operation's end. Nothing is read from it after that.
    pub(crate) fn set_socket(&self, socket: OwnedFd) {
        let mut state = self.state();
        state.socket = Some(socket);
        if state.end != End::Wanted {
            wake_socket(&state);
        }
    }

    /// Lets go of the socket.
    pub(crate) fn forget_socket(&self) {
        self.state().socket = None;
    }

    /// Sends a signal to the process group, where there is one.
    pub(crate) fn signal(&self, signal: Signal) {
        // Under the lock: `forget_program` is called before the program is reaped, so the number can't be another's by now.
        if let Some(program) = self.state().program {
            let _ = killpg(program.pid, signal);
        }
    }

    /// Names the program that signals go to, with its process group, and that ends with the operation, with its session.
    pub(crate) fn set_program(&self, program: Program) {
        let cancelled = {
            let mut state = self.state();
            state.program = Some(program);
            state.end == End::Cancelled
        };
        if cancelled {
            session::end(program);
        }
    }

    /// Names the terminal that is resized.
    pub(crate) fn set_terminal(&self, terminal: File) {
        self.state().terminal = Some(terminal);
    }

    /// Changes the size of its terminal, where it has one.
    pub(crate) fn resize(&self, window: Window) {
        if let Some(terminal) = &self.state().terminal {
            // Fails once every program has closed it.
            let _ = terminal::resize(terminal, window);
        }
    }

    /// Takes note of how far the program's output has been carried.
    pub(crate) fn set_progress(&self, progress: Arc<Progress>) {
        self.state().progress = Some(progress);
    }

    /// The program that runs, and how far its output has been carried.
    pub(crate) fn program(&self) -> Option<(Program, Arc<Progress>)> {
        let state = self.state();
        Some((state.program?, Arc::clone(state.progress.as_ref()?)))
    }

    /// Forgets the program, before it is reaped, and the terminal. Waits for the end of its session where that is under way.
    pub(crate) fn forget_program(&self) {
        let mut state = self.state();
        while state.ending {
            state = self.wait(state);
        }
        (state.program, state.terminal) = (None, None);
    }

    /// Rests for that long, or until the host gives it up. Returns whether it is still wanted.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        let state = self.state();
        let wanted = |state: &mut State| state.end == End::Wanted;
        let rest = self.changed.wait_timeout_while(state, time, wanted);
        rest.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Ends the input for its reader, as when the process that read it has gone.
    pub(crate) fn close_input(&self) {
        let mut state = self.state();
        state.input_ended = true;
        state.input.clear();
        self.changed.notify_all();
    }

    pub(crate) fn input(self: &Arc<Self>) -> Input {
        Input(Arc::clone(self))
    }

    pub(crate) fn output(self: &Arc<Self>, stream: u8) -> Output {
        Output { operation: Arc::clone(self), stream, abandoned: false }
    }

    fn send(&self, kind: Kind, stream: u8, payload: &[u8]) -> io::Result<()> {
        self.port.send(self.session, kind, stream, self.id, payload)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has whoever reads from the operation's socket, or accepts on it, return.
fn wake_socket(state: &State) {
    if let Some(socket) = &state.socket {
        let _ = shutdown(socket.as_raw_fd(), Shutdown::Read);
    }
}

fn given_up() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the host gave the operation up")
}

/// The operation's input stream.
#[derive(Debug)]
pub(crate) struct Input(Arc<Operation>);

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        loop {
            if state.end == End::Cancelled {
                return Err(given_up());
            }
            if !state.input.is_empty() {
                let len = state.input.read(buffer)?;
                let grant = state.receive.consume(len);
                drop(state);
                if let Some(grant) = grant {
                    self.0.send(Kind::Credit, stream::STDIN, &grant)?;
                }
                return Ok(len);
            }
            if state.input_ended {
                return Ok(0);
            }
            if state.end != End::Wanted {
                return Err(given_up());
            }
            state = self.0.wait(state);
        }
    }
}

/// One of the operation's output streams. Dropping it ends the stream.
#[derive(Debug)]
pub(crate) struct Output {
    operation: Arc<Operation>,
    stream: u8,
    abandoned: bool,
}

impl Output {
    /// Lets the stream end with the operation and its reply, which is to be a failure: what came so far is not all there is.
    pub(crate) fn abandon(mut self) {
        self.abandoned = true;
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut state = self.operation.state();
        let len = loop {
            if state.end != End::Wanted {
                return Err(given_up());
            }
            match state.send[usize::from(self.stream)].take(bytes.len().min(MAX_PAYLOAD)) {
                0 => state = self.operation.wait(state),
                len => break len,
            }
        };
        drop(state);
        self.operation.send(Kind::Data, self.stream, &bytes[..len])?;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.abandoned {
            let _ = self.operation.send(Kind::Eof, self.stream, &[]);
        }
    }
}
