//! Waking from a frozen state: what must differ between clones of the same moment.

use std::{
    fs::OpenOptions,
    io::{self, Write},
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
    write_machine_id(&wake.machine_id).map_err(|e| io_failure("write /etc/machine-id", &e))?;
    network::apply(&wake.network).map_err(|e| io_failure("set up the network", &e))?;
    Ok(Done::Nothing)
}

/// Writes the machine id where the image has one: an image without knows nothing of machine ids.
fn write_machine_id(id: &[u8]) -> io::Result<()> {
    let text: String = id.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect();
    let mut file = match OpenOptions::new().write(true).open(MACHINE_ID) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    // Written in place: cutting the file off first would cost a clone a tenth of its start. An image's first boot leaves a file
    // of just this length, or a shorter one.
    file.write_all(text.as_bytes())?;
    if file.metadata()?.len() > text.len() as u64 {
        file.set_len(text.len() as u64)?;
    }
    Ok(())
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

fn io_failure(what: &str, error: &io::Error) -> Failure {
    failure(what, error.raw_os_error().unwrap_or(0), error)
}

fn failure(what: &str, errno: i32, error: &dyn std::fmt::Display) -> Failure {
    Failure { errno, message: format!("{what}: {error}") }
}
