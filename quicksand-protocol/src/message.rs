//! Messages: what frames of the kinds hello, welcome, announce, request and reply carry, as [postcard].
//!
//! Paths, arguments, environment and user names are bytes: a guest's file names need not be UTF-8.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    facts::Question,
    frame::MAX_PAYLOAD,
    network::{Card, Connect},
};

/// Length of a session's nonce in bytes.
pub const NONCE_LEN: usize = 16;

/// How many warnings a reply has at the most.
pub const MOST_WARNINGS: usize = 8;
/// How many characters each has at the most.
pub const LONGEST_WARNING: usize = 512;

/// Streams of [`Request::Exec`]; the bulk requests use [`STDIN`](stream::STDIN) into the guest and
/// [`STDOUT`](stream::STDOUT) out of it.
pub mod stream {
    /// Host to guest.
    pub const STDIN: u8 = 0;
    /// Guest to host.
    pub const STDOUT: u8 = 1;
    /// Guest to host.
    pub const STDERR: u8 = 2;
}

/// Opens a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The host's [`VERSION`](crate::VERSION).
    pub version: u16,
    /// Fresh random bytes, which the welcome must repeat.
    pub nonce: [u8; NONCE_LEN],
}

/// Answers a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The agent's [`VERSION`](crate::VERSION).
    pub version: u16,
    /// The hello's nonce.
    pub nonce: [u8; NONCE_LEN],
}

/// Says that an agent has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// The agent's [`VERSION`](crate::VERSION).
    pub version: u16,
    /// What is wrong with the kernel that the guest would boot by itself, which is why another one runs, or with the one that runs.
    pub kernel_fault: Option<String>,
}

/// A kernel that the guest would boot by itself, and the modules that it needs before its root file system is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The guest's [`VERSION`](crate::VERSION).
    pub version: u16,
    /// The kernel's release, as its own header says it.
    pub release: String,
    /// The size of its file in bytes.
    pub kernel: u64,
    /// For each module, in the order to load them, its file's name and size in bytes. They may be compressed.
    pub modules: Vec<(String, u64)>,
}

/// Most bytes of the files of an [`Offer`] together.
pub const LARGEST_OFFER: u64 = 256 << 20;

