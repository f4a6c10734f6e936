//! Starts, freezes, clones and talks to virtual machines: the library under `quicksand`.
//!
//! A [`Sandbox`] is a virtual machine of one's own, cloned from a frozen state. The folders of this crate are floors. Each uses only
//! those below it, which `tests/floors.rs` checks. From the bottom up, in the order in which data passes through them:
//!
//! 0. `quicksand-fetch`, a crate of its own: downloads and registries;
//! 1. [`base`]: files, sizes, names, the environment, and the cache directory with its locks;
//! 2. [`qemu`]: a QEMU process that can't outlive its owner, its command line, its control channel, and the machine's memory;
//! 3. [`guest`]: a session with the agent in a guest;
//! 4. [`image`]: what an image, a frozen state and a project are on disk;
//! 5. [`error`]: what can go wrong;
//! 6. [`host`]: what this host has, and who may start a machine on it now;
//! 7. [`network`]: the internet without this host, and networks among sandboxes;
//! 8. [`vm`]: a running machine, from its boot or its restore to its end;
//! 9. [`launch`]: which frozen state serves a start, and the way from there to a machine that runs;
//! 10. [`making`]: how images are made, in machines of our own where that takes a kernel;
//! 11. [`sandbox`]: a machine as its user sees it, over reboots, checkpoints and saves;
//! 12. [`verbs`]: what a user does with a sandbox;
//! 13. [`saves`]: saves of a project, and their way to other hosts;
//! 14. [`care`]: the removal of what nobody uses, and the diagnosis of a host;
//! 15. [`blocking`]: all of it without `async`;
//! 16. [`harness`]: what the test harness needs, and nobody else.

pub mod base;
pub mod blocking;
pub mod care;
pub mod error;
pub mod guest;
#[doc(hidden)]
pub mod harness;
pub mod host;
pub mod image;
pub mod launch;
pub mod making;
pub mod network;
pub mod qemu;
pub mod sandbox;
pub mod saves;
pub mod verbs;
pub mod vm;

pub use crate::{
    base::accel::Accel,
    error::{
        archive::ArchiveError,
        start::{Stage, StartCause, StartError},
    },
};
pub use base::progress::{Progress, Reporter};
pub use base::size::{ParseSizeError, Size};
pub use base::{cache, environment};
pub use care::cache_key::cache_key;
pub use care::{diagnosis, prune};
pub use error::install::InstallError;
pub use error::{Error, Result};
pub use guest::ChannelError;
pub use guest::exit_status::ExitStatus;
pub use image::project::{Locked, Project, ProjectError};
pub use image::state::StateError;
pub use launch::kernel::Kernel;
pub use network::private::Network;
pub use qemu::machine::{Accelerator, NetworkMode};
pub use quicksand_fetch::RegistryError;
pub use quicksand_protocol::network::HOST_NAME;
pub use sandbox::links::PortForward;
#[cfg(feature = "mounts")]
pub use sandbox::mount::{ActiveMount, Mount};
pub use sandbox::vnc::Vnc;
pub use sandbox::{DEFAULT_BOOT_TIMEOUT, DEFAULT_MEMORY, Sandbox, SandboxBuilder, SaveReport, StartKind, StartReport};
pub use saves::artifact::{Pulled, Pushed, WithMemory};
pub use saves::kept::KeptMachine;
pub use saves::{Save, Saves};
pub use verbs::changes::{Changes, FindChanges};
pub use verbs::command::{CheckedOutput, Child, Command, DEFAULT_OUTPUT_LIMIT, DEFAULT_TIMEOUT, Output};
pub use verbs::display::{Chord, Key, MouseButton};
pub use verbs::terminal::{Found, Terminal, TerminalCommand};
pub use verbs::wait::{DEFAULT_WAIT_TIMEOUT, Wait};
pub use verbs::{changes, facts};
pub use vm::inventory;

/// The images in a cache, and how they are made.
pub mod images {
    pub use crate::saves::image_share::{pull, push};
    pub use crate::{
        base::cache::{Cache, CacheError},
        image::{Image, ImageError, Origin, RecipeError},
        making::{ImageInfo, Update, ensure, ensure_disk, import_as, list, remove, show, update},
    };
}
