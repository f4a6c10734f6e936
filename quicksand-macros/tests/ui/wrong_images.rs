use quicksand::{Sandbox, sandbox_test};

#[sandbox_test(images = ["debian:12", "debian-12"])]
async fn same_name(_sb: Sandbox) {}

#[sandbox_test(images = ["debian", "debian"])]
async fn twice(_sb: Sandbox) {}

#[sandbox_test(images = ["debian", ignore("ubuntu")])]
async fn no_reason(_sb: Sandbox) {}

#[sandbox_test(images = "debian")]
async fn no_list(_sb: Sandbox) {}

#[sandbox_test(image = "debian", images = ["ubuntu"])]
async fn both(_sb: Sandbox) {}

fn main() {}
