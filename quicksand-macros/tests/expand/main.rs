//! The attributes as the compiler runs them. This file stands in for the package `quicksand`, with machines that only
//! count.

extern crate self as quicksand;

mod common;
mod quicksand_stub;

use quicksand_stub::{__private, Accel, NetworkMode, Sandbox};

use std::time::Duration;

use __private::last_meta;
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
    assert_eq!(meta.name, "expand::needs_only_an_image");
    assert_eq!(meta.manifest_dir, env!("CARGO_MANIFEST_DIR"));
    assert_eq!(meta.image, "debian");
    assert!(meta.fingerprint.is_none());
    assert_eq!((meta.memory, meta.cpus, meta.network, meta.accel, meta.timeout), (None, None, None, None, None));
}

#[sandbox_test(
    image = "debian", save = "base", setup = sb, memory = "512M", cpus = 2, network = "mounts-only", accel = "tcg",
    timeout = "1.5s",
)]
async fn takes_every_key(sb: Sandbox) -> Result<(), String> {
    assert_eq!(sb.prepared(), 1);
    let meta = last_meta();
    assert_eq!(meta.save, Some("base"));
    assert_eq!(meta.memory, Some(512 << 20));
    assert_eq!(meta.cpus, Some(2));
    assert_eq!(meta.network, Some(NetworkMode::MountsOnly));
    assert_eq!(meta.accel, Some(Accel::Tcg));
    assert_eq!(meta.timeout, Some(Duration::from_millis(1_500)));
    Ok(())
}

#[sandbox_test(image = "debian", save = "base")]
async fn a_save_needs_no_setup(_: Sandbox) {
    assert_eq!(last_meta().fingerprint, Some(""));
}

#[sandbox_test(image = "debian")]
#[should_panic = "as it should"]
async fn other_attributes_stay(_sb: Sandbox) {
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
    assert_eq!(last_meta().fingerprint, Some(common::base::FINGERPRINT));
    assert_eq!(common::base::FINGERPRINT.len(), 16);
}

#[sandbox_test(image = "debian", save = "base", setup = imported)]
async fn an_import_brings_setup_and_fingerprint(sb: Sandbox) {
    assert_eq!(sb.prepared(), 4);
    assert_eq!(last_meta().fingerprint, Some(imported::FINGERPRINT));
    assert_ne!(imported::FINGERPRINT, common::base::FINGERPRINT);
}

#[sandbox_test(image = "debian", save = "base", setup = marked)]
async fn both_attributes_come_to_the_same_fingerprint(sb: Sandbox) {
    assert_eq!(sb.prepared(), 2);
    assert_eq!(last_meta().fingerprint, Some(marked::FINGERPRINT));
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
        assert_eq!(meta.fingerprint, Some(marked::FINGERPRINT));
        assert_ne!(marked::FINGERPRINT, super::marked::FINGERPRINT);
    }

    #[sandbox_test(image = "debian", save = "base", setup = super::marked)]
    async fn paths_lead_out_of_modules(sb: Sandbox) {
        assert_eq!(sb.prepared(), 2);
        assert_eq!(last_meta().fingerprint, Some(super::marked::FINGERPRINT));
    }
}

macro_rules! on_image {
    ($name:ident, $image:expr) => {
        #[sandbox_test(image = $image, save = "base", setup = sb)]
        async fn $name(sb: Sandbox) {
            assert_eq!(sb.prepared(), 1);
            assert_eq!(last_meta().image, $image);
        }
    };
}

on_image!(macros_may_write_tests, "alpine");
