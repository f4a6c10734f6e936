//! A session with the agent in a guest: operations by id over one socket.
//!
//! The guest is hostile: what it sends is checked here, and whatever breaks a rule of the protocol ends the session.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use quicksand_protocol::{
    VERSION,
    flow::FlowError,
    frame::{self, Decoder, Frame, FrameError, HEADER_LEN, Kind},
    message::{
        Done, Failure, Hello, MessageError, NONCE_LEN, Reply, Request, Welcome, Window, from_payload, stream,
        to_payload,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use crate::base::random;

use super::{
    held,
    pulse::Pulse,
    streams::{GuestReader, GuestWriter, Incoming, Outgoing},
};

/// Why a guest could not be talked to.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The guest or its QEMU has gone, or the session was closed.
    #[error("talk to the guest: the channel is closed")]
    Closed,
    /// The guest rebooted; what was under way is lost.
    #[error("talk to the guest: it was started again, as by a reboot, and what ran then is gone")]
    Restarted,
    /// The sandbox returned to a checkpoint; what was under way in the machine that it left is lost.
    #[error("talk to the guest: the sandbox has returned to a checkpoint since, and what ran then is gone")]
    Reverted,
    /// The agent in the guest has ended, as when it is killed there; the machine runs on. [`Sandbox::reboot`](crate::Sandbox::reboot)
    /// and [`Sandbox::revert`](crate::Sandbox::revert) bring it back.
    #[error(
        "talk to the guest: its agent has ended, as when it is killed there; reboot() or revert(..) brings it back"
    )]
    AgentGone,
    /// The agent in the guest does not answer though the guest has nothing to do, as where it was stopped there by a signal. The session
    /// is over, also where it goes on later. [`Sandbox::reboot`](crate::Sandbox::reboot) and
    /// [`Sandbox::revert`](crate::Sandbox::revert) bring it back.
    #[error(
        "talk to the guest: its agent does not answer though the guest has nothing to do, as when it is stopped there by a signal; \
         reboot() or revert(..) brings it back"
    )]
    AgentStopped,
    /// The guest's kernel has given up and stands still, with its words. [`Sandbox::reboot`](crate::Sandbox::reboot) and
    /// [`Sandbox::revert`](crate::Sandbox::revert) bring it back. A kernel that resets the machine when it gives up, as it is told to
    /// unless the guest changes `kernel.panic`, ends it: [`Error::Ended`](crate::Error::Ended).
    #[error("talk to the guest: its kernel has given up: {0}; reboot() or revert(..) brings it back")]
    Panicked(String),
    /// The guest has halted without switching itself off, as by `systemctl halt`. [`Sandbox::reboot`](crate::Sandbox::reboot) and
    /// [`Sandbox::revert`](crate::Sandbox::revert) bring it back.
    #[error("talk to the guest: it has halted; reboot() or revert(..) brings it back")]
    Halted,
    /// The guest sleeps, as after `systemctl suspend`, and can't be woken. [`Sandbox::reboot`](crate::Sandbox::reboot) and
    /// [`Sandbox::revert`](crate::Sandbox::revert) bring it back.
    #[error(
        "talk to the guest: it is suspended, from which a sandbox does not wake; reboot() or revert(..) brings it back"
    )]
    Suspended,
    /// The guest has started another kernel by kexec, in which there is no agent. [`Sandbox::reboot`](crate::Sandbox::reboot) and
    /// [`Sandbox::revert`](crate::Sandbox::revert) bring it back.
    #[error(
        "talk to the guest: it has started another kernel by kexec, which has no agent; reboot() or revert(..) brings it back"
    )]
    OtherKernel,
    /// The guest stands still, since the host can't keep what it writes to its disk, with the host's reason: most often that the file
    /// system of the cache directory is full. A [`Sandbox::revert`](crate::Sandbox::revert) goes on from before that, once there is
    /// room.
    #[error(
        "talk to the guest: it stands still, for the host can't write the guest's disk: {0}; make room where the cache directory \
         is, as with: quicksand prune"
    )]
    DiskStopped(String),
    /// The tokio runtime that reads what the guest says has shut down: the one in which the sandbox was started or last put back.
    #[error(
        "talk to the guest: the runtime in which its sandbox was started has shut down; use a sandbox in one runtime, or through \
         quicksand::blocking"
    )]
    RuntimeGone,
    /// The guest did not answer in time.
    #[error("get an answer from the guest within {} ms", .0.as_millis())]
    NoAnswer(Duration),
    /// The guest's agent is of another version.
    #[error("talk to the guest: its agent speaks version {guest} of the protocol and we speak {VERSION}")]
    Version {
        /// The agent's version.
        guest: u16,
    },
    /// The guest broke the protocol.
    #[error("trust the guest: {0}")]
    Violation(String),
    /// The request does not fit into a message.
    #[error("send a request to the guest: {0}; what is long goes by stdin(..), write_file(..) or upload(..)")]
    TooLarge(String),
    /// The guest tried and failed.
    #[error("{message} (in the guest)")]
    Guest {
        /// The guest kernel's error number, 0 where it was not the kernel's.
        errno: i32,
        /// The agent's words.
        message: String,
    },
}

