//! How the guest's instructions are carried out, as a user asks for it.

use serde::{Deserialize, Serialize};

/// How the guest's instructions are carried out, as a user asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Accel {
    /// The fastest that is found to work.
    #[default]
    Auto,
    /// Linux's own virtualization.
    Kvm,
    /// macOS's own virtualization. Untested.
    Hvf,
    /// Windows's own virtualization. Untested.
    Whpx,
    /// Software emulation: slow, and works everywhere.
    Tcg,
}
