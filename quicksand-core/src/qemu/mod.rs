//! The QEMU process and its control channel.

pub mod initramfs;
pub(crate) mod machine;
pub mod memory;
pub mod qcow2;

mod process;
pub mod qmp;
mod version;

pub use process::{LaunchError, Process};
pub use version::{MINIMUM, Version, VersionError, version_of};
