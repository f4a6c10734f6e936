//! Tests in clean virtual machines: booted once, cloned in a fraction of a second ever after.
pub use quicksand_core::*;
