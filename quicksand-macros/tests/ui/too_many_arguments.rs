use quicksand::{Sandbox, sandbox_test};

#[sandbox_test(image = "debian")]
async fn test(one: Sandbox, two: Sandbox) {
    drop((one, two));
}

fn main() {}