/// How the guest at the other end came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It boots, and its agent has announced itself.
    Booted,
    /// It was restored from a frozen state, in which its agent was already there.
    Restored {
        /// Whether the agent may have been frozen in the middle of a frame.
        in_frame: bool,
    },
}

/// A session.
#[derive(Debug)]
pub struct Channel {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

/// What the tasks and every operation share.
#[derive(Debug)]
pub(super) struct Shared {
    outbox: mpsc::UnboundedSender<Vec<u8>>,
    state: Mutex<State>,
    last_id: AtomicU32,
    frames: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    operations: HashMap<u32, Entry>,
    /// How many frames came so far.
    heard: u64,
    /// Why the session is over, once it is.
    over: Option<ChannelError>,
}

/// An operation, as the reading task sees it.
#[derive(Debug)]
struct Entry {
    reply: ReplyTo,
    outputs: [Incoming; 2],
    input: Arc<Outgoing>,
}

/// Who gets a reply.
enum ReplyTo {
    Waiting(oneshot::Sender<Result<Done, ChannelError>>),
    /// Called by the reading task.
    Listening(Box<dyn FnOnce(Result<Done, ChannelError>) + Send>),
}

impl ReplyTo {
    fn give(self, reply: Result<Done, ChannelError>) {
        match self {
            ReplyTo::Waiting(waiting) => drop(waiting.send(reply)),
            ReplyTo::Listening(listener) => listener(reply),
        }
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplyTo::Waiting(_) => "Waiting",
            ReplyTo::Listening(_) => "Listening",
        })
    }
}

/// An operation under way. Dropping it before its [`reply`](Operation::reply) cancels it in the guest.
#[derive(Debug)]
#[must_use = "dropping an operation cancels it: wait for its `.reply()`"]
pub struct Operation {
    id: u32,
    shared: Arc<Shared>,
    reply: oneshot::Receiver<Result<Done, ChannelError>>,
    replied: bool,
    /// Into the guest; to be taken by whoever writes it. Left here, it ends with the operation.
    pub stdin: Option<GuestWriter>,
    /// Out of the guest; to be taken by whoever reads it.
    pub stdout: Option<GuestReader>,
    /// Out of the guest; to be taken by whoever reads it.
    pub stderr: Option<GuestReader>,
}

impl Channel {
    /// Opens a session on our end of the agent's socket.
    ///
    /// # Errors
    ///
    /// [`ChannelError`], with [`ChannelError::NoAnswer`] where the agent is not there within `patience`.
    pub async fn open(socket: UnixStream, opening: Opening, patience: Duration) -> Result<Channel, ChannelError> {
        let (mut reader, mut writer) = socket.into_split();
        let opened = timeout(patience, handshake(&mut reader, &mut writer, opening)).await;
        let rest = opened.map_err(|_| ChannelError::NoAnswer(patience))??;

        let (outbox, letters) = mpsc::unbounded_channel();
        let shared =
            Arc::new(Shared { outbox, state: Mutex::default(), last_id: AtomicU32::new(0), frames: AtomicU64::new(0) });
        let reading = tokio::spawn(read(reader, rest, Arc::clone(&shared)));
        let writing = tokio::spawn(write(writer, letters, Arc::clone(&shared)));
        Ok(Channel { shared, tasks: [reading, writing] })
    }

