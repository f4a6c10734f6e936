//! What a machine's cards lead to: the internet without this host, and networks among sandboxes.
//!
//! - `passt`: the internet, without this host, which `filter` sees to;
//! - `private`: networks among sandboxes, with their `switch`;
//! - `wire`: Ethernet frames on their way to QEMU.

pub(crate) mod filter;
pub(crate) mod passt;
pub(crate) mod private;
pub(crate) mod switch;
pub(crate) mod wire;
