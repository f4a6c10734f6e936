use quicksand::{Sandbox, sandbox_test};

#[sandbox_test]
async fn test(sb: Sandbox) {
    drop(sb);
}

fn main() {}
