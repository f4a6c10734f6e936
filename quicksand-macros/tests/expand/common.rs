//! Setups that tests in another file use.

use quicksand_macros::sandbox_setup;

use crate::Sandbox;

#[sandbox_setup]
pub(crate) async fn base(sb: &Sandbox) -> Result<(), String> {
    sb.prepare(3);
    Ok(())
}

/// Kept only where it is true.
#[sandbox_setup]
#[cfg(test)]
pub(crate) async fn imported(sb: &Sandbox) {
    sb.prepare(4);
}
