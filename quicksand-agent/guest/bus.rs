//! As much of D-Bus as it takes to ask systemd at a socket of its own. A process of `systemctl` would cost more than all the rest.

use std::{
    io::{self, Read, Write},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::Path,
    time::Duration,
};

use nix::sys::{
    socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket, sockopt},
    time::TimeVal,
};

/// How long the other side may take for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest message that is taken: a list of some thousand units.
const LONGEST: usize = 4 << 20;

const MANAGER: (&str, &str) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");

/// Kinds of messages, and the number of the header field that says which call is answered.
const CALL: u8 = 1;
const ANSWER: u8 = 2;
const ERROR: u8 = 3;
const REPLY_SERIAL: u8 = 5;

/// A connection to a manager of systemd's.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    /// Connects, as root. `None` where there is no such manager.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Bus>> {
        if !std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            return Ok(None);
        }
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let patience = TimeVal::new(PATIENCE.as_secs() as i64, 0);
        setsockopt(&fd, sockopt::SendTimeout, &patience)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &patience)?;
        connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(path)?)?;
        let mut stream = UnixStream::from(fd);
        // The number of the user, as text in hexadecimal numbers.
        stream.write_all(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n")?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\r\n") {
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 500 {
                return Err(malformed());
            }
        }
        if line.starts_with(b"OK ") { Ok(Some(Bus { stream, serial: 0 })) } else { Err(malformed()) }
    }

    /// The process at the other end.
    pub(crate) fn server(&self) -> Option<i32> {
        getsockopt(&self.stream, sockopt::PeerCredentials).ok().map(|credentials| credentials.pid())
    }

    /// Calls a method of the manager. Returns the number under which it is answered.
    pub(crate) fn ask_manager(&mut self, method: &str, arguments: &Arguments) -> io::Result<u32> {
        self.ask(MANAGER.0, MANAGER.1, method, arguments)
    }

    /// Asks for a property of a thing.
    pub(crate) fn ask_property(&mut self, path: &str, interface: &str, name: &str) -> io::Result<u32> {
        let arguments = Arguments::default().text(interface).text(name);
        self.ask(path, "org.freedesktop.DBus.Properties", "Get", &arguments)
    }

    fn ask(&mut self, path: &str, interface: &str, method: &str, arguments: &Arguments) -> io::Result<u32> {
        self.serial += 1;
        let mut fields = Arguments::default();
        for (code, kind, value) in [(1, "o", path), (2, "s", interface), (3, "s", method)] {
            fields.align(8);
            fields.bytes.push(code);
            fields.signature_value(kind);
            fields = fields.text(value);
        }
        if !arguments.signature.is_empty() {
            fields.align(8);
            fields.bytes.push(8);
            fields.signature_value("g");
            fields.signature_value(&arguments.signature);
        }
        let mut message = vec![b'l', CALL, 0, 1];
        message.extend((arguments.bytes.len() as u32).to_le_bytes());
        message.extend(self.serial.to_le_bytes());
        message.extend((fields.bytes.len() as u32).to_le_bytes());
        fields.align(8);
        message.extend(fields.bytes);
        message.extend(&arguments.bytes);
        self.stream.write_all(&message)?;
        Ok(self.serial)
    }

    /// The answer to the call of that number. What came before it is dropped: answers come in the order of the calls.
    pub(crate) fn answer(&mut self, serial: u32) -> io::Result<Answer> {
        loop {
            let mut start = [0; 16];
            self.stream.read_exact(&mut start)?;
            let number =
                |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]) as usize;
            let (body_len, fields_len) = (number(4), number(12));
            if start[0] != b'l' || body_len.max(fields_len) > LONGEST {
                return Err(malformed());
            }
            let mut fields = vec![0; fields_len.next_multiple_of(8)];
            self.stream.read_exact(&mut fields)?;
            let mut body = vec![0; body_len];
            self.stream.read_exact(&mut body)?;
            fields.truncate(fields_len);
            if answers(Answer { bytes: fields, at: 0 })? != Some(serial) {
                continue;
            }
            let mut answer = Answer { bytes: body, at: 0 };
            return match start[1] {
                ANSWER => Ok(answer),
                ERROR => Err(io::Error::other(answer.text().unwrap_or_default())),
                _ => Err(malformed()),
            };
        }
    }
}

