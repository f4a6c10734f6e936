use quicksand::{Sandbox, sandbox_setup};

#[sandbox_setup(image = "debian", save = "a")]
fn prepares(_sb: &Sandbox) {}

fn main() {}
