//! What all floors above stand on: files, sizes, names, the environment, and the cache directory with its locks.

pub mod accel;
pub(crate) mod blocking;
pub mod cache;
pub(crate) mod compression;
pub(crate) mod digest;
pub(crate) mod disk_usage;
pub mod environment;
pub(crate) mod fetching;
pub(crate) mod names;
pub(crate) mod plain_file;
pub(crate) mod printed;
pub(crate) mod progress;
pub(crate) mod random;
pub(crate) mod size;
pub mod tree;
pub(crate) mod versioned;
