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
//! - [`sandbox_test`] makes an async function a test with a machine of its own; [`sandbox_setup`] prepares
//!   machines once, for many of them.
//! - `main!`, with the feature `runner`, is the main function of a test target with `harness = false`: a runner with retries,
//!   a line for each machine and JUnit.
//! - [`Sandbox`] is the machine, in tests and without them.
//! - [`Command`] runs programs in it, in the manner of [`std::process::Command`].
//! - [`facts`] are what is so in it, with assertions.
//! - [`changes`] are what has become of it since it started, fit for a snapshot.
//!
//! # Environment
//!
//! | variable | value | meaning |
//! | --- | --- | --- |
//! | `QUICKSAND_ACCEL` | auto, kvm, hvf, whpx or tcg | what runs the guest's code, unless a test or a program chooses; default auto |
//! | `QUICKSAND_CACHE_DIR` | an absolute path | where images and warm states are kept; default ~/.cache/quicksand, or quicksand in XDG_CACHE_HOME |
//! | `QUICKSAND_CASES` | check or overwrite | whether case files are compared with what their commands do, or rewritten; default check |
//! | `QUICKSAND_JOBS` | a number from 1 | how many machines run at once, over all test processes; default by processors and memory |
//! | `QUICKSAND_JUNIT` | a path | where the runner of `quicksand::main!` writes its JUnit report: a file, or a directory with a report of each test program; default nowhere |
//! | `QUICKSAND_KEEP` | always, failed or never | which tests keep their whole machine, to be entered later; default failed |
//! | `QUICKSAND_MEMORY_BUDGET` | an amount of memory such as 4G | how much memory all machines together may take; default by the memory of the host |
//! | `QUICKSAND_MIRROR` | a URL that starts with https:// or http:// | a server that is asked for files of images before their publishers; default what quicksand.toml says |
//! | `QUICKSAND_OFFLINE` | 1 or 0 | whether images come from the cache only, and nothing is fetched; default 0 |
//! | `QUICKSAND_PASST` | a path or a name | the passt that connects the network `full`; default passt on the path, or QEMU's own network if there is none |
//! | `QUICKSAND_QEMU` | a path or a name | the QEMU to use; default qemu-system-ARCH on the path |
//! | `QUICKSAND_REQUIRE` | 1 or 0 | whether a test fails, rather than being skipped, if the host lacks what it requires; default 1 if CI is set, else 0 |
//! | `QUICKSAND_RETRIES` | a number from 0 to 255 | how often the runner of `quicksand::main!` tries a failed test again; default what the test's `retries` says, or 0 |
//! | `QUICKSAND_UPDATE` | 1, 0, or names of saves with commas between them | which saves of setups are made again, once in this run; default 0 |
//!
//! An empty variable is one that is not set. A wrong value is refused with the right ones, and so is a `QUICKSAND_` variable
//! that is none of these. [`environment`] has them as types.
//!
//! # What is where
//!
//! Images and warm states are in the user's cache directory and can be made again. Saves are in `.quicksand/sandboxes`
//! of the package; those that [`sandbox_test`] makes are made again when what they are made from changes.

pub use quicksand_core::{
    Accel, Accelerator, ArchiveError, Changes, ChannelError, CheckedOutput, Child, Chord, Command,
    DEFAULT_BOOT_TIMEOUT, DEFAULT_MEMORY, DEFAULT_OUTPUT_LIMIT, DEFAULT_TIMEOUT, DEFAULT_WAIT_TIMEOUT, Error,
    ExitStatus, FindChanges, Found, HOST_NAME, InstallError, KeptMachine, Kernel, Key, MouseButton, Network,
    NetworkMode, Output, ParseSizeError, PortForward, Progress, Reporter, Result, Sandbox, SandboxBuilder, Save,
    SaveReport, Saves, Size, Stage, StartCause, StartError, StartKind, StartReport, Terminal, TerminalCommand, Vnc,
    Wait,
};
#[cfg(feature = "mounts")]
pub use quicksand_core::{ActiveMount, Mount};
pub use quicksand_core::{Pulled, Pushed, RegistryError, WithMemory};
pub use quicksand_core::{blocking, cache_key, changes, environment, facts};
pub use quicksand_macros::{sandbox_setup, sandbox_test};
pub use quicksand_test::show_progress;
#[cfg(feature = "runner")]
pub use quicksand_test::{Case, case_files, main};
#[cfg(feature = "insta")]
pub use quicksand_test::{assert_sandbox_snapshot, snapshot_settings};

/// The images in the user's cache and in `quicksand.lock`, for programs that look after them.
pub mod images {
    pub use quicksand_core::images::{pull, push};
    pub use quicksand_core::{
        Locked, Project, ProjectError,
        cache::Cache,
        images::{Image, ImageError, ImageInfo, Origin, Update, ensure, import_as, list, remove, show, update},
    };
}

#[cfg(doctest)]
mod book;

/// What the macros need. Not for anyone else: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use quicksand_test::__private::*;
}
