//! Short names for long texts.

use sha2::{Digest, Sha256};

use super::random::hex;

/// A short name for something that is told by a text.
pub(crate) fn short_key(text: &str) -> String {
    let mut key = hex(&Sha256::digest(text));
    key.truncate(32);
    key
}
