use quicksand::{Sandbox, sandbox_test};

#[path = "setups.rs"]
mod setups;

#[sandbox_test(image = "debian", save = "base", setup = setups::base)]
async fn test(sb: Sandbox) {
    drop(sb);
}

fn main() {}
