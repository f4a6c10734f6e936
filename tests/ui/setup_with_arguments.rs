use quicksand::{Sandbox, sandbox_setup};

#[sandbox_setup(image = "debian")]
async fn base(_sb: &Sandbox) {}

fn main() {}
