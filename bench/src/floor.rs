//! QEMU alone: the least that a clone can cost, whatever the library around it does.
//!
//! The very command line of a running clone is taken from `/proc`, given other descriptors and files, and started by hand.
//! Nothing of quicksand's own start is used, and the guest runs no instruction.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, IoSlice, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Result;

/// How long QEMU may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a qcow2 file says how large its disk is, in eight bytes, big-endian (QEMU's `docs/interop/qcow2.txt`).
const QCOW2_SIZE_AT: usize = 24;

/// A QEMU to be started by hand.
#[derive(Debug)]
pub(crate) struct Floor {
    /// The program first.
    arguments: Vec<String>,
    /// The frozen state of the devices.
    devices: PathBuf,
    /// Ours, and those that QEMU inherits.
    qmp: UnixStream,
    _agent: OwnedFd,
    _console: OwnedFd,
    inherited: [OwnedFd; 3],
    /// Holds the overlay.
    _directory: TempDir,
}

impl Floor {
    /// Takes what a running clone was started with.
    pub(crate) fn from_running(pid: u32) -> Result<Floor> {
        let arguments = arguments_of(pid)?;
        let found = Found::in_arguments(&arguments)?;
        let cache = found.cache()?;
        let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(cache)?;
        let overlay = directory.path().join("overlay.qcow2");
        let size = disk_size(&found.overlay)?.to_string();
        let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&overlay).arg(size).status()?;
        if !made.success() {
            return Err(format!("qemu-img could not make {}: {made}", overlay.display()).into());
        }

        let (qmp, qemu_qmp) = inherited_pair()?;
        let (agent, qemu_agent) = inherited_pair()?;
        let (console, qemu_console) = inherited_pair()?;
        let sockets = [("qmp", &qemu_qmp), ("agent", &qemu_agent), ("console", &qemu_console)]
            .map(|(id, fd)| (id, fd.as_raw_fd()));
        let arguments = rewritten(&arguments, sockets, &overlay)?;
        let qmp = UnixStream::from(qmp);
        qmp.set_read_timeout(Some(PATIENCE))?;
        let devices = found.memory.with_file_name("devices");
        let inherited = [qemu_qmp, qemu_agent, qemu_console];
        Ok(Floor { arguments, devices, qmp, _agent: agent, _console: console, inherited, _directory: directory })
    }

    /// Starts it, and returns how long it took from before the start of the process until the state was loaded.
    pub(crate) fn measure(self) -> Result<Duration> {
        let devices = fs::read(&self.devices).map_err(|e| format!("open {}: {e}", self.devices.display()))?;
        let (mut sender, receiver) = UnixStream::pair()?;
        let mut command = Command::new(&self.arguments[0]);
        command.args(&self.arguments[1..]).stdin(Stdio::null()).stdout(Stdio::null());

        let begun = Instant::now();
        let _process = KilledOnDrop(command.spawn().map_err(|e| format!("start {}: {e}", self.arguments[0]))?);
        drop(self.inherited);
        let mut qmp = Qmp { writer: &self.qmp, reader: BufReader::new(&self.qmp) };
        qmp.line()?;
        qmp.execute("qmp_capabilities", json!({}), None)?;
        qmp.execute("getfd", json!({ "fdname": "devices" }), Some(receiver.as_raw_fd()))?;
        qmp.execute("migrate-incoming", json!({ "uri": "fd:devices" }), None)?;
        drop(receiver);
        // On a thread of its own, as in a start: QEMU reads while it is asked how far it has come. It says itself what it refuses.
        thread::spawn(move || sender.write_all(&devices));
        loop {
            let answer = qmp.execute("query-migrate", json!({}), None)?;
            match answer["status"].as_str() {
                Some("completed") => return Ok(begun.elapsed()),
                Some("failed") => return Err(format!("QEMU could not load the state: {answer}").into()),
                _ if begun.elapsed() > PATIENCE => return Err("QEMU does not load the state".into()),
                _ => thread::sleep(Duration::from_micros(500)),
            }
        }
    }
}

/// The cache directory that a running clone is of.
pub(crate) fn cache_of(pid: u32) -> Result<PathBuf> {
    Found::in_arguments(&arguments_of(pid)?)?.cache().map(Path::to_owned)
}

fn arguments_of(pid: u32) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/cmdline");
    let line = fs::read(&path).map_err(|e| format!("read {path}: {e}"))?;
    let arguments = line.strip_suffix(b"\0").unwrap_or(&line).split(|&byte| byte == 0);
    let arguments: Vec<String> =
        arguments.map(|argument| String::from_utf8(argument.to_vec())).collect::<std::result::Result<_, _>>()?;
    arguments.into_iter().map(resolved).collect()
}

/// A clone's files are named through a directory that its owner holds open, `/proc/PID/fd/N`; here by where that is.
fn resolved(argument: String) -> Result<String> {
    let Some(at) = argument.find("/proc/") else { return Ok(argument) };
    let path: String = argument[at..].split_inclusive('/').take(5).collect();
    let target = fs::read_link(path.trim_end_matches('/')).map_err(|e| format!("resolve {path}: {e}"))?;
    Ok(argument.replace(path.trim_end_matches('/'), &target.to_string_lossy()))
}

/// What the command line of a clone names.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    memory: PathBuf,
    overlay: PathBuf,
}

impl Found {
    fn in_arguments(arguments: &[String]) -> Result<Found> {
        let mut found = (None, None);
        for (name, value) in pairs(arguments) {
            match (name, serde_json::from_str::<Value>(value)) {
                ("-object", Ok(object)) => found.0 = object["mem-path"].as_str().map(PathBuf::from).or(found.0),
                ("-blockdev", Ok(node)) if is_top(&node) => {
                    found.1 = node["file"]["filename"].as_str().map(PathBuf::from)
                }
                _ => {}
            }
        }
        let (Some(memory), Some(overlay)) = found else {
            return Err(format!("the clone's command line names no memory or no overlay: {arguments:?}").into());
        };
        Ok(Found { memory, overlay })
    }

