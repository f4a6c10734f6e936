//! The attributes as the compiler runs them. This file stands in for the package `quicksand`, with machines that only
//! count.

extern crate self as quicksand;

mod common;
mod quicksand_stub;

use quicksand_stub::{__private, Accel, Kernel, NetworkMode, Sandbox};

use std::time::Duration;

use __private::{Base, MachineMeta, Requirement, Runtime, SetupMeta, Start, Variant, Work, last_meta};
use common::imported;
use quicksand_macros::{sandbox_setup, sandbox_test};

/// In this file and called like the argument of the generated closure.
async fn sb(sb: &Sandbox) {
    sb.prepare(1);
}

#[sandbox_setup]
async fn marked(sb: &Sandbox) -> Result<(), String> {
    sb.prepare(2);
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn needs_only_an_image(sb: Sandbox) {
    assert_eq!(sb.prepared(), 0);
    let meta = last_meta();
    assert!(!meta.should_panic);
    assert_eq!(meta.name, "expand::needs_only_an_image");
    assert_eq!(meta.manifest_dir, env!("CARGO_MANIFEST_DIR"));
    assert!(matches!(meta.start, Start::Image(Variant { image: "debian", suffix: None })));
    assert_eq!((meta.machine, meta.timeout), (MachineMeta::default(), None));
    assert_eq!((meta.runtime, meta.requires), (Runtime::Default, &[][..]));
}

#[sandbox_test(
    image = "debian", save = "base", setup = sb, memory = "512M", cpus = 2, network = "mounts-only", accel = "tcg", kernel = "image",
    timeout = "1.5s", inputs("a.sh", "b"), max_age = "1h", flavor = "multi_thread", worker_threads = 2,
    requires(command = "sh"), disk_size = "10G", display = false, retries = 1,
)]
async fn takes_every_key(sb: Sandbox) {
    assert_eq!(sb.prepared(), 1);
    let meta = last_meta();
    let machine = MachineMeta {
        memory: Some(512 << 20),
        cpus: Some(2),
        network: Some(NetworkMode::MountsOnly),
        accel: Some(Accel::Tcg),
        kernel: Some(Kernel::Image),
        disk_size: Some(10 << 30),
        display: Some(false),
    };
    let setup = own();
    assert_eq!((setup.name, setup.save, setup.manifest_dir), (meta.name, "base", meta.manifest_dir));
    assert_eq!(setup.base, Base::Image(Variant { image: "debian", suffix: None }));
    assert_eq!((setup.inputs, setup.max_age), (&["a.sh", "b"][..], Some(Duration::from_secs(3600))));
    assert_eq!((setup.machine, meta.machine), (machine, machine));
    assert_eq!((setup.timeout, meta.timeout), (None, Some(Duration::from_millis(1_500))));
    assert_eq!(meta.runtime, Runtime::MultiThread(Some(2)));
    assert_eq!(meta.requires, [Requirement::Command("sh")]);
}

#[sandbox_test(image = "debian", save = "base")]
async fn a_save_needs_no_setup(_: Sandbox) {
    let image = Some(Variant { image: "debian", suffix: None });
    assert!(matches!(last_meta().start, Start::Save { name: "base", image: found } if found == image));
}

#[sandbox_test(save = "base")]
async fn a_save_needs_no_image_where_a_setup_makes_it(_: Sandbox) -> Result<(), String> {
    assert!(matches!(last_meta().start, Start::Save { name: "base", image: None }));
    Ok(())
}

#[sandbox_test(image = "debian", flavor = "current_thread")]
async fn the_runtime_is_chosen(_: Sandbox) {
    assert_eq!(last_meta().runtime, Runtime::CurrentThread);
}

#[sandbox_test(image = "debian", save = "base", setup = sb)]
fn needs_no_async(sb: Sandbox) -> Result<(), String> {
    assert_eq!(sb.prepared(), 1);
    Ok(())
}

const UPDATE: &str = "apt-get update";

#[sandbox_test(from = "base", save = "git", setup(UPDATE, "apt-get install -y git"))]
async fn a_setup_may_be_commands(_: Sandbox) {
    let setup = own();
    assert_eq!(setup.base, Base::Save("base"));
    assert!(matches!(setup.work, Work::Commands(["apt-get update", "apt-get install -y git"])));
}

/// Commands alone.
#[sandbox_setup(image = "debian", save = "git", setup(UPDATE, concat!("apt-get install ", "-y git")))]
fn git();

#[sandbox_setup(images = ["debian", "alpine:3"], save = "registered", memory = "1G", timeout = "1h")]
async fn registered(sb: &Sandbox) {
    sb.prepare(6);
}

#[sandbox_test(image = "debian", save = "base", setup = registered)]
async fn a_registered_setup_may_be_named(sb: Sandbox) {
    assert_eq!(sb.prepared(), 6);
}

