//! Random bytes from the host's kernel.

use std::io;

/// That many random bytes.
pub(crate) fn bytes<const LEN: usize>() -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).map_err(io::Error::from)?;
    Ok(bytes)
}

/// A name that nobody else has, of 12 hexadecimal digits.
pub(crate) fn name() -> io::Result<String> {
    bytes::<6>().map(|bytes| hex(&bytes))
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
