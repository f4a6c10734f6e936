//! A setup without `#[sandbox_setup]`, in another file than its tests.

use quicksand::Sandbox;

pub async fn base(_sb: &Sandbox) {}
