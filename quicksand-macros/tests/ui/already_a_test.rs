use quicksand::{Sandbox, sandbox_test};

#[sandbox_test(image = "debian")]
#[test]
async fn test(sb: Sandbox) {
    drop(sb);
}

fn main() {}
