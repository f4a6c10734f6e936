use quicksand::{Sandbox, sandbox_test};

#[sandbox_test(image = "debian", memory = "12X")]
async fn test(sb: Sandbox) {
    drop(sb);
}

fn main() {}
