//! Tests in clean virtual machines: booted once, cloned in a fraction of a second ever after.
//!
//! ```no_run,test_harness
//! use quicksand::{Sandbox, sandbox_test};
//!
//! #[sandbox_test(image = "debian", save = "base")]
//! async fn prints_its_kernel(sb: Sandbox) -> quicksand::Result<()> {
//!     assert_eq!(sb.execute("uname -s").await?.stdout, "Linux\n");
//!     Ok(())
//! }
//! ```
//!
//! The first run boots a real operating system and keeps its whole state: memory, devices and disk. Every later test,
//! in this run or next week's, starts from that state as a copy-on-write clone, does what it likes, and is thrown away.
//! It needs no root, no daemon and no container engine; it needs QEMU 7.2 or later and, to make the `debian` image,
//! `mmdebstrap`.
//!
//! - [`sandbox_test`] makes an async function a test with a machine of its own; [`sandbox_setup`] marks what such tests
//!   share.
//! - [`Sandbox`] is the machine, in tests and without them.
//! - [`Command`] runs programs in it, in the manner of [`std::process::Command`].
//!
//! # Environment
//!
//! | variable | meaning |
//! | --- | --- |
//! | `QUICKSAND_CACHE_DIR` | where images and warm states are kept, an absolute path; default `~/.cache/quicksand` |
//! | `QUICKSAND_QEMU` | the QEMU to use, a path or a name; default `qemu-system-ARCH` on the path |
//!
//! # What is where
//!
//! Images and warm states are in the user's cache directory and can be made again. Saves are in `.quicksand/sandboxes`
//! of the package; those that [`sandbox_test`] makes are made again when what they are made from changes.

pub use quicksand_core::{
    Accel, Accelerator, Child, Command, DEFAULT_BOOT_TIMEOUT, DEFAULT_MEMORY, DEFAULT_OUTPUT_LIMIT, DEFAULT_TIMEOUT,
    Error, ExitStatus, NetworkMode, Output, ParseSizeError, Progress, Result, Sandbox, SandboxBuilder, SaveReport,
    Size, Stage, StartCause, StartError, StartKind, StartReport,
};
pub use quicksand_macros::{sandbox_setup, sandbox_test};
pub use quicksand_test::show_progress;

/// The examples of the README, which are compiled as tests of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// What the macros need. Not for anyone else: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use quicksand_test::__private::*;
}
