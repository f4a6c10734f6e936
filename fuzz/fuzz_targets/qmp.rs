//! The reader of QEMU's control channel.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| quicksand_core::harness::fuzzing::qmp(bytes));
