use quicksand::{Sandbox, sandbox_test};

async fn base(_sb: &Sandbox) {}

#[sandbox_test(image = "debian", setup = base)]
async fn test(sb: Sandbox) {
    drop(sb);
}

fn main() {}
