//! What is fuzzed of this crate. For fuzz targets and the tests that replay their corpus.

use std::{fs::File, io, path::Path};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Limits, Options, Session, confine, exchange};

/// Largest file that a guest makes, in bytes: fuzzed sizes would fill the disk.
const LARGEST_FILE: u64 = 1 << 20;
/// What a guest may hold: little enough that a fuzzer comes to reach it.
const LIMITS: Limits = Limits { files: 16, handles: 4 };

/// Serves a directory to a guest that sends `bytes`: first for reading, then for writing. From then on no file of this process grows
/// beyond a mebibyte.
///
/// # Errors
///
/// Those of opening the directory and of setting the limit, but none that the guest is to blame for.
///
/// # Panics
///
/// Where a reply is not as long as it says.
pub fn fuse(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    setrlimit(Resource::RLIMIT_FSIZE, LARGEST_FILE.min(hard), hard)?;
    confine::ignore_file_size_signal()?;
    let directory = File::open(directory)?;
    for read_only in [true, false] {
        let mut session = Session::new(&directory, Options { read_only, ..Options::default() }, LIMITS)?;
        let mut replies = Vec::new();
        // A length that no message has ends the session.
        let _ = exchange(bytes, &mut replies, &mut session);
        check(&replies);
    }
    Ok(())
}

/// Each reply begins with its own length, and the last one ends where they all do.
fn check(mut replies: &[u8]) {
    while let Some(len) = replies.first_chunk() {
        let len = u32::from_ne_bytes(*len) as usize;
        assert!((16..=replies.len()).contains(&len), "a reply of {len} bytes where {} are left", replies.len());
        replies = &replies[len..];
    }
    assert!(replies.is_empty(), "{} bytes follow the last reply", replies.len());
}
