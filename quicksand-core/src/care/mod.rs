//! Care for the host: the removal of what nobody uses, the diagnosis, and the key of a cache in CI.

pub(crate) mod cache_key;
pub mod diagnosis;
pub mod prune;
pub(crate) mod requirement;
