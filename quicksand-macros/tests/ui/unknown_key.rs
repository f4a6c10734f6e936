use quicksand::{Sandbox, sandbox_test};

#[sandbox_test(image = "debian", memroy = "512M")]
async fn test(sb: Sandbox) {
    drop(sb);
}

fn main() {}
