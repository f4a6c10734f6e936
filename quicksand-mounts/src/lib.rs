//! The bytes of the program that serves a directory of the host to a guest.
//!
//! The program speaks FUSE over a socket, whose other end is a virtio-serial port of the guest. It runs as a process of its own,
//! since it clears its umask, holds a descriptor for each file that the guest knows of, and confines itself to the
//! directory: nothing that one would do to the process of a user's tests. It stands in [`server`](self) of this package,
//! behind the feature `server`; the build script compiles it and this library embeds it.
#![cfg_attr(not(feature = "server"), forbid(unsafe_code))]

#[cfg(feature = "server")]
pub mod server;

/// The server: a static ELF executable. Its arguments are those of `server::Options`.
#[cfg(not(feature = "server"))]
pub const BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quicksand-mount"));
