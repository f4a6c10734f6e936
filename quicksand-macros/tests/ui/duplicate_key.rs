use quicksand::{Sandbox, sandbox_test};

#[sandbox_test(image = "debian", cpus = 2, image = "alpine")]
async fn test(sb: Sandbox) {
    drop(sb);
}

fn main() {}
