use quicksand::sandbox_test;

#[sandbox_test(cpus = 0, accel = "xen", timeout = "1d")]
fn test<T>() {}

fn main() {}