/// Starts an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Answer at once with [`Done::Nothing`].
    Ping,
    /// Run a program; ends with [`Done::Exited`].
    Exec(Exec),
    /// Send the bytes of a file on STDOUT; ends with [`Done::Nothing`].
    ReadFile {
        /// Absolute path.
        path: Vec<u8>,
        /// How many bytes the host takes at the most. A longer file fails at once with `EFBIG`, with its path and length as the message.
        limit: u64,
    },
    /// Create or truncate a file and fill it from STDIN; ends with [`Done::Nothing`].
    WriteFile {
        /// Absolute path. Its directory must exist.
        path: Vec<u8>,
        /// Permission bits for a file that did not exist.
        mode: u32,
    },
    /// Unpack a tar from STDIN; ends with [`Done::Nothing`].
    Upload {
        /// Absolute path that the tar's root becomes.
        path: Vec<u8>,
    },
    /// Send a file or directory as a tar on STDOUT; ends with [`Done::Nothing`].
    Download {
        /// Absolute path that becomes the tar's root.
        path: Vec<u8>,
    },
    /// Take up a life of one's own after a restore; ends with [`Done::Nothing`], or with [`Done::ButFor`] where not all could be
    /// done. Carried out before any request that follows it. A guest in which it fails is of no use.
    Wake(Wake),
    /// Take a machine id of one's own; ends as [`Request::Wake`] does, and is carried out before any request that follows it. A request of
    /// its own, for it takes longer than waking, and nobody has to wait for it.
    Rename {
        /// The new machine id.
        machine_id: [u8; 16],
    },
    /// Write everything to disk; ends with [`Done::Nothing`].
    Sync,
    /// Get ready for a freeze that follows at once, which is to leave waking little to do; ends with [`Done::Nothing`].
    ExpectFreeze {
        /// Whether to write everything to disk, too.
        sync: bool,
    },
    /// Answer once the guest's init has started what it is to start; ends with [`Done::Nothing`].
    Settle(Settle),
    /// Wait until something is so; ends with [`Done::Nothing`], or with [`Done::NotYet`] where its time is over.
    Await(Await),
    /// Send a file on STDOUT from its beginning, and what is added to it, until the operation is cancelled. What keeps it from being
    /// read comes on STDERR, a line each time that this changes; an empty line says that it can be read again.
    Follow {
        /// Absolute path. The file may come later, be cut off and be replaced.
        path: Vec<u8>,
    },
    /// Make a user with a group and a home directory; ends with [`Done::Nothing`]. Fails with `EEXIST` where there is one of that name.
    CreateUser {
        /// The user's name.
        name: String,
    },
    /// Connect to a server in the guest, STDIN and STDOUT being the connection's bytes each way; ends with [`Done::Nothing`] once
    /// both have ended. Cancelling it resets the connection.
    Connect(Connect),
    /// Listen at [`HOST_ADDRESS`](crate::network::HOST_ADDRESS) for connections to the host's port of that number. Sends on STDOUT
    /// a number of four bytes, little-endian: 0 once it listens, then that of each connection, for [`Request::Accept`]. Ends only
    /// when cancelled.
    Listen {
        /// The port.
        port: u16,
    },
    /// Take a connection that [`Request::Listen`] told of; the rest is as with [`Request::Connect`].
    Accept {
        /// Its number.
        connection: u32,
    },
    /// Replace our part of `/etc/hosts`; ends with [`Done::Nothing`], or with [`Done::ButFor`] where that is not possible.
    Hosts {
        /// An IPv4 address and its name each.
        entries: Vec<([u8; 4], String)>,
    },
    /// Set up the cards of private networks, and remove those that are not named; ends with [`Done::Nothing`].
    Cards {
        /// The cards that the guest is to have.
        cards: Vec<Card>,
    },
    /// Mount a directory of the host; ends with [`Done::Nothing`] once it can be used.
    Mount(Mount),
    /// Take a mount off; ends with [`Done::Nothing`], also where it has gone by itself. A mount that is in use stays: the failure is
    /// `EBUSY` and names what uses it.
    Unmount {
        /// The port that it came by.
        port: String,
    },
    /// Wait for the filters that a program which runs on has started and whose input has ended, as a shell's of a command that is over;
    /// ends with [`Done::Filtered`] where there were any, else with [`Done::Nothing`].
    AwaitFilters {
        /// The id of the program's operation.
        operation: u32,
    },
    /// Have the guest's init go down for a reboot; ends with [`Done::Nothing`] once it has begun to, or with the guest.
    GoDown,
    /// Make the root file system as large as its disk, which has just been made larger; ends with [`Done::Nothing`].
    GrowRoot {
        /// The disk's new size in bytes. The guest's kernel learns of it at about the same time.
        size: u64,
    },
    /// Look at the guest's state; the answers come on STDOUT, see [`facts`](crate::facts), and it ends with [`Done::Nothing`].
    Facts {
        /// What to look at, [`MAX_QUESTIONS`](crate::facts::MAX_QUESTIONS) at the most.
        questions: Vec<Question>,
    },
    /// Send an [index](crate::index) of the files on the guest's disks on STDOUT; ends with [`Done::Nothing`].
    Index,
    /// For each of the absolute paths on STDIN, each with a NUL behind it, send its [attributes](crate::index::Attributes) on STDOUT; ends
    /// with [`Done::Nothing`].
    Attributes,
}

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Await {
    /// What is to be so.
    pub condition: Condition,
    /// How long to wait, in milliseconds.
    pub within_ms: u64,
}

/// Something that can be so or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Something listens at this TCP port, at any address.
    Port(u16),
    /// Something has this absolute path.
    File(Vec<u8>),
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

impl Window {
    /// The payload of a resize frame.
    pub fn to_bytes(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.rows.to_le_bytes(), self.cols.to_le_bytes());
        [a, b, c, d]
    }

    /// What the payload of a resize frame says. `None` where it is not four bytes.
    pub fn from_bytes(payload: &[u8]) -> Option<Window> {
        let [a, b, c, d] = payload.try_into().ok()?;
        Some(Window { rows: u16::from_le_bytes([a, b]), cols: u16::from_le_bytes([c, d]) })
    }
}

/// A directory of the host for the guest. Its FUSE requests travel through a port of their own, whole and one after another; a
/// message from the host whose `unique` is 0 asks the guest to forget the files that it merely remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Name of the virtio-serial port.
    pub port: String,
    /// Absolute path in the guest, which is made where it is missing.
    pub path: Vec<u8>,
    /// Whether the guest's kernel is to refuse changes, as the host does in any case.
    pub read_only: bool,
    /// Whether the guest may remember from one command to the next what it has seen.
    pub cached: bool,
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; the program is looked up in `PATH`.
    pub argv: Vec<Vec<u8>>,
    /// Variables set on top of the agent's defaults.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Working directory; the user's home where absent.
    pub current_dir: Option<Vec<u8>>,
    /// `user` or `user:group`, each by name or number; root where absent.
    pub user: Option<Vec<u8>>,
    /// Whether STDIN brings its input; else it reads nothing.
    pub stdin: bool,
    /// Gives it a terminal of this size, which is then all of its streams: what is written on it comes on STDOUT, what is typed
    /// goes to STDIN, and the end of STDIN is typed as the end of a file.
    pub terminal: Option<Window>,
    /// What kind of terminal it is, as in `TERM`. The guest takes the nearest that it has a description of; absent, of the usual one.
    pub terminal_kind: Option<Vec<u8>>,
}

