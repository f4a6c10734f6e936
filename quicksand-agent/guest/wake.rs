//! Waking from a frozen state: what must differ between clones of the same moment.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
    sync::OnceLock,
    time::Duration,
};

use nix::time::{ClockId, clock_settime};
use quicksand_protocol::message::{Done, Failure, Wake};

use crate::{machine_id, network, timers};

/// The kernel's random pool. Open since the boot: each clone would else open it once.
static POOL: OnceLock<File> = OnceLock::new();

/// Sets the clock, the random pool and the network. A guest without the first two is of no use; what else fails is a warning.
pub(crate) fn wake(wake: &Wake) -> Result<Done, Failure> {
    let timers = set_clock(Duration::from_nanos(wake.time_ns))?;
    reseed(&wake.seed)?;
    let network = network::apply(&wake.network).err();
    Ok(Done::but_for([timers, network].into_iter().flatten()))
}

/// Gives the machine an id of its own.
pub(crate) fn rename(id: &[u8; 16]) -> Done {
    Done::but_for(machine_id::renew(id).err())
}

/// Sets the clock, and has that start no timer. Returns a warning where it may.
fn set_clock(time: Duration) -> Result<Option<String>, Failure> {
    let still = timers::stop(time);
    clock_settime(ClockId::CLOCK_REALTIME, time.into()).map_err(|e| failure("set the clock", e as i32, &e))?;
    let gone_on = still.and_then(|still| still.go_on(time));
    Ok(gone_on.err().map(|error| format!("timers of systemd may make up for what they missed, or be stopped: {error}")))
}

/// Mixes the seed into the kernel's random pool and makes the pool use it at once.
#[allow(unsafe_code)]
fn reseed(seed: &[u8; 32]) -> Result<(), Failure> {
    /// `struct rand_pool_info` of the kernel's `linux/random.h`, with room for the seed.
    #[repr(C)]
    struct Entropy {
        bits: i32,
        len: i32,
        bytes: [u8; 32],
    }
    nix::ioctl_write_ptr_bad!(add_entropy, nix::request_code_write!(b'R', 3, 2 * size_of::<i32>()), Entropy);
    nix::ioctl_none!(reseed_crng, b'R', 7);

    let fd = pool().map_err(|e| failure("open /dev/urandom", e.raw_os_error().unwrap_or(0), &e))?.as_raw_fd();
    let entropy = Entropy { bits: 8 * seed.len() as i32, len: seed.len() as i32, bytes: *seed };
    // SAFETY: RNDADDENTROPY reads two numbers and as many bytes as the second says, all of which are there.
    unsafe { add_entropy(fd, &entropy) }.map_err(|e| failure("add to the random pool", e as i32, &e))?;
    // SAFETY: RNDRESEEDCRNG takes no argument.
    unsafe { reseed_crng(fd) }.map_err(|e| failure("reseed the random pool", e as i32, &e))?;
    Ok(())
}

fn pool() -> io::Result<&'static File> {
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    let pool = OpenOptions::new().write(true).open("/dev/urandom")?;
    Ok(POOL.get_or_init(|| pool))
}

fn failure(what: &str, errno: i32, error: &dyn std::fmt::Display) -> Failure {
    Failure { errno, message: format!("{what}: {error}") }
}