/// For each image.
#[sandbox_test(images = ["debian", "alpine:3", ignore("ubuntu", "never passes")], save = "base", setup = sb)]
async fn images_have_a_test_each(sb: Sandbox) -> Result<(), String> {
    assert_eq!(sb.prepared(), 1);
    let name = last_meta().name;
    let Base::Image(Variant { image, suffix: Some(suffix) }) = own().base else { panic!("{:?}", own().base) };
    assert_eq!(name, format!("expand::images_have_a_test_each::{suffix}"));
    assert!([("debian", "debian"), ("alpine:3", "alpine_3")].contains(&(image, suffix)), "{image} {suffix}");
    Ok(())
}

#[sandbox_test(images = ["debian", "alpine"], requires(command = "sh"))]
#[should_panic = "as it should"]
async fn attributes_are_each_tests(_sb: Sandbox) {
    panic!("as it should");
}

#[sandbox_test(image = "debian", requires(kvm))]
async fn what_is_missing_skips(_sb: Sandbox) {
    panic!("not run");
}

#[sandbox_test(image = "debian", requires(kvm))]
#[should_panic(expected = "as it should")]
async fn what_is_missing_skips_where_a_panic_is_expected(_sb: Sandbox) {
    unreachable!("not run");
}

/// The setup that the test itself tells.
fn own() -> SetupMeta {
    match last_meta().start {
        Start::Own(setup) => setup,
        other => panic!("{other:?}"),
    }
}

fn fingerprint() -> &'static str {
    match own().work {
        Work::Function { fingerprint, .. } => fingerprint,
        other => panic!("{other:?}"),
    }
}

#[sandbox_test(image = "debian")]
#[should_panic = "as it should"]
async fn other_attributes_stay(_sb: Sandbox) {
    assert!(last_meta().should_panic);
    panic!("as it should");
}

/// Runs only where asked for.
#[ignore = "never passes"]
#[sandbox_test(image = "debian")]
async fn attributes_above_stay_too(_sb: Sandbox) {
    panic!();
}

#[sandbox_test(image = "debian")]
async fn the_inner_function_keeps_its_name(_sb: Sandbox) {
    // As insta finds the name of a test.
    fn name_of<T>(_: T) -> &'static str {
        std::any::type_name::<T>()
    }
    fn here() {}
    let name = name_of(here);
    assert!(name.contains("the_inner_function_keeps_its_name::the_inner_function_keeps_its_name"), "{name}");
}

#[sandbox_test(image = "debian", save = "base", setup = common::base)]
async fn a_setup_may_be_in_another_file(sb: Sandbox) {
    assert_eq!(sb.prepared(), 3);
    assert_eq!(fingerprint(), common::base::FINGERPRINT);
    assert_eq!(common::base::FINGERPRINT.len(), 16);
}

#[sandbox_test(image = "debian", save = "base", setup = imported)]
async fn an_import_brings_setup_and_fingerprint(sb: Sandbox) {
    assert_eq!(sb.prepared(), 4);
    assert_eq!(fingerprint(), imported::FINGERPRINT);
    assert_ne!(imported::FINGERPRINT, common::base::FINGERPRINT);
}

#[sandbox_test(image = "debian", save = "base", setup = marked)]
async fn both_attributes_come_to_the_same_fingerprint(sb: Sandbox) {
    assert_eq!(sb.prepared(), 2);
    assert_eq!(fingerprint(), marked::FINGERPRINT);
}

mod inner {
    use super::*;

    #[sandbox_setup]
    async fn marked(sb: &Sandbox) {
        sb.prepare(5);
    }

    #[sandbox_test(image = "debian", save = "base", setup = marked)]
    async fn the_nearest_setup_is_meant(sb: Sandbox) {
        assert_eq!(sb.prepared(), 5);
        let meta = last_meta();
        assert_eq!(meta.name, "expand::inner::the_nearest_setup_is_meant");
        assert_eq!(fingerprint(), marked::FINGERPRINT);
        assert_ne!(marked::FINGERPRINT, super::marked::FINGERPRINT);
    }

    #[sandbox_test(image = "debian", save = "base", setup = super::marked)]
    async fn paths_lead_out_of_modules(sb: Sandbox) {
        assert_eq!(sb.prepared(), 2);
        assert_eq!(fingerprint(), super::marked::FINGERPRINT);
    }
}

macro_rules! on_image {
    ($name:ident, $image:expr) => {
        #[sandbox_test(image = $image, save = "base", setup = sb)]
        async fn $name(sb: Sandbox) {
            assert_eq!(sb.prepared(), 1);
            assert_eq!(own().base, Base::Image(Variant { image: $image, suffix: None }));
        }
    };
}

on_image!(macros_may_write_tests, "alpine");
