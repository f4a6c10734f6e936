//! Going down for a reboot, in good order.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
};

use nix::sys::reboot::{RebootMode, reboot};
use quicksand_protocol::message::{Done, Failure};

use crate::reaper;

/// Has the image's init stop what runs and reboot. It has only begun when this returns.
pub(crate) fn go_down() -> Result<Done, Failure> {
    if std::env::args().nth(1).as_deref() == Some(reaper::WORD) {
        // There is no init that could stop anything.
        nix::unistd::sync();
        let error = reboot(RebootMode::RB_AUTOBOOT).unwrap_err();
        return Err(Failure { errno: error as i32, message: format!("reboot: {error}") });
    }
    // Only a systemd that is process 1 makes this directory.
    let (program, arguments): (_, &[_]) =
        if Path::new("/run/systemd/system").exists() { ("systemctl", &["reboot"]) } else { ("reboot", &[]) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(Done::Nothing),
        Ok(status) => Err(failure(program, &io::Error::other(status.to_string()))),
        Err(error) => Err(failure(program, &error)),
    }
}

fn failure(program: &str, error: &io::Error) -> Failure {
    Failure { errno: error.raw_os_error().unwrap_or(0), message: format!("run {program}: {error}") }
}
