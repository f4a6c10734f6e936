use quicksand::{Sandbox, sandbox_setup, sandbox_test};

#[sandbox_test(image = "debian", disk_size = "1000T", display = "yes", retries = 0)]
async fn boots(_sb: Sandbox) {}

#[sandbox_setup(image = "debian", save = "a", disk_size = "big", display = 1, retries = 2)]
async fn prepares(_sb: &Sandbox) {}

fn main() {}
