use quicksand::{Sandbox, sandbox_test};

#[sandbox_test(image = "debian", network = "ful")]
async fn test(sb: Sandbox) {
    drop(sb);
}

fn main() {}
