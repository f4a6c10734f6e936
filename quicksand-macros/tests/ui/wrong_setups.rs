use quicksand::{Sandbox, sandbox_setup};

#[sandbox_setup(image = "debian")]
async fn no_save(_sb: &Sandbox) {}

#[sandbox_setup(image = "debian", save = "both", setup("true"))]
async fn commands_and_body(_sb: &Sandbox) {}

#[sandbox_setup(image = "debian", save = "neither")]
fn no_commands_and_no_body();

#[sandbox_setup(from = "itself", save = "itself", setup("true"))]
fn itself();

#[sandbox_setup(images = ["debian", ignore("ubuntu", "slow")], save = "ignored", flavor = "multi_thread", setup("true"))]
fn keys_of_tests();

fn main() {}
