//! Programs of the guest that are asked, whose output and time are limited.

use std::{
    io::{self, Read},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{environment, operation::Operation};

/// How long a program may take. systemd and the journal take seconds on a guest that is busy.
const PATIENCE: Duration = Duration::from_secs(40);
/// What it may print.
const OUTPUT_LIMIT: usize = 1 << 20;
/// How often it is looked whether the host still wants to know.
const STEP_MS: u16 = 200;

/// Runs programs for an operation of the host's.
pub(super) struct Runner<'a> {
    operation: &'a Operation,
}

impl Runner<'_> {
    pub(super) fn of(operation: &Arc<Operation>) -> Runner<'_> {
        Runner { operation }
    }

    /// What a program prints on both of its outputs, however it ends.
    pub(super) fn output(&self, program: &str, arguments: &[&str]) -> io::Result<Vec<u8>> {
        let (mut reader, writer) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(arguments).envs(environment::COMMON).env("TERM", "dumb");
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        let mut child = command.spawn()?;
        // With it go our ends of the pipe, which then ends with the program.
        drop(command);
        let deadline = Instant::now() + PATIENCE;
        let mut printed = Vec::new();
        let read = loop {
            if Instant::now() >= deadline || !self.operation.is_wanted() {
                break Err(io::Error::other(format!("it did not end within {} s", PATIENCE.as_secs())));
            }
            match poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], STEP_MS) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
                Ok(_) => {}
                Err(error) => break Err(error.into()),
            }
            let mut buffer = [0; 16 * 1024];
            match reader.read(&mut buffer) {
                Ok(0) => break Ok(printed),
                Ok(len) => printed.extend_from_slice(&buffer[..len]),
                Err(error) => break Err(error),
            }
            if printed.len() > OUTPUT_LIMIT {
                break Err(io::Error::other(format!("it prints more than {OUTPUT_LIMIT} bytes")));
            }
        };
        // Before it is reaped, so that the number is still its own; where it has ended, this does nothing.
        if read.is_err() {
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        }
        child.wait()?;
        read
    }
}
