//! Serves one directory to one guest, until the guest's end of the socket is closed.
//!
//! Usage: `quicksand-mount SOCKET DIRECTORY [read-only] [cached]`, where `SOCKET` and `DIRECTORY` are the numbers of two
//! inherited descriptors.

use std::process::ExitCode;

use quicksand_mounts::server;

fn main() -> ExitCode {
    match server::run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quicksand-mount: failed to {error}");
            ExitCode::FAILURE
        }
    }
}