    fn cache(&self) -> Result<&Path> {
        // CACHE/run/ID/overlay-0.qcow2
        self.overlay.ancestors().nth(3).ok_or_else(|| format!("{} is in no cache", self.overlay.display()).into())
    }
}

/// The command line with other descriptors and another overlay, and all else as it was.
fn rewritten(arguments: &[String], sockets: [(&str, RawFd); 3], overlay: &Path) -> Result<Vec<String>> {
    let mut arguments = arguments.to_vec();
    let mut changed = 0;
    for index in 1..arguments.len() {
        let value = &arguments[index];
        let new = match arguments[index - 1].as_str() {
            "-chardev" => {
                let known = sockets.iter().find(|(id, _)| value.starts_with(&format!("socket,id={id},")));
                let Some((id, fd)) = known else { continue };
                format!("socket,id={id},fd={fd}")
            }
            "-blockdev" => {
                let mut node: Value = serde_json::from_str(value)?;
                if !is_top(&node) {
                    continue;
                }
                node["file"]["filename"] = overlay.to_string_lossy().into();
                node.to_string()
            }
            _ => continue,
        };
        arguments[index] = new;
        changed += 1;
    }
    match changed {
        4 => Ok(arguments),
        _ => Err(format!("{changed} of 4 known parts are in the clone's command line: {arguments:?}").into()),
    }
}

fn pairs(arguments: &[String]) -> impl Iterator<Item = (&str, &str)> {
    arguments.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str()))
}

/// Whether a block node is the one that is written.
fn is_top(node: &Value) -> bool {
    node["node-name"] == "root"
}

fn disk_size(overlay: &Path) -> Result<u64> {
    let mut header = [0; QCOW2_SIZE_AT + 8];
    File::open(overlay)
        .and_then(|mut file| file.read_exact(&mut header))
        .map_err(|e| format!("read {}: {e}", overlay.display()))?;
    Ok(header[QCOW2_SIZE_AT..].try_into().map(u64::from_be_bytes)?)
}

/// A pair of sockets, of which the second is inherited by what is started next.
fn inherited_pair() -> Result<(OwnedFd, OwnedFd)> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty())?;
    fcntl(&ours, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok((ours, theirs))
}

/// A process that does not outlive its measurement.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// QEMU's control channel, in the plainest way.
struct Qmp<'a> {
    writer: &'a UnixStream,
    reader: BufReader<&'a UnixStream>,
}

impl Qmp<'_> {
    fn execute(&mut self, command: &str, arguments: Value, fd: Option<RawFd>) -> Result<Value> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        let fds: Vec<RawFd> = fd.into_iter().collect();
        let control: Vec<ControlMessage<'_>> =
            fds.iter().map(|fd| ControlMessage::ScmRights(std::slice::from_ref(fd))).collect();
        // A line this short is never written in part.
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.writer.as_raw_fd(), &[IoSlice::new(line.as_bytes())], &control, flags, None)?;
        loop {
            let mut answer = self.line()?;
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
            if answer.get("error").is_some() {
                return Err(format!("QEMU refuses {command}: {answer}").into());
            }
            // Else an event.
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line)? {
            0 => Err("QEMU has ended; what it said stands above".into()),
            _ => Ok(serde_json::from_str(&line)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clone() -> Vec<String> {
        let memory = json!({ "qom-type": "memory-backend-file", "id": "memory", "mem-path": "/c/states/k/memory" });
        let below = json!({ "node-name": "layer0", "file": { "filename": "/c/images/d.qcow2" } });
        let top =
            json!({ "node-name": "root", "backing": "layer0", "file": { "filename": "/c/run/x/overlay-0.qcow2" } });
        let words = [
            "qemu",
            "-S",
            "-object",
            &memory.to_string(),
            "-chardev",
            "socket,id=qmp,fd=9",
            "-mon",
            "chardev=qmp",
            "-chardev",
            "socket,id=console,fd=12",
            "-blockdev",
            &below.to_string(),
            "-blockdev",
            &top.to_string(),
            "-chardev",
            "socket,id=agent,fd=11",
            "-incoming",
            "defer",
        ];
        words.map(str::to_owned).to_vec()
    }

    #[test]
    fn memory_and_overlay_are_found() {
        let found = Found::in_arguments(&clone()).unwrap();
        assert_eq!(found, Found { memory: "/c/states/k/memory".into(), overlay: "/c/run/x/overlay-0.qcow2".into() });
        assert_eq!(found.cache().unwrap(), Path::new("/c"));
        assert!(Found::in_arguments(&["qemu".to_owned()]).is_err());
    }

    #[test]
    fn only_what_belongs_to_the_clone_is_rewritten() {
        let (old, overlay) = (clone(), Path::new("/t/o.qcow2"));
        let sockets = [("qmp", 3), ("agent", 5), ("console", 7)];
        let new = rewritten(&old, sockets, overlay).unwrap();
        let differing: Vec<&str> =
            new.iter().zip(&old).filter(|(new, old)| new != old).map(|(new, _)| new.as_str()).collect();
        let top = json!({ "node-name": "root", "backing": "layer0", "file": { "filename": "/t/o.qcow2" } }).to_string();
        let expected = ["socket,id=qmp,fd=3", "socket,id=console,fd=7", top.as_str(), "socket,id=agent,fd=5"];
        assert_eq!(differing, expected);
        assert!(rewritten(&old[..8], sockets, overlay).is_err(), "half of it is missing");
    }
}
