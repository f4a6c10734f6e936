//! The reader of an index of files, on bytes of a guest.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| quicksand_protocol::fuzzing::index(bytes));
