//! The server of a mount, on bytes of a guest. Each input gets a directory of its own.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let directory = tempfile::tempdir().expect("a directory can be made");
    std::fs::write(directory.path().join("file"), "shared").expect("a file can be made");
    quicksand_mounts::server::fuzzing::fuse(directory.path(), bytes).expect("a directory can be served");
});
