//! Starts, freezes, clones and talks to virtual machines: the library under `quicksand`.
//!
//! A [`Sandbox`] is a virtual machine of one's own, cloned from a frozen state. The parts it is made of, from the bottom up:
//!
//! - [`environment`]: the variables by which whoever runs a program has a say in it;
//! - [`cache`]: the user's cache directory, its locks, and things that are whole or absent;
//! - [`image`]: disks with an operating system, and how they are made;
//! - [`initramfs`]: the archive that a guest starts from;
//! - [`qcow2`]: the header of a disk that somebody else made;
//! - [`qemu`]: a QEMU process that can't outlive its owner, and its control channel;
//! - [`memory`]: a running machine's memory, taken out of its process;
//! - [`guest`]: a session with the agent in a guest;
//! - `run_dir`: what a running machine has on disk, which goes with it;
//! - `admission`: who may start a machine now;
//! - [`facts`]: what is so in a guest;
//! - `install`: one's own program in a guest;
//! - [`changes`]: what its files, packages and units have become since it started;
//! - `machine`: what a machine consists of, and the command line that makes it;
//! - `vm`: a running machine, its start and its freeze;
//! - `state`: frozen machines on disk;
//! - [`inventory`]: the machines that run on this host;
//! - [`prune`]: the removal of what nobody used for a while;
//! - `kept`: machines of failed tests, to be entered later;
//! - `saves`: the saves of a project, and their way elsewhere;
//! - `artifact`: saves and images in a registry;
//! - `source`: what a sandbox starts from, and the warm state that belongs to it.

mod accel;
mod admission;
#[cfg(feature = "oci")]
mod artifact;
pub mod blocking;
pub mod cache;
mod cache_key;
pub mod changes;
mod command;
mod command_log;
pub mod diagnosis;
mod digest;
mod disk_usage;
mod display;
#[cfg(feature = "download")]
pub mod download;
pub mod environment;
mod error;
pub mod facts;
mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod guest;
mod host;
pub mod image;
pub mod initramfs;
mod install;
pub mod inventory;
mod kept;
mod kernel;
mod machine;
pub mod memory;
#[cfg(feature = "mounts")]
mod mount;
mod network;
mod pattern;
mod plain_file;
mod printed;
mod progress;
mod project;
mod project_list;
pub mod prune;
pub mod qcow2;
pub mod qemu;
mod random;
#[cfg(feature = "oci")]
mod registry;
mod requirement;
mod run_dir;
mod sandbox;
mod saves;
mod size;
mod source;
mod state;
mod terminal;
#[doc(hidden)]
pub mod tree;
mod users;
mod vm;
mod wait;

#[cfg(feature = "oci")]
pub use artifact::{Pulled, Pushed, WithMemory};
pub use cache_key::cache_key;
pub use changes::{Changes, FindChanges};
pub use command::{Child, Command, DEFAULT_OUTPUT_LIMIT, DEFAULT_TIMEOUT, ExitStatus, Output};
pub use display::{Chord, Key, MouseButton, Vnc};
pub use error::{Error, Result};
pub use guest::ChannelError;
pub use install::InstallError;
pub use kept::{KeepNote, KeptMachine};
pub use kernel::Kernel;
pub use machine::{Accel, Accelerator, NetworkMode};
#[cfg(feature = "mounts")]
pub use mount::{ActiveMount, Mount};
pub use network::{Network, PortForward};
pub use progress::{Progress, Reporter};
pub use project::{Locked, Project, ProjectError};
pub use quicksand_protocol::network::HOST_NAME;
#[cfg(feature = "oci")]
pub use registry::RegistryError;
pub use requirement::{kvm_fault, memory_for_machines};
pub use sandbox::{
    Activity, DEFAULT_BOOT_TIMEOUT, DEFAULT_MEMORY, Evidence, Sandbox, SandboxBuilder, SaveReport, Saved, Standby,
    StartKind, StartReport, source_identity,
};
pub use saves::{ArchiveError, Save, Saves};
pub use size::{ParseSizeError, Size};
pub use state::StateError;
pub use terminal::{Found, Terminal, TerminalCommand};
pub use vm::{Stage, StartCause, StartError};
pub use wait::{DEFAULT_WAIT_TIMEOUT, Wait};
