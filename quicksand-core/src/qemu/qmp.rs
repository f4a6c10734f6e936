//! QEMU's control channel (the QEMU Machine Protocol, `docs/interop/qmp-spec.txt`), one JSON object a line.
//!
//! Replies are matched to commands by id, so any number of commands may be under way. Every command has a deadline.

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, Interest},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::{
        Mutex as AsyncMutex, broadcast,
        oneshot::{self, error::TryRecvError},
        watch,
    },
    task::JoinHandle,
    time::timeout,
};

/// How long QEMU may take to answer a command.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Longest line that is taken from QEMU, in bytes. It is trusted more than a guest, but a broken one must not eat our memory.
const MAX_LINE: usize = 16 << 20;

/// Events kept for a slow listener.
const EVENTS: usize = 256;

/// Why a command failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// QEMU refused it.
    #[error("carry out {command} in QEMU: {description}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        description: String,
    },
    /// QEMU has gone, or its channel broke.
    #[error("carry out {command} in QEMU: its control channel is closed")]
    Closed {
        /// The command.
        command: String,
    },
    /// QEMU did not answer within [`PATIENCE`].
    #[error("carry out {command} in QEMU: no answer for {} s", PATIENCE.as_secs())]
    NoAnswer {
        /// The command.
        command: String,
    },
}

/// Something that happened in QEMU.
#[derive(Debug, Clone)]
pub struct Event {
    /// As QEMU's reference names it: `SHUTDOWN`, `STOP`, `BLOCK_IO_ERROR`.
    pub name: String,
    /// What it says of it.
    pub data: Value,
}

type Waiting = HashMap<u64, oneshot::Sender<Result<Value, String>>>;

#[derive(Debug, Default)]
struct Inbox {
    waiting: Waiting,
    closed: bool,
    last_id: u64,
}

/// A client of one QEMU.
#[derive(Debug)]
pub struct Qmp {
    writer: AsyncMutex<OwnedWriteHalf>,
    inbox: Arc<Mutex<Inbox>>,
    events: broadcast::Sender<Event>,
    closing: watch::Receiver<Closing>,
    _reader: Reader,
}

/// How the channel came to its end.
#[derive(Debug, Default)]
struct Closing {
    /// What QEMU said of its shutdown, if it did.
    shutdown: Option<Value>,
    closed: bool,
}

/// A line from QEMU: a reply, an event, or the greeting, which is none of these.
#[derive(Debug, Deserialize)]
struct Line {
    id: Option<u64>,
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

impl Qmp {
    /// Opens the channel on our end of its socket.
    ///
    /// # Errors
    ///
    /// [`QmpError`] of the command `qmp_capabilities`, which is the first.
    pub async fn open(socket: UnixStream) -> Result<Qmp, QmpError> {
        let qmp = Qmp::follow(socket);
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Takes up a channel that was [put aside](Qmp::put_aside), on the runtime of the caller.
    ///
    /// # Errors
    ///
    /// Those of giving the socket to the runtime.
    pub fn take_up(socket: StdUnixStream) -> io::Result<Qmp> {
        Ok(Qmp::follow(UnixStream::from_std(socket)?))
    }

    /// Takes the channel from its runtime, so that it can be taken up on another. No command may be under way; events of the time
    /// between are told by nobody.
    ///
    /// # Errors
    ///
    /// Those of doubling a descriptor.
    pub fn put_aside(self) -> io::Result<StdUnixStream> {
        let writer = self.writer.into_inner();
        let socket: &UnixStream = writer.as_ref();
        let socket = socket.as_fd().try_clone_to_owned()?.into();
        // Dropped, it would tell QEMU that nothing more comes.
        writer.forget();
        Ok(socket)
    }

    fn follow(socket: UnixStream) -> Qmp {
        let (reader, writer) = socket.into_split();
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let (events, _) = broadcast::channel(EVENTS);
        let (end, closing) = watch::channel(Closing::default());
        let reader = Reader(tokio::spawn(read(reader, MAX_LINE, Arc::clone(&inbox), events.clone(), end)));
        Qmp { writer: AsyncMutex::new(writer), inbox, events, closing, _reader: reader }
    }

    /// Carries out a command and returns what it returns.
    ///
    /// # Errors
    ///
    /// [`QmpError`]
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.send(command, arguments, None).await
    }

