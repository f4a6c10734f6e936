//! Waking from a frozen state: what must differ between clones of the same moment.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    time::Duration,
};

use nix::time::{ClockId, clock_settime};
use quicksand_protocol::message::{Done, Failure, Wake};

use crate::network;

const MACHINE_ID: &str = "/etc/machine-id";

/// Sets the clock, the random pool, the machine id and the network.
pub(crate) fn wake(wake: &Wake) -> Result<Done, Failure> {
    let time = Duration::from_nanos(wake.time_ns);
    clock_settime(ClockId::CLOCK_REALTIME, time.into()).map_err(|e| failure("set the clock", e as i32, &e))?;
    reseed(&wake.seed)?;
    // Only where the image has one: an image without knows nothing of machine ids.
    if fs::exists(MACHINE_ID).unwrap_or(false) {
        let id: String = wake.machine_id.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(MACHINE_ID, id + "\n").map_err(|e| io_failure("write /etc/machine-id", &e))?;
    }
    network::apply(&wake.network).map_err(|e| io_failure("set up the network", &e))?;
    Ok(Done::Nothing)
}

/// Mixes the seed into the kernel's random pool and makes the pool use it at once.
#[allow(unsafe_code)]
fn reseed(seed: &[u8]) -> Result<(), Failure> {
    nix::ioctl_none!(reseed_crng, b'R', 7);
    let mut pool =
        OpenOptions::new().write(true).open("/dev/urandom").map_err(|e| io_failure("open /dev/urandom", &e))?;
    pool.write_all(seed).map_err(|e| io_failure("write /dev/urandom", &e))?;
    // SAFETY: RNDRESEEDCRNG takes no argument; the descriptor is open for as long as the call lasts.
    unsafe { reseed_crng(std::os::fd::AsRawFd::as_raw_fd(&pool)) }
        .map_err(|e| failure("reseed the random pool", e as i32, &e))?;
    Ok(())
}

fn io_failure(what: &str, error: &std::io::Error) -> Failure {
    failure(what, error.raw_os_error().unwrap_or(0), error)
}

fn failure(what: &str, errno: i32, error: &dyn std::fmt::Display) -> Failure {
    Failure { errno, message: format!("{what}: {error}") }
}
