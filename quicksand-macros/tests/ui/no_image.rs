use quicksand::{Sandbox, sandbox_test};

#[sandbox_test(memory = "512M")]
async fn test(sb: Sandbox) {
    drop(sb);
}

fn main() {}
