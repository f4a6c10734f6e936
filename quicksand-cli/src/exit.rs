//! The exit codes of `quicksand`, as `docs/cli.md` tells them.

use std::process::ExitCode;

/// All went well.
pub(crate) const SUCCESS: u8 = 0;
/// The command failed, or `doctor` found something that keeps machines from running.
pub(crate) const FAILURE: u8 = 1;
// 2, a command line that can't be understood, is clap's.
/// `run` and `shell`: the guest's command did not end in the time that it had.
pub(crate) const TIMEOUT: u8 = 124;
/// `run` and `shell`: there was no machine to run the command in, or it ended meanwhile.
pub(crate) const NO_MACHINE: u8 = 125;
/// `run` and `shell`: the guest could not run the command.
pub(crate) const NOT_RUN: u8 = 127;
/// `run` and `shell`: this and the number of the signal that killed the guest's command.
pub(crate) const SIGNALLED: u8 = 128;

/// The code for how a guest's command ended: its own where it has one.
pub(crate) fn of_guest(status: quicksand_core::ExitStatus) -> ExitCode {
    use quicksand_core::ExitStatus::{Code, Signal};
    let number = match status {
        Code(code) => u8::try_from(code & 0xff).unwrap_or(FAILURE),
        Signal(signal) => SIGNALLED.saturating_add(u8::try_from(signal).unwrap_or(0)),
    };
    ExitCode::from(number)
}
