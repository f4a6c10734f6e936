use quicksand::sandbox_test;

#[sandbox_test(image = "debian")]
async fn test() {}

fn main() {}
