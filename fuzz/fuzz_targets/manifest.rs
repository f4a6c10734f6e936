//! The readers of what lies on disk or comes in an export: manifests of saves, indices of exports, descriptions of images.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| quicksand_core::harness::fuzzing::manifest(bytes));
