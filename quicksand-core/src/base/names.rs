//! Names of saves.

/// The longest name, in bytes.
const LONGEST: usize = 64;

/// Whether a save may have this name: it is a file's, and a part of the names of others.
pub(crate) fn is_fit(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    let mut bytes = name.bytes();
    bytes.next().is_some_and(plain) && bytes.all(|b| plain(b) || b"._-".contains(&b)) && name.len() <= LONGEST
}