/// What makes a restored guest differ from its siblings.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    /// Time of day, nanoseconds since 1970.
    pub time_ns: u64,
    /// Bytes for the random pool.
    pub seed: [u8; 32],
    /// The network it is to have.
    pub network: Network,
}

impl std::fmt::Debug for Wake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The seed is a secret of that guest.
        f.debug_struct("Wake").field("time_ns", &self.time_ns).field("network", &self.network).finish_non_exhaustive()
    }
}

/// See [`Request::Settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    /// Whether the guest has rebooted: who has it do so once more is then told on its console, as `quicksand: rebooted by` and a unit.
    pub after_reboot: bool,
}

/// A guest's network after waking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// No interface but loopback.
    None,
    /// One interface, which gets a static address. Taking a card down and up costs more than all the rest of waking, so this is
    /// done once, before a freeze.
    Static {
        /// IPv4 address.
        address: [u8; 4],
        /// Length of the network prefix.
        prefix: u8,
        /// Whether the disk is the image's, so that nobody has chosen yet what it names as its name servers.
        of_image: bool,
    },
    /// The interface that there is, as it is.
    Keep,
    /// The interface that there is, and a way out.
    Online {
        /// Default route.
        gateway: [u8; 4],
        /// Name server.
        dns: [u8; 4],
    },
}

/// Ends an operation.
pub type Reply = Result<Done, Failure>;

/// How an operation went well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// There is nothing to tell.
    Nothing,
    /// All was done but for what these say, in words: [`MOST_WARNINGS`] at the most.
    ButFor(Vec<String>),
    /// The program ran and ended.
    Exited(Exit),
    /// Filters were waited for. What they have written is on its way.
    Filtered,
    /// What was waited for is not so.
    NotYet {
        /// What was seen instead, in words.
        seen: String,
    },
}

impl Done {
    /// All was done but for these.
    pub fn but_for(warnings: impl IntoIterator<Item = String>) -> Done {
        let cut = |warning: String| warning.chars().take(LONGEST_WARNING).collect();
        let warnings: Vec<String> = warnings.into_iter().take(MOST_WARNINGS).map(cut).collect();
        if warnings.is_empty() { Done::Nothing } else { Done::ButFor(warnings) }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// Why an operation could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The guest kernel's error number, 0 where it was not the kernel's.
    pub errno: i32,
    /// What the agent was doing and what came of it.
    pub message: String,
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The message is longer than a frame holds.
    #[error("send a message: it has {0} bytes, the limit is {MAX_PAYLOAD}")]
    TooLong(usize),
    /// The bytes are no such message.
    #[error("read a message")]
    Malformed(#[from] postcard::Error),
    /// Bytes follow the message.
    #[error("read a message: {0} bytes follow it")]
    Trailing(usize),
}

/// The payload that carries `message`.
///
/// # Errors
///
/// [`MessageError::TooLong`] where it does not fit into a frame, as with a very long command line.
pub fn to_payload<T: Serialize>(message: &T) -> Result<Vec<u8>, MessageError> {
    // Room for all but the rare long one: growing would cost more than all else here.
    let payload = postcard::to_extend(message, Vec::with_capacity(128))?;
    if payload.len() > MAX_PAYLOAD {
        return Err(MessageError::TooLong(payload.len()));
    }
    Ok(payload)
}

/// The message in a payload.
///
/// # Errors
///
/// [`MessageError::Malformed`] or [`MessageError::Trailing`] where it is not exactly one.
pub fn from_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, MessageError> {
    let (message, rest) = postcard::take_from_bytes(payload)?;
    if !rest.is_empty() {
        return Err(MessageError::Trailing(rest.len()));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_does_not_fit_is_refused() {
        let exec = Request::Exec(Exec { argv: vec![vec![b'x'; MAX_PAYLOAD]], ..Exec::default() });
        assert!(matches!(to_payload(&exec), Err(MessageError::TooLong(_))));
    }

    #[test]
    fn bytes_after_a_message_are_refused() {
        let mut payload = to_payload(&Request::Ping).unwrap();
        payload.push(0);
        assert!(matches!(from_payload::<Request>(&payload), Err(MessageError::Trailing(1))));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // ReadFile with a path of 2^63 bytes.
        let payload = [2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(matches!(from_payload::<Request>(&payload), Err(MessageError::Malformed(_))));
    }

    #[test]
    fn the_seed_is_not_printed() {
        let wake = Wake { time_ns: 1, seed: [0x77; 32], network: Network::None };
        let text = format!("{wake:?}");
        assert!(!text.contains("119"), "{text}");
    }
}
