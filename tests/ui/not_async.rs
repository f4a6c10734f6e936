use quicksand::{Sandbox, sandbox_test};

#[sandbox_test(image = "debian")]
fn test(sb: Sandbox) {
    drop(sb);
}

fn main() {}
