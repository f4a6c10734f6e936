//! Starts, freezes, clones and talks to virtual machines: the library under `quicksand`.
//!
//! What is here so far are the parts that the rest stands on:
//!
//! - [`qemu`]: a QEMU process that can't outlive its owner, and its control channel;
//! - [`memory`]: a running machine's memory, taken out of its process;
//! - [`guest`]: a session with the agent in a guest;
//! - [`initramfs`]: the archive that a guest starts from;
//! - [`Size`]: amounts of memory and disk as people write them.

pub mod guest;
pub mod initramfs;
pub mod memory;
pub mod qemu;
mod size;

pub use size::{ParseSizeError, Size};
