//! The QEMU process and its control channel.

mod process;
pub mod qmp;
mod version;

pub use process::{LaunchError, Process};
pub use version::{MINIMUM, Version, VersionError, version_of};