    /// Ends the session: what is under way fails with `why`, and so does what is asked from now on.
    pub fn end(&self, why: ChannelError) {
        self.shared.end(why);
    }

    /// The session for somebody who does not keep it alive.
    pub(crate) fn pulse(&self) -> Pulse {
        Pulse::of(Arc::downgrade(&self.shared))
    }

    /// Why the session is over, once it is.
    pub(crate) fn over(&self) -> Option<ChannelError> {
        self.shared.state().over.clone()
    }

    /// How many frames were sent so far. An agent that has answered the last of them holds no part of another.
    pub fn frames_sent(&self) -> u64 {
        self.shared.frames.load(Ordering::SeqCst)
    }

    /// Starts an operation.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] where the request is too large or the session over.
    pub fn start(&self, request: &Request) -> Result<Operation, ChannelError> {
        self.shared.start(request)
    }

    /// Has an operation without streams carried out, and `listener` told its reply, before anyone is told of one that the guest sends
    /// later. It must not take long.
    pub(crate) fn start_and_tell(
        &self,
        request: &Request,
        listener: impl FnOnce(Result<Done, ChannelError>) + Send + 'static,
    ) -> Result<(), ChannelError> {
        self.shared.begin(request, ReplyTo::Listening(Box::new(listener))).map(drop)
    }

