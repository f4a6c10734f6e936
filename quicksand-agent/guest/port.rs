//! The virtio-serial port that leads to the host.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use quicksand_protocol::frame::{self, Kind, MAX_PAYLOAD};

/// The port's name, as the host gives it to QEMU.
const NAME: &str = "quicksand.agent";
/// How long the port may take to appear after its driver is loaded.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between looks at a port whose host end is closed: reading it returns at once, and there is nothing to wait on.
const HOST_AWAY: Duration = Duration::from_millis(5);

/// Opens the port for reading and for writing.
pub(crate) fn open() -> io::Result<(Reader, Writer)> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(device) = find()? {
            let file = OpenOptions::new().read(true).write(true).open(device)?;
            return Ok((Reader(file.try_clone()?), Writer(Mutex::new(file))));
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("find the port {NAME}")));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn find() -> io::Result<Option<String>> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else {
        return Ok(None);
    };
    for port in ports {
        let port = port?;
        if fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim_end() == NAME) {
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
#[derive(Debug)]
pub(crate) struct Writer(Mutex<File>);

impl Writer {
    /// Sends one frame. Blocks while the host takes nothing.
    pub(crate) fn send(&self, kind: Kind, stream: u8, id: u32, payload: &[u8]) -> io::Result<()> {
        debug_assert!(payload.len() <= MAX_PAYLOAD);
        let mut bytes = Vec::new();
        frame::encode(kind, stream, id, payload, &mut bytes).map_err(io::Error::other)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
    }
}