/// Which call a message's header says that it answers.
fn answers(mut fields: Answer) -> io::Result<Option<u32>> {
    while fields.at < fields.bytes.len() {
        fields.align(8);
        let code = fields.take(1)?[0];
        match fields.signature()?.as_str() {
            "u" if code == REPLY_SERIAL => return fields.number().map(Some),
            "u" => drop(fields.number()?),
            "g" => drop(fields.signature()?),
            "s" | "o" => drop(fields.text()?),
            _ => return Err(malformed()),
        }
    }
    Ok(None)
}

/// What a method is called with.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    signature: String,
    bytes: Vec<u8>,
}

impl Arguments {
    pub(crate) fn text(mut self, text: &str) -> Arguments {
        self.signature.push('s');
        self.push_text(text);
        self
    }

    pub(crate) fn texts(mut self, texts: &[&str]) -> Arguments {
        self.signature.push_str("as");
        self.align(4);
        let at = self.bytes.len();
        self.bytes.extend([0; 4]);
        texts.iter().for_each(|text| self.push_text(text));
        let len = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
        self
    }

    fn push_text(&mut self, text: &str) {
        self.align(4);
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature_value(&mut self, signature: &str) {
        self.bytes.push(signature.len() as u8);
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

/// What a method returned, read from its beginning.
#[derive(Debug)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
    at: usize,
}

impl Answer {
    pub(crate) fn text(&mut self) -> io::Result<String> {
        let len = self.number()? as usize;
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    pub(crate) fn number(&mut self) -> io::Result<u32> {
        self.align(4);
        Ok(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| malformed())?))
    }

    pub(crate) fn long_number(&mut self) -> io::Result<u64> {
        self.align(8);
        Ok(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| malformed())?))
    }

    /// The signature of a property's value, which follows.
    pub(crate) fn signature(&mut self) -> io::Result<String> {
        let len = self.take(1)?[0];
        let signature = String::from_utf8_lossy(self.take(len.into())?).into_owned();
        self.take(1)?;
        Ok(signature)
    }

    /// Where an array of structures ends. Its first one follows.
    pub(crate) fn array(&mut self) -> io::Result<usize> {
        let len = self.number()? as usize;
        self.align(8);
        Ok(self.at + len)
    }

    /// Whether there is another structure of the array that ends there, which then follows.
    pub(crate) fn is_before(&mut self, end: usize) -> bool {
        let more = self.at < end;
        self.align(if more { 8 } else { 1 });
        more
    }

    fn take(&mut self, len: usize) -> io::Result<&[u8]> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len()).ok_or_else(malformed)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "systemd gave no answer that can be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        let arguments = Arguments::default().texts(&["active", "x"]).text("*.timer");
        assert_eq!(arguments.signature, "ass");
        let mut answer = Answer { bytes: arguments.bytes, at: 0 };
        assert_eq!(answer.number().unwrap(), 4 + 6 + 1 + 1 + 4 + 1 + 1);
        let texts: Vec<String> = (0..3).map(|_| answer.text().unwrap()).collect();
        assert_eq!(texts, ["active", "x", "*.timer"]);
        assert!(answer.text().is_err() && answer.long_number().is_err());
    }

    #[test]
    fn what_is_claimed_is_not_believed() {
        for bytes in [&b"\xff\xff\xff\xffabc"[..], b"\x05\x00\x00\x00ab", b""] {
            assert!(Answer { bytes: bytes.to_vec(), at: 0 }.text().is_err());
        }
        let fields = |bytes: &[u8]| answers(Answer { bytes: bytes.to_vec(), at: 0 });
        assert_eq!(fields(b"\x05\x01u\0\x07\0\0\0").unwrap(), Some(7));
        assert_eq!(fields(b"\x08\x01g\0\x01s\0").unwrap(), None);
        assert!(fields(b"\x05\x01x\0\x07\0\0\0").is_err());
    }
}