    /// Carries out an operation without streams.
    ///
    /// # Errors
    ///
    /// [`ChannelError`], with [`ChannelError::NoAnswer`] where there is no reply within `patience`.
    pub async fn request(&self, request: &Request, patience: Duration) -> Result<Done, ChannelError> {
        let mut operation = self.start(request)?;
        timeout(patience, operation.reply()).await.map_err(|_| ChannelError::NoAnswer(patience))?
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // First: a task that is dropped before its end would say why.
        self.shared.end(ChannelError::Closed);
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Operation {
    /// Its number in the session.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Waits for the operation's end. To be called once.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Guest`] where the guest tried and failed; others where the session is over.
    pub async fn reply(&mut self) -> Result<Done, ChannelError> {
        let reply = (&mut self.reply).await.unwrap_or(Err(ChannelError::Closed));
        self.replied = true;
        reply
    }

    /// Lets the operation run on without anyone who waits for its reply.
    pub fn forget(mut self) {
        self.replied = true;
    }

    /// Sends a signal to the operation's process group, where it has one.
    pub fn signal(&self, signal: i32) {
        self.shared.send(Kind::Signal, 0, self.id, &signal.to_le_bytes());
    }

    /// Changes the size of the operation's terminal, where it has one.
    pub fn resize(&self, window: Window) {
        self.shared.send(Kind::Resize, 0, self.id, &window.to_bytes());
    }

    /// Ends the operation: its session is killed. It still gets its reply.
    pub fn cancel(&self) {
        self.shared.send(Kind::Cancel, 0, self.id, &[]);
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if !self.replied {
            held::send_or_hold(&self.shared, Kind::Cancel, 0, self.id);
        }
    }
}

impl Shared {
    pub(super) fn start(self: &Arc<Self>, request: &Request) -> Result<Operation, ChannelError> {
        let (reply, replied) = oneshot::channel();
        let (id, input, [stdout, stderr]) = self.begin(request, ReplyTo::Waiting(reply))?;
        Ok(Operation {
            id,
            reply: replied,
            replied: false,
            stdin: Some(GuestWriter::new(id, input, self)),
            stdout: Some(stdout),
            stderr: Some(stderr),
            shared: Arc::clone(self),
        })
    }

    /// Returns its number, and its streams on our side.
    fn begin(
        self: &Arc<Self>,
        request: &Request,
        reply: ReplyTo,
    ) -> Result<(u32, Arc<Outgoing>, [GuestReader; 2]), ChannelError> {
        let payload = to_payload(request).map_err(|e| ChannelError::TooLarge(e.to_string()))?;
        let id = self.last_id.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let (stdout, stdout_reader) = Incoming::new(id, stream::STDOUT, self);
        let (stderr, stderr_reader) = Incoming::new(id, stream::STDERR, self);
        let input = Arc::new(Outgoing::default());
        {
            let mut state = self.state();
            if let Some(error) = &state.over {
                return Err(error.clone());
            }
            state.operations.insert(id, Entry { reply, outputs: [stdout, stderr], input: Arc::clone(&input) });
        }
        self.send(Kind::Request, 0, id, &payload);
        Ok((id, input, [stdout_reader, stderr_reader]))
    }

    /// How many frames came so far, where an operation is under way.
    pub(super) fn awaited(&self) -> Option<u64> {
        let state = self.state();
        (!state.operations.is_empty()).then_some(state.heard)
    }

    /// Queues a frame. What is queued is bounded by the credit of the streams and by what callers ask.
    pub(super) fn send(&self, kind: Kind, stream: u8, id: u32, payload: &[u8]) {
        held::release_earlier();
        let mut bytes = Vec::new();
        frame::encode(kind, stream, id, payload, &mut bytes).expect("payloads are cut to the frame's limit");
        self.frames.fetch_add(1, Ordering::SeqCst);
        // Fails once the session is over, which every operation is told by itself.
        let _ = self.outbox.send(bytes);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session: every operation under way fails with `error`, and so does every later one.
    pub(super) fn end(&self, error: ChannelError) {
        let operations = {
            let mut state = self.state();
            state.over.get_or_insert_with(|| error.clone());
            std::mem::take(&mut state.operations)
        };
        for (_, entry) in operations {
            entry.input.close();
            entry.reply.give(Err(error.clone()));
        }
    }

    fn handle(&self, frame: Frame) -> Result<(), ChannelError> {
        let mut state = self.state();
        state.heard += 1;
        if frame.kind == Kind::Announce {
            return Err(ChannelError::Restarted);
        }
        if frame.kind == Kind::Reply {
            let reply: Reply = from_payload(&frame.payload).map_err(violation)?;
            // An operation that is unknown has been given up on.
            if let Some(entry) = state.operations.remove(&frame.id) {
                entry.input.close();
                let reply = reply.map_err(|Failure { errno, message }| ChannelError::Guest { errno, message });
                entry.reply.give(reply);
            }
            return Ok(());
        }
        let Some(entry) = state.operations.get_mut(&frame.id) else {
            return Ok(());
        };
        let output = match frame.stream {
            stream::STDOUT => Some(&mut entry.outputs[0]),
            stream::STDERR => Some(&mut entry.outputs[1]),
            _ => None,
        };
        match (frame.kind, output) {
            (Kind::Data, Some(output)) => {
                if let Some(grant) = output.data(frame.payload).map_err(flow_violation)? {
                    self.send(Kind::Credit, frame.stream, frame.id, &grant);
                }
                Ok(())
            }
            (Kind::Eof, Some(output)) => {
                output.end();
                Ok(())
            }
            (Kind::Credit, _) if frame.stream == stream::STDIN => {
                entry.input.grant(&frame.payload).map_err(flow_violation)
            }
            (kind, _) => Err(violation(format!("it sent a frame {kind:?} on stream {}", frame.stream))),
        }
    }
}

pub(super) fn violation(what: impl std::fmt::Display) -> ChannelError {
    ChannelError::Violation(what.to_string())
}

fn flow_violation(error: FlowError) -> ChannelError {
    violation(format!("it made us fail to {error}"))
}

impl From<FrameError> for ChannelError {
    fn from(error: FrameError) -> Self {
        violation(format!("it made us fail to {error}"))
    }
}

impl From<MessageError> for ChannelError {
    fn from(error: MessageError) -> Self {
        violation(format!("it made us fail to {error}"))
    }
}

impl From<io::Error> for ChannelError {
    fn from(_: io::Error) -> Self {
        ChannelError::Closed
    }
}

/// Agrees on a session. Returns what came behind the welcome.
async fn handshake(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    opening: Opening,
) -> Result<Vec<u8>, ChannelError> {
    match opening {
        Opening::Booted | Opening::Restored { in_frame: false } => {}
        Opening::Restored { in_frame: true } => writer.write_all(&frame::flush_padding()).await?,
    }
    let nonce = random::bytes::<NONCE_LEN>()?;
    let mut hello = Vec::new();
    frame::encode(Kind::Hello, 0, 0, &to_payload(&Hello { version: VERSION, nonce })?, &mut hello)?;
    writer.write_all(&hello).await?;

    // Whatever comes before our nonce was said in an earlier session, and may be a part of anything.
    let mut seen: Vec<u8> = Vec::new();
    loop {
        if let Some(at) = seen.windows(NONCE_LEN).position(|window| window == nonce) {
            let rest = seen.split_off(at + NONCE_LEN);
            return check_welcome(&seen).map(|()| rest);
        }
        // A welcome is shorter than this, so what is dropped can't be a part of it.
        let keep = seen.len().min(2 * HEADER_LEN + NONCE_LEN);
        seen.drain(..seen.len() - keep);
        if reader.read_buf(&mut seen).await? == 0 {
            return Err(ChannelError::Closed);
        }
    }
}

/// Checks the welcome that `bytes` end with.
fn check_welcome(bytes: &[u8]) -> Result<(), ChannelError> {
    let start = [frame::MAGIC, Kind::Welcome as u8, 0, 0];
    let at = bytes.windows(start.len()).rposition(|window| window == start);
    let payload =
        at.and_then(|at| bytes.get(at + HEADER_LEN..)).ok_or_else(|| violation("its welcome has no header"))?;
    match from_payload::<Welcome>(payload)?.version {
        VERSION => Ok(()),
        guest => Err(ChannelError::Version { guest }),
    }
}

/// Ends the session of a reader that is dropped before its end, as a runtime that shuts down does with its tasks: nobody would ever
/// be answered.
struct Reading(Arc<Shared>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.end(ChannelError::RuntimeGone);
    }
}

async fn read(mut reader: OwnedReadHalf, rest: Vec<u8>, shared: Arc<Shared>) {
    let _reading = Reading(Arc::clone(&shared));
    let work = async {
        let mut decoder = Decoder::new();
        let mut buffer = rest;
        buffer.reserve(256 * 1024);
        loop {
            decoder.push(&buffer);
            while let Some(frame) = decoder.next_frame()? {
                shared.handle(frame)?;
            }
            buffer.clear();
            if reader.read_buf(&mut buffer).await? == 0 {
                return Err(ChannelError::Closed);
            }
        }
    };
    let Err::<std::convert::Infallible, _>(error) = work.await;
    tracing::debug!(target: "quicksand::channel", %error, "session over");
    shared.end(error);
}

async fn write(mut writer: OwnedWriteHalf, mut letters: mpsc::UnboundedReceiver<Vec<u8>>, shared: Arc<Shared>) {
    while let Some(bytes) = letters.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            return shared.end(ChannelError::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quicksand_protocol::{
        flow::WINDOW,
        message::{Announce, Exit},
    };
    use tokio::io::AsyncRead;

    const SOON: Duration = Duration::from_secs(5);

    /// A guest that says what a test has it say: a real one breaks no rules.
    struct FakeGuest {
        socket: UnixStream,
        decoder: Decoder,
    }

    impl FakeGuest {
        async fn next(&mut self) -> Frame {
            loop {
                if let Some(frame) = self.decoder.next_frame().unwrap() {
                    return frame;
                }
                let mut buffer = Vec::new();
                assert_ne!(self.socket.read_buf(&mut buffer).await.unwrap(), 0, "the host hung up");
                self.decoder.push(&buffer);
            }
        }

        async fn say(&mut self, kind: Kind, stream: u8, id: u32, payload: &[u8]) {
            let mut bytes = Vec::new();
            frame::encode(kind, stream, id, payload, &mut bytes).unwrap();
            self.socket.write_all(&bytes).await.unwrap();
        }

        async fn welcome(&mut self, version: u16) {
            let hello: Hello = from_payload(&self.next().await.payload).unwrap();
            let welcome = to_payload(&Welcome { version, nonce: hello.nonce }).unwrap();
            self.say(Kind::Welcome, 0, 0, &welcome).await;
        }

        async fn reply(&mut self, id: u32, reply: Reply) {
            self.say(Kind::Reply, 0, id, &to_payload(&reply).unwrap()).await;
        }
    }

    fn pair() -> (FakeGuest, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (FakeGuest { socket: theirs, decoder: Decoder::new() }, ours)
    }

    async fn session() -> (FakeGuest, Channel) {
        let (mut guest, socket) = pair();
        let (channel, ()) =
            tokio::join!(Channel::open(socket, Opening::Restored { in_frame: true }, SOON), guest.welcome(VERSION));
        (guest, channel.unwrap())
    }

    async fn read_all(reader: &mut Option<impl AsyncRead + Unpin>) -> Vec<u8> {
        let mut bytes = Vec::new();
        timeout(SOON, reader.as_mut().unwrap().read_to_end(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    #[tokio::test]
    async fn replies_find_their_operations_in_any_order() {
        let (mut guest, channel) = session().await;
        let mut operations = [Request::Ping, Request::Sync].map(|request| channel.start(&request).unwrap());
        let ids = [guest.next().await.id, guest.next().await.id];
        guest.reply(ids[1], Ok(Done::Exited(Exit::Code(7)))).await;
        guest.reply(ids[0], Err(Failure { errno: 2, message: "read /x".into() })).await;
        assert_eq!(operations[1].reply().await.unwrap(), Done::Exited(Exit::Code(7)));
        assert!(matches!(operations[0].reply().await, Err(ChannelError::Guest { errno: 2, .. })));
    }

    #[tokio::test]
    async fn what_an_earlier_session_left_is_skipped() {
        let (mut guest, socket) = pair();
        let speak = async {
            guest
                .socket
                .write_all(&[&[frame::MAGIC, Kind::Welcome as u8, 0, 0][..], &[0xff; 90_000]].concat())
                .await
                .unwrap();
            guest.welcome(VERSION).await;
            guest.reply(1, Ok(Done::Nothing)).await;
        };
        let (channel, ()) = tokio::join!(Channel::open(socket, Opening::Restored { in_frame: true }, SOON), speak);
        channel.unwrap();
    }

    #[tokio::test]
    async fn a_silent_guest_and_another_version_are_told() {
        let (_guest, socket) = pair();
        let error = Channel::open(socket, Opening::Booted, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.to_string(), "get an answer from the guest within 50 ms");
        let (mut guest, socket) = pair();
        let (channel, ()) =
            tokio::join!(Channel::open(socket, Opening::Restored { in_frame: true }, SOON), guest.welcome(VERSION + 1));
        assert!(matches!(channel.unwrap_err(), ChannelError::Version { guest } if guest == VERSION + 1));
    }

    #[tokio::test]
    async fn more_than_the_window_is_a_violation() {
        let (mut guest, channel) = session().await;
        let mut operation = channel.start(&Request::Ping).unwrap();
        let id = guest.next().await.id;
        for _ in 0..=WINDOW as usize / frame::MAX_PAYLOAD {
            guest.say(Kind::Data, stream::STDOUT, id, &[1; frame::MAX_PAYLOAD]).await;
        }
        assert!(matches!(operation.reply().await, Err(ChannelError::Violation(_))));
        assert!(matches!(channel.start(&Request::Ping), Err(ChannelError::Violation(_))));
    }

    #[tokio::test]
    async fn reading_grants_credit_and_so_does_not_reading() {
        let (mut guest, channel) = session().await;
        let mut operation = channel.start(&Request::Ping).unwrap();
        let id = guest.next().await.id;
        let quarter = vec![5; WINDOW as usize / 4 / 2];
        for _ in 0..2 {
            guest.say(Kind::Data, stream::STDOUT, id, &quarter).await;
        }
        guest.say(Kind::Eof, stream::STDOUT, id, &[]).await;
        assert_eq!(read_all(&mut operation.stdout).await, quarter.repeat(2));
        let credit = guest.next().await;
        assert_eq!(
            (credit.kind, credit.stream, &credit.payload[..]),
            (Kind::Credit, 1, &(WINDOW / 4).to_le_bytes()[..])
        );

        drop(operation.stderr.take());
        for _ in 0..2 {
            guest.say(Kind::Data, stream::STDERR, id, &quarter).await;
        }
        assert_eq!((guest.next().await.stream, operation.replied), (stream::STDERR, false));
    }

    #[tokio::test]
    async fn writing_stops_at_the_window_until_granted() {
        let (mut guest, channel) = session().await;
        let mut operation = channel.start(&Request::Ping).unwrap();
        let id = guest.next().await.id;
        let mut stdin = operation.stdin.take().unwrap();
        let bytes = vec![9; WINDOW as usize + 1];
        let mut write = Box::pin(stdin.write_all(&bytes));
        assert!(timeout(Duration::from_millis(50), &mut write).await.is_err());
        guest.say(Kind::Credit, stream::STDIN, id, &1u32.to_le_bytes()).await;
        timeout(SOON, &mut write).await.unwrap().unwrap();
        drop(write);
        // The reply closes the stream: there is no one left to read it.
        guest.reply(id, Ok(Done::Nothing)).await;
        operation.reply().await.unwrap();
        assert_eq!(stdin.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_dropped_operation_is_cancelled() {
        let (mut guest, channel) = session().await;
        drop(channel.start(&Request::Ping).unwrap());
        let kinds = [guest.next().await.kind, guest.next().await.kind];
        assert_eq!(kinds, [Kind::Request, Kind::Cancel]);
    }

    #[tokio::test]
    async fn the_last_drops_are_held_back_and_earlier_ones_are_not() {
        let (mut guest, channel) = session().await;
        let mut seen = async |count: usize| {
            let mut kinds = vec![];
            while kinds.len() < count {
                let frame = guest.next().await;
                kinds.extend((frame.kind != Kind::Eof).then_some((frame.kind, frame.id)));
            }
            kinds
        };
        let (request, cancel) = (|id| (Kind::Request, id), |id| (Kind::Cancel, id));
        let ping = || channel.start(&Request::Ping).unwrap();
        let (first, second) = (ping(), ping());
        let (third, held) = held::hold(|| {
            drop(first);
            let third = ping();
            drop(second);
            third
        });
        assert_eq!(seen(4).await, [request(1), request(2), cancel(1), request(3)]);
        held.release();
        drop(third);
        assert_eq!(seen(2).await, [cancel(2), cancel(3)]);
        let fourth = ping();
        let ((), forgotten) = held::hold(|| drop(fourth));
        drop(forgotten);
        drop(ping());
        assert_eq!(seen(3).await, [request(4), request(5), cancel(5)]);
    }

    #[tokio::test]
    async fn a_reboot_and_a_hang_up_end_what_is_under_way() {
        let (mut guest, channel) = session().await;
        let mut operation = channel.start(&Request::Ping).unwrap();
        guest.say(Kind::Announce, 0, 0, &to_payload(&Announce { version: VERSION, kernel_fault: None }).unwrap()).await;
        assert!(matches!(operation.reply().await, Err(ChannelError::Restarted)));
        assert_eq!(read_all(&mut operation.stdout).await, b"");

        let (guest, channel) = session().await;
        let waiting = channel.request(&Request::Ping, SOON);
        drop(guest);
        assert!(matches!(waiting.await, Err(ChannelError::Closed)));
    }
}
