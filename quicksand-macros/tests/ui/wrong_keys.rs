use quicksand::{Sandbox, sandbox_test};

#[sandbox_test(image = "debian", requires(kvn, memory = "lots", cpus = 0, network))]
async fn requirements(_sb: Sandbox) {}

#[sandbox_test(image = "debian", flavor = "multi_threaded")]
async fn flavor(_sb: Sandbox) {}

#[sandbox_test(image = "debian", worker_threads = 2)]
async fn worker_threads(_sb: Sandbox) {}

#[sandbox_test(image = "debian", save = "a", inputs("install.sh"))]
async fn inputs_of_nothing(_sb: Sandbox) {}

#[sandbox_test(image = "debian", save = "a", setup("true"), inputs("/etc/passwd"), max_age = "7 days")]
async fn inputs_outside(_sb: Sandbox) {}

#[sandbox_test(from = "base", save = "a")]
async fn nothing_new(_sb: Sandbox) {}

#[sandbox_test(save = "a", setup())]
async fn no_commands(_sb: Sandbox) {}

fn main() {}
