//! Facts: what a host asks about a guest's state, many at once, and what the agent saw.
//!
//! [`Request::Facts`](crate::message::Request::Facts) carries the questions; the answers come on STDOUT, one for each question, in
//! order, as [postcard].

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::message::MessageError;

/// How many questions a request has at the most.
pub const MAX_QUESTIONS: usize = 256;
/// The longest file whose content comes with what is known of it, in bytes.
pub const CONTENT_LIMIT: usize = 256 * 1024;
/// What an answer has in bytes besides a file's content, at the most.
pub const ANSWER_LIMIT: usize = 64 * 1024;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// A package of the guest's package manager; answered by [`Answer::Package`].
    Package {
        /// Its name. With dpkg an architecture may follow a colon.
        name: String,
    },
    /// A service of the guest's init; answered by [`Answer::Service`].
    Service {
        /// Its name. With systemd any unit, and a service where it does not say which kind.
        name: String,
    },
    /// A file of any kind; answered by [`Answer::File`].
    File {
        /// Absolute path.
        path: Vec<u8>,
    },
    /// A user; answered by [`Answer::User`].
    User {
        /// The user's name.
        name: String,
    },
    /// What listens at a port; answered by [`Answer::Port`].
    Port {
        /// The port.
        port: u16,
    },
}

/// What the agent saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of a package.
    Package(Package),
    /// Of a service.
    Service(Service),
    /// Of a file.
    File(File),
    /// Of a user.
    User(User),
    /// Of a port.
    Port(Port),
    /// It could not be found out, and why.
    Failed(String),
}

/// A package, there or not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Package {
    /// The package manager that knows it, or the one that the guest has: `dpkg`, `apk`, `rpm`.
    pub manager: Option<String>,
    /// Whether it is installed and whole.
    pub installed: bool,
    /// What the package manager calls its state: `install ok installed`. Empty where it knows no such package.
    pub state: String,
    /// Its version, as the package manager writes it.
    pub version: Option<String>,
    /// Its architecture.
    pub architecture: Option<String>,
    /// Installed packages whose names have its name in them, where there is none of that name.
    pub similar: Vec<String>,
}

/// A service, there or not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Service {
    /// What manages services: `systemd`, `openrc`.
    pub manager: Option<String>,
    /// Whether there is one of that name.
    pub exists: bool,
    /// Whether it runs.
    pub running: bool,
    /// Whether the init starts it by itself.
    pub enabled: bool,
    /// What the manager calls its state: `active (running)`, `crashed`.
    pub state: String,
    /// What the manager says of its being started: `enabled`, `static`, the names of runlevels.
    pub enablement: String,
    /// Its main process.
    pub pid: Option<u32>,
    /// The last lines of its log, where it was started and does not run.
    pub log: Vec<String>,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct File {
    /// What there is. Links are not followed.
    pub entry: Option<Entry>,
    /// The longest part of the path that is a directory, and the first names in it, in order: where there is nothing.
    pub nearest: Option<(Vec<u8>, Vec<Vec<u8>>)>,
}

/// A file of any kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which kind.
    pub kind: Kind,
    /// Permission bits, with set-id bits and the sticky bit.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The owner's name, where `/etc/passwd` has it.
    pub owner: Option<String>,
    /// The group's name, where `/etc/group` has it.
    pub group: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// When it was changed last, in seconds since 1970.
    pub modified: i64,
    /// Where a symbolic link leads, as it is written there.
    pub target: Option<Vec<u8>>,
    /// Whether a symbolic link leads to nothing.
    pub dangling: bool,
    /// What is in it, or in the file that a link leads to: of regular files of [`CONTENT_LIMIT`] at the most.
    pub content: Option<Vec<u8>>,
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A device in blocks.
    BlockDevice,
    /// A device in characters.
    CharacterDevice,
}

/// A user, there or not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct User {
    /// The user's account.
    pub account: Option<Account>,
    /// Names of the users that there are, where there is none of that name.
    pub others: Vec<String>,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The number of the user's own group.
    pub gid: u32,
    /// The names of the groups, the user's own first; a number where one has no name.
    pub groups: Vec<String>,
    /// What the entry says of the person.
    pub comment: String,
    /// Home directory.
    pub home: Vec<u8>,
    /// Shell.
    pub shell: Vec<u8>,
}

/// What listens in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Port {
    /// Everything that listens, at any port.
    pub listeners: Vec<Listener>,
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Whether it is UDP's, else TCP's.
    pub udp: bool,
    /// Where it listens.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// A process that has it, and that one's name. Only of the port that was asked for.
    pub process: Option<(u32, String)>,
}

/// The bytes of answers.
///
/// # Errors
///
/// [`MessageError::Malformed`] where they can't be written.
pub fn to_bytes(answers: &[Answer]) -> Result<Vec<u8>, MessageError> {
    Ok(postcard::to_stdvec(answers)?)
}

/// The answers in bytes.
///
/// # Errors
///
/// [`MessageError::Malformed`] or [`MessageError::Trailing`] where they are not exactly that.
pub fn from_bytes(bytes: &[u8]) -> Result<Vec<Answer>, MessageError> {
    let (answers, rest) = postcard::take_from_bytes(bytes)?;
    if !rest.is_empty() {
        return Err(MessageError::Trailing(rest.len()));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back_and_nothing_else_does() {
        let listener = Listener { udp: true, address: IpAddr::from([0; 16]), port: 53, process: Some((1, "x".into())) };
        let answers = [Answer::Port(Port { listeners: vec![listener] }), Answer::Failed("no".into())];
        let mut bytes = to_bytes(&answers).unwrap();
        assert_eq!(from_bytes(&bytes).unwrap(), answers);
        bytes.push(0);
        assert!(matches!(from_bytes(&bytes), Err(MessageError::Trailing(1))));
        // A claim of 2^63 answers.
        let claim = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(matches!(from_bytes(&claim), Err(MessageError::Malformed(_))));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answers_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            if let Ok(answers) = from_bytes(&bytes) {
                assert_eq!(from_bytes(&to_bytes(&answers).unwrap()).unwrap(), answers);
            }
        }
    }
}
