//! The program that quicksand runs in its guests.
//!
//! One executable with two lives. As process 1 of the initramfs it [prepares](init) the image's own root file system, starts
//! itself once more as the agent, and becomes the image's init. As the agent it [serves](serve) the host's requests over
//! a virtio-serial port for as long as the guest runs.
//!
//! Threads and blocking calls throughout: a request gets a thread of its own, so that no hung command or file system holds up
//! another, and a thread costs less than the process that most requests start.

mod conditions;
mod connection;
mod exec;
mod files;
mod follow;
mod hosts;
mod init;
mod inittab;
mod interface;
mod network;
mod new_user;
mod operation;
mod port;
mod reaper;
mod serve;
mod settle;
mod terminal;
mod users;
mod wake;

use std::process::ExitCode;

fn main() -> ExitCode {
    let result = if std::process::id() == 1 { init::run() } else { serve::run() };
    // Neither returns unless it failed. The console is all there is to say it on, and the host shows its last lines.
    if let Err(error) = result {
        eprintln!("quicksand: failed to {error}");
    }
    ExitCode::FAILURE
}
