//! The program that quicksand runs in its guests.
//!
//! One executable with three lives. As process 1 of the initramfs it [prepares](init) the image's own root file system, starts
//! itself once more as the agent, and becomes the image's init. As the agent it [serves](serve) the host's requests over
//! a virtio-serial port for as long as the guest runs. And for each directory of the host that is mounted it is a
//! [pump](pump).
//!
//! Threads and blocking calls throughout: a request gets a thread of its own, so that no hung command or file system holds up
//! another, and a thread costs less than the process that most requests start.

mod attributes;
mod bus;
mod cgroup;
mod clock_watch;
mod conditions;
mod connection;
mod cover;
mod crowd;
mod environment;
mod exec;
mod facts;
mod file_system;
mod files;
mod filters;
mod follow;
mod go_down;
mod grow;
mod hosts;
mod index;
mod init;
mod inittab;
mod interface;
mod keeper;
mod kernel;
mod left_behind;
mod limits;
mod machine_id;
mod mounts;
mod network;
mod new_user;
mod operation;
mod output;
mod partition;
mod pipe;
mod port;
mod process;
mod pump;
mod reaper;
mod rebooter;
mod resolver;
mod serve;
mod session;
mod settle;
mod signals;
mod start;
mod tail;
mod terminal;
mod terminfo;
mod timers;
mod users;
mod wake;

use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match std::env::args_os().nth(1) {
        _ if std::process::id() == 1 => init::run(),
        Some(word) if word == pump::WORD => return pump::run(),
        _ => serve::run(),
    };
    // Neither returns unless it failed. The console is all there is to say it on, and the host shows its last lines.
    if let Err(error) = result {
        eprintln!("quicksand: failed to {error}");
    }
    ExitCode::FAILURE
}
