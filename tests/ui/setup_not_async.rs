use quicksand::{Sandbox, sandbox_setup};

#[sandbox_setup]
fn base(_sb: &Sandbox) {}

fn main() {}
