//! The error that every fallible function of [`Sandbox`](crate::Sandbox) returns.

pub(crate) mod archive;
pub(crate) mod facts;
pub(crate) mod install;
pub(crate) mod start;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use quicksand_fetch::RegistryError;

use crate::{
    base::{
        accel::Accel,
        cache::CacheError,
        environment::EnvironmentError,
        fetching::told,
        printed::{describe_command, describe_run},
        size::{ParseSizeError, Size},
    },
    error::{archive::ArchiveError, start::StartError},
    guest::{ChannelError, exit_status::ExitStatus},
    image::{error::ImageError, state::StateError},
    qemu::{LaunchError, VersionError, memory::MemoryError, qmp::QmpError},
};
use facts::FactsError;
use install::InstallError;

/// A result with quicksand's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Messages finish the words "failed to …".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A variable of the environment can't be followed.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// There is no QEMU, or none that works.
    #[error(transparent)]
    Qemu(#[from] VersionError),
    /// QEMU could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// This kind of host is not supported.
    #[error("start a machine on this host: it is {arch}, and so far quicksand runs on Linux on x86_64 alone")]
    UnsupportedHost {
        /// The host's operating system and architecture.
        arch: String,
    },
    /// `qemu-img` is missing or failed.
    #[error("run qemu-img (Debian: qemu-utils; Fedora: qemu-img): {said}")]
    QemuImg {
        /// What it or the system said.
        said: String,
    },
    /// The machine did not start.
    #[error(transparent)]
    Start(#[from] Box<StartError>),
    /// The accelerator that was asked for does not work here.
    #[error("use accel = \"{}\": {why}", format!("{wanted:?}").to_lowercase())]
    Accelerator {
        /// What was asked for.
        wanted: Accel,
        /// Why it does not work.
        why: String,
    },
    /// The host, or a control group of ours, has less memory than the guest is to have.
    #[error(
        "give the guest {wanted}: the host has {available} in all, within the limits of our control groups; ask for less with memory(..)"
    )]
    NotEnoughMemory {
        /// What was asked for.
        wanted: Size,
        /// What there is.
        available: Size,
    },
    /// The host, or a control group of ours, has hardly any memory left.
    #[error(
        "give the guest {wanted}: {available} of the host's memory are left, within the limits of our control groups, and a machine \
         takes {needed} to begin with; end something, run fewer tests at once or ask for less with memory(..)"
    )]
    NoMemoryLeft {
        /// What was asked for.
        wanted: Size,
        /// What is left.
        available: Size,
        /// What a machine takes to begin with.
        needed: Size,
    },
    /// Machines of other processes leave no room.
    #[error("find room for a machine: for {} min those of others have not ended; they are of the processes {owners:?}", waited.as_secs() / 60)]
    Crowded {
        /// For how long none of them has ended.
        waited: Duration,
        /// The processes that they belong to.
        owners: Vec<u32>,
    },
    /// A guest's disk can't be made smaller.
    #[error(
        "give the guest a disk of {wanted}: what it starts from has one of {least}; ask for that or more with disk_size(..)"
    )]
    DiskTooSmall {
        /// What was asked for.
        wanted: Size,
        /// The least that there can be.
        least: Size,
    },
    /// The guest did not make its file system as large as its disk.
    #[error("make the guest's root file system {size}")]
    DiskGrowth {
        /// The disk's size.
        size: Size,
        /// What the guest said.
        source: ChannelError,
    },
    /// The disk has too little room.
    #[error("keep a machine in {}: {free} are free and {needed} are needed; make room or set QUICKSAND_CACHE_DIR", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// What is needed at the least.
        needed: Size,
        /// What there is.
        free: Size,
    },
    /// There is neither an image nor a save of that name.
    #[error("find {name:?}: {}", not_found(name, saves, images))]
    NoSuchSource {
        /// The name.
        name: String,
        /// Where saves were looked for.
        saves: PathBuf,
        /// The images that there are. Empty where the name is a path.
        images: Vec<String>,
    },
    /// No machine of that test is kept.
    #[error("find the machine of the test {test:?}: it is not kept; those of the last failures are: {}", tests.join(", "))]
    NotKept {
        /// The test.
        test: String,
        /// The tests whose machines are kept.
        tests: Vec<String>,
    },
    /// A name is unfit for a save.
    #[error("name a save {name:?}: use letters, digits, '.', '_' and '-', at most 64, the first a letter or digit")]
    BadName {
        /// The name.
        name: String,
    },
    /// A save was made by hand and is not to be overwritten.
    #[error("make the save {name:?} anew: the one in {} was made by hand; remove it or take another name", directory.display())]
    SaveInTheWay {
        /// The name.
        name: String,
        /// The save.
        directory: PathBuf,
    },
    /// A save was made anew, from something else, since we looked.
    #[error("start from the save {name:?}: another test makes it from something else; give one of them another name")]
    SaveChanged {
        /// The name.
        name: String,
    },
    /// The sandbox has no checkpoint of that tag.
    #[error("find the checkpoint {tag:?}: {}", if tags.is_empty() { "there are none".to_owned() } else { format!("there are {tags:?}") })]
    NoSuchCheckpoint {
        /// The tag.
        tag: String,
        /// Those that there are, in the order in which they were made.
        tags: Vec<String>,
    },
    /// There is no save of that name.
    #[error("find the save {name:?}: there is none in {}", saves.display())]
    NoSuchSave {
        /// The name.
        name: String,
        /// Where it was looked for.
        saves: PathBuf,
    },
    /// There is a save of that name already.
    #[error("import the save {name:?}: there is one in {}; remove it or take another name", directory.display())]
    SaveExists {
        /// The name.
        name: String,
        /// The save.
        directory: PathBuf,
    },
    /// A save could not be exported or imported.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A save can't be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// An image could not be made or used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A registry gave nothing, or took nothing.
    #[error("{}", told(.0))]
    Registry(RegistryError),
    /// The cache directory could not be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A size is not one.
    #[error(transparent)]
    Size(#[from] ParseSizeError),
    /// An option of a sandbox has no possible value.
    #[error("set {option}: {why}")]
    BadOption {
        /// The option.
        option: &'static str,
        /// What is wrong and what is right.
        why: String,
    },
    /// What is so in the guest could not be found out.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// A program can't run in the guest.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The machine's memory could not be taken.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// QEMU did not do what it was told.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The guest could not be talked to, or failed at what it was asked.
    #[error(transparent)]
    Guest(#[from] ChannelError),
    /// The machine has ended by itself.
    #[error("talk to the guest: its machine has ended ({qemu}); last lines of its console: {}", shown(console))]
    Ended {
        /// How its QEMU ended, and what it said last if it said anything: one that was killed, as for the host's want of memory, or that
        /// failed is told from a guest that switched itself off.
        qemu: String,
        /// The last lines of the guest's console.
        console: String,
        /// How it was noticed.
        source: ChannelError,
    },
    /// A command did not end in time. It was killed, with all that belonged to it.
    #[error("run {command}: {}",
            shown(&describe_run(&format!("it did not end within {} ms", after.as_millis()), stdout, stderr)))]
    CommandTimeout {
        /// The command.
        command: String,
        /// The time that it had.
        after: Duration,
        /// What it had printed by then, as in [`Output`](crate::Output).
        stdout: String,
        /// What it had printed by then.
        stderr: String,
    },
    /// A command did not succeed, and [`Output::check`](crate::Output::check) was asked for success.
    #[error("run {}", describe_command(command, &status.to_string(), stdout, stderr))]
    CommandFailed {
        /// The command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed, as in [`Output`](crate::Output).
        stdout: String,
        /// What it printed.
        stderr: String,
    },
    /// What was waited for did not come in time.
    #[error("wait for {what}: it did not come within {} ms; last seen: {}", after.as_millis(), shown(seen))]
    WaitTimeout {
        /// What was waited for.
        what: String,
        /// The time that it had.
        after: Duration,
        /// What was seen last instead.
        seen: String,
    },
    /// A unit of systemd failed while it was waited for.
    #[error("wait for the unit {unit}: it has failed ({state}); the end of its journal: {}", shown(journal))]
    UnitFailed {
        /// The unit.
        unit: String,
        /// How, in systemd's words.
        state: String,
        /// The last lines of its journal.
        journal: String,
    },
    /// A unit of systemd is not active, and nothing is about to start it.
    #[error(
        "wait for the unit {unit}: it is inactive and nothing is about to start it: {why}; the end of its journal: {}",
        shown(journal)
    )]
    UnitInactive {
        /// The unit.
        unit: String,
        /// What keeps it from becoming active.
        why: String,
        /// The last lines of its journal.
        journal: String,
    },
    /// A program on a terminal ended before what was waited for came, or what was sent was read.
    #[error("wait for {what}: the program has ended ({status:?}); last seen: {}", shown(seen))]
    TerminalEnded {
        /// What was waited for.
        what: String,
        /// How the program ended.
        status: ExitStatus,
        /// What the terminal's screen showed last.
        seen: String,
    },
    /// The sandbox has no display.
    #[error("use the display of the sandbox: it has none; ask for one with enable_display(true)")]
    NoDisplay,
    /// A character is on no key.
    #[error(
        "type {character:?}: the guest's keyboard has the US layout, without a key for it; write_file(..) or send(..) may do"
    )]
    NoKey {
        /// The character.
        character: char,
    },
    /// The pointer is to leave the screen.
    #[error("move the pointer to {x}, {y}: the screen has {width} by {height} pixels, counted from 0")]
    OffScreen {
        /// Pixels from the left.
        x: u32,
        /// Pixels from the top.
        y: u32,
        /// The screen's width.
        width: u32,
        /// The screen's height.
        height: u32,
    },
    /// A pattern is no regular expression.
    #[error("read the pattern {pattern:?}: {why}")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// The guest has a user of that name.
    #[error("create the user {name}: the guest has one of that name")]
    UserExists {
        /// The name.
        name: String,
    },
    /// A name is unfit for a user.
    #[error("create the user {name:?}: use small letters, digits, '_' and '-', at most 32, the first a letter or '_'")]
    BadUserName {
        /// The name.
        name: String,
    },
    /// A command or file was longer than the limit.
    #[error("take all of {what}: it is longer than {limit}; stream it with spawn(), or raise the limit")]
    TooLong {
        /// What was too long.
        what: String,
        /// The limit.
        limit: Size,
    },
    /// A port of the host could not be listened on.
    #[error("listen on 127.0.0.1:{port} of the host; port 0 has a free one picked")]
    Listen {
        /// The port.
        port: u16,
        /// What came of it.
        source: io::Error,
    },
    /// A sandbox can't have this name on a private network.
    #[error("join a network as {name:?}: another sandbox on it has that name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A file on the host could not be read or written.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// The guest sent a list of its files that is none.
    #[error("list the guest's files: it sent what is refused: failed to {why}")]
    HostileIndex {
        /// What is wrong with it.
        why: String,
    },
    /// The guest's packages could not be listed.
    #[error("list the guest's packages: {said}; is its database damaged?")]
    Packages {
        /// What the guest said.
        said: String,
    },
    /// The guest sent a directory that is not one, or that would leave its target.
    #[error("download to {}: the guest sent {what}, which is refused", path.display())]
    HostileDownload {
        /// The target.
        path: PathBuf,
        /// What the guest sent.
        what: String,
    },
    /// A directory of the host can't be mounted.
    #[error("mount the host's directory {}", path.display())]
    MountSource {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The process that serves a mount has failed.
    #[error("mount the host's directory {}: its server says: {said}", path.display())]
    MountServer {
        /// The directory.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// A mount can't be taken off, since something in the guest uses it.
    #[error("take off the mount at {}: {users}", guest.display())]
    MountBusy {
        /// Where it is in the guest.
        guest: PathBuf,
        /// What uses it.
        users: String,
    },
    /// A sandbox has no such mount.
    #[error("take off the mount at {}: it is not there any more", guest.display())]
    NotMounted {
        /// Where it was in the guest.
        guest: PathBuf,
    },
    /// The sandbox is not running.
    #[error("use the sandbox: it is not running")]
    NotRunning,
    /// The sandbox was started before.
    #[error("start the sandbox: it was started before; build another")]
    AlreadyStarted,
}

/// What was seen of a guest, behind the words that lead to it: a text of several lines below them.
fn shown(seen: &str) -> String {
    match seen.trim_end() {
        "" => "nothing".to_owned(),
        line if !line.contains('\n') => line.to_owned(),
        lines => format!("\n    {}", lines.replace('\n', "\n    ")),
    }
}

/// Where something was looked for in vain.
fn not_found(name: &str, saves: &Path, images: &[String]) -> String {
    if images.is_empty() {
        return "there is neither a disk nor a save".to_owned();
    }
    let file = if Path::new(name).is_file() { format!("; the file of that name is ./{name}") } else { String::new() };
    format!("it is neither a save in {} nor an image{file}; images are: {}", saves.display(), images.join(", "))
}

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Error {
        Error::Registry(error)
    }
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Io { what, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_a_file_is_told_how_to_be_one() {
        let images = ["debian".to_owned()];
        let told = |name: &str, images: &[String]| not_found(name, Path::new("saves"), images);
        assert_eq!(told("debain", &images), "it is neither a save in saves nor an image; images are: debian");
        assert!(told("Cargo.toml", &images).contains("an image; the file of that name is ./Cargo.toml; images are"));
        assert!(told("./nothing.qcow2", &[]).starts_with("there is neither"));
    }
}