    /// Gives QEMU a descriptor under a name, for `fd:` addresses.
    ///
    /// # Errors
    ///
    /// [`QmpError`]
    pub async fn give_fd(&self, name: &str, fd: BorrowedFd<'_>) -> Result<(), QmpError> {
        self.send("getfd", json!({ "fdname": name }), Some(fd)).await.map(drop)
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Waits until QEMU closes the channel, as it does when it ends. Returns the reason that it gave for that, as in its reference:
    /// `guest-reset`, `guest-shutdown`, `host-qmp-quit`. `None` where it gave none, as when it is killed.
    pub async fn shutdown_reason(&self) -> Option<String> {
        let mut closing = self.closing.clone();
        // The reader says so before it goes.
        let closing = closing.wait_for(|closing| closing.closed).await.ok()?;
        Some(closing.shutdown.as_ref()?["reason"].as_str()?.to_owned())
    }

    async fn send(&self, command: &str, arguments: Value, fd: Option<BorrowedFd<'_>>) -> Result<Value, QmpError> {
        let closed = || QmpError::Closed { command: command.to_owned() };
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut inbox = lock(&self.inbox);
            if inbox.closed {
                return Err(closed());
            }
            inbox.last_id += 1;
            let id = inbox.last_id;
            inbox.waiting.insert(id, answer);
            id
        };
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments, "id": id }));
        let exchange = async {
            // A line is never cut short by another: the lock is held until all of it is written.
            let written = write(&*self.writer.lock().await, line.as_bytes(), fd).await;
            written.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())
        };
        let answer = timeout(PATIENCE, exchange).await;
        lock(&self.inbox).waiting.remove(&id);
        match answer {
            Ok(answer) => answer?.map_err(|description| QmpError::Refused { command: command.to_owned(), description }),
            Err(_) => Err(QmpError::NoAnswer { command: command.to_owned() }),
        }
    }
}

