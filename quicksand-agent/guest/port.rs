//! The virtio-serial port that leads to the host.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use quicksand_protocol::frame::{self, HEADER_LEN, Kind, MAX_PAYLOAD};

/// The port's name, as the host gives it to QEMU.
const NAME: &str = "quicksand.agent";
/// How long the port may take to appear after its driver is loaded.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between looks at a port whose host end is closed: reading it returns at once, and there is nothing to wait on.
const HOST_AWAY: Duration = Duration::from_millis(5);

/// Opens the agent's port for reading and for writing.
pub(crate) fn open() -> io::Result<(Reader, Writer)> {
    let file = open_named(NAME, DEADLINE)?;
    Ok((Reader(file.try_clone()?), Writer::new(file)))
}

/// Opens the port of that name, which may be on its way.
pub(crate) fn open_named(name: &str, patience: Duration) -> io::Result<File> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(device) = find(name)? {
            match OpenOptions::new().read(true).write(true).open(device) {
                // The kernel knows of it, and its device file is not made yet.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                opened => return opened,
            }
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("find the port {name}")));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn find(name: &str) -> io::Result<Option<String>> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else {
        return Ok(None);
    };
    for port in ports {
        let port = port?;
        if fs::read_to_string(port.path().join("name")).is_ok_and(|found| found.trim_end() == name) {
            return Ok(Some(format!("/dev/{}", port.file_name().to_string_lossy())));
        }
    }
    Ok(None)
}

/// What came from the host.
#[derive(Debug)]
pub(crate) struct Reader(File);

/// What a read of the port brought.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// That many bytes.
    Bytes(usize),
    /// Nothing: the host's end is closed.
    HostAway,
}

impl Reader {
    /// Waits for bytes. Returns after a short rest where the host's end is closed.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Arrival> {
        loop {
            match self.0.read(buffer) {
                Ok(0) => {
                    thread::sleep(HOST_AWAY);
                    return Ok(Arrival::HostAway);
                }
                Ok(len) => return Ok(Arrival::Bytes(len)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Where frames for the host go, whole and one at a time.
///
/// Frames belong to a session. What an operation of an earlier one still has to say is dropped: its id may be another operation's
/// by now.
#[derive(Debug)]
pub(crate) struct Writer(Mutex<Line>);

#[derive(Debug)]
struct Line {
    port: File,
    session: Session,
    /// Where each frame is put together.
    buffer: Vec<u8>,
}

/// A session, told from those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session(u64);

impl Writer {
    fn new(port: File) -> Writer {
        Writer(Mutex::new(Line { port, session: Session(0), buffer: Vec::with_capacity(HEADER_LEN + MAX_PAYLOAD) }))
    }

    /// The session that there is now.
    pub(crate) fn session(&self) -> Session {
        self.line().session
    }

    /// Sends one frame of a session, or drops it where that session is over. Blocks while the host takes nothing.
    pub(crate) fn send(&self, session: Session, kind: Kind, stream: u8, id: u32, payload: &[u8]) -> io::Result<()> {
        let mut line = self.line();
        if line.session == session { line.write(kind, stream, id, payload) } else { Ok(()) }
    }

    /// Begins the next session with a frame of its own, after which nothing of an earlier one follows.
    pub(crate) fn begin_session(&self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let mut line = self.line();
        line.session = Session(line.session.0 + 1);
        line.write(kind, 0, 0, payload)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn write(&mut self, kind: Kind, stream: u8, id: u32, payload: &[u8]) -> io::Result<()> {
        debug_assert!(payload.len() <= MAX_PAYLOAD);
        self.buffer.clear();
        frame::encode(kind, stream, id, payload, &mut self.buffer).map_err(io::Error::other)?;
        self.port.write_all(&self.buffer)
    }
}