/// A task that ends with us.
#[derive(Debug)]
struct Reader(JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writes all of `bytes`, the descriptor with the first of them.
async fn write(writer: &OwnedWriteHalf, mut bytes: &[u8], mut fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let socket: &UnixStream = writer.as_ref();
    while !bytes.is_empty() {
        socket.writable().await?;
        let sent = socket.try_io(Interest::WRITABLE, || {
            let fds = fd.map(|fd| [fd.as_raw_fd()]);
            let control: Vec<ControlMessage<'_>> = fds.iter().map(|fds| ControlMessage::ScmRights(fds)).collect();
            let pieces = [io::IoSlice::new(bytes)];
            let number = socket.as_fd().as_raw_fd();
            Ok(sendmsg::<()>(number, &pieces, &control, MsgFlags::MSG_NOSIGNAL, None)?)
        });
        match sent {
            Ok(len) => (bytes, fd) = (&bytes[len..], None),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Hands out what comes, until there is no more or a line has more than `max_line` bytes.
async fn read(
    reader: impl AsyncRead + Unpin,
    max_line: usize,
    inbox: Arc<Mutex<Inbox>>,
    events: broadcast::Sender<Event>,
    end: watch::Sender<Closing>,
) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while let Ok(true) = read_line(&mut reader, max_line, &mut line).await {
        match serde_json::from_slice::<Line>(&line) {
            Ok(Line { event: Some(name), data, .. }) => {
                tracing::debug!(target: "quicksand::qmp", name, %data, "event");
                if name == "SHUTDOWN" {
                    end.send_modify(|closing| closing.shutdown = Some(data.clone()));
                }
                // Nobody may be listening.
                let _ = events.send(Event { name, data });
            }
            Ok(Line { id: Some(id), returned, error, .. }) => {
                let answer = match error {
                    Some(refusal) => Err(refusal.desc),
                    None => Ok(returned.unwrap_or_default()),
                };
                if let Some(waiting) = lock(&inbox).waiting.remove(&id) {
                    // Its caller may have given up.
                    let _ = waiting.send(answer);
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(target: "quicksand::qmp", %error, "QEMU sent a line that is no message"),
        }
    }
    end.send_modify(|closing| closing.closed = true);
    let mut inbox = lock(&inbox);
    inbox.closed = true;
    // Dropped unanswered: their callers see the channel closed.
    inbox.waiting.clear();
}

/// Reads a line into `line`. `false` at the end of the stream.
async fn read_line(
    reader: &mut BufReader<impl AsyncRead + Unpin>,
    max_line: usize,
    line: &mut Vec<u8>,
) -> io::Result<bool> {
    line.clear();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(false);
        }
        let end = available.iter().position(|&byte| byte == b'\n');
        let len = end.map_or(available.len(), |end| end + 1);
        line.extend_from_slice(&available[..len]);
        reader.consume(len);
        if line.len() > max_line {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line from QEMU is too long"));
        }
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// Reads what QEMU might have sent, with the commands 1 and 2 under way and lines of at most `max_line` bytes. Returns their answers,
/// and the number of events that were told.
///
/// # Panics
///
/// Where a command is left to wait, or the end is not told.
pub(crate) fn read_all(bytes: &[u8], max_line: usize) -> ([Option<Result<Value, String>>; 2], usize) {
    let ((first, mut first_answer), (second, mut second_answer)) = (oneshot::channel(), oneshot::channel());
    let inbox = Inbox { waiting: HashMap::from([(1, first), (2, second)]), ..Inbox::default() };
    let inbox = Arc::new(Mutex::new(inbox));
    let (events, told) = broadcast::channel(EVENTS);
    let (end, closing) = watch::channel(Closing::default());
    let mut reading = pin!(read(bytes, max_line, Arc::clone(&inbox), events, end));
    let read = reading.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(read.is_ready(), "bytes that are there are not waited for");
    assert!(closing.borrow().closed && lock(&inbox).closed, "the end is told");
    let answers = [&mut first_answer, &mut second_answer].map(|answer| match answer.try_recv() {
        Ok(answer) => Some(answer),
        Err(TryRecvError::Closed) => None,
        Err(TryRecvError::Empty) => panic!("a command is left to wait"),
    });
    (answers, told.len())
}

fn lock(inbox: &Mutex<Inbox>) -> MutexGuard<'_, Inbox> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::Process;
    use std::{fs::File, path::Path};

    /// A QEMU without a machine, and its channel.
    async fn qemu() -> (Process, Qmp) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let chardev = format!("socket,id=qmp,fd={}", theirs.as_raw_fd());
        let arguments =
            ["-nodefaults", "-M", "none", "-display", "none", "-chardev", &chardev, "-mon", "chardev=qmp,mode=control"];
        let arguments = arguments.into_iter().map(Into::into).collect();
        let program = Path::new("qemu-system-x86_64");
        let process = Process::launch(program, arguments, vec![theirs.into()], log.path()).await.unwrap();
        (process, Qmp::open(UnixStream::from_std(ours).unwrap()).await.unwrap())
    }

    #[tokio::test]
    async fn commands_events_refusals_and_the_end() {
        let (process, qmp) = qemu().await;
        let (name, version) =
            tokio::join!(qmp.execute("query-status", json!({})), qmp.execute("query-version", json!({})));
        assert_eq!(name.unwrap()["status"], "running");
        assert!(version.unwrap()["qemu"]["major"].as_u64() >= Some(7));

        let refused = qmp.execute("no-such-command", json!({})).await.unwrap_err();
        assert!(matches!(&refused, QmpError::Refused { command, .. } if command == "no-such-command"), "{refused}");

        let file = File::open("/dev/null").unwrap();
        qmp.give_fd("null", file.as_fd()).await.unwrap();
        qmp.execute("closefd", json!({ "fdname": "null" })).await.unwrap();

        let mut events = qmp.events();
        qmp.execute("quit", json!({})).await.unwrap();
        assert_eq!(events.recv().await.unwrap().name, "SHUTDOWN");
        assert_eq!(qmp.shutdown_reason().await.as_deref(), Some("host-qmp-quit"));
        assert!(process.ended().await.success());
        assert!(matches!(qmp.execute("query-status", json!({})).await, Err(QmpError::Closed { .. })));
    }

    #[tokio::test]
    async fn a_killed_qemu_fails_the_command_under_way() {
        let (process, qmp) = qemu().await;
        process.kill().await.unwrap();
        assert_eq!(qmp.shutdown_reason().await, None);
        assert!(matches!(qmp.execute("query-status", json!({})).await, Err(QmpError::Closed { .. })));
    }
}
