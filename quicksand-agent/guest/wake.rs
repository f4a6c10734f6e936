//! Waking from a frozen state: what must differ between clones of the same moment.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, symlink},
    },
    path::Path,
    time::Duration,
};

use nix::time::{ClockId, clock_settime};
use quicksand_protocol::message::{Done, Failure, Wake};

use crate::network;

const MACHINE_ID: &str = "/etc/machine-id";
/// Where systemd's journal is, in a directory with the machine id for its name.
const JOURNALS: [&str; 2] = ["/run/log/journal", "/var/log/journal"];

/// Sets the clock, the random pool, the machine id and the network.
pub(crate) fn wake(wake: &Wake) -> Result<Done, Failure> {
    let time = Duration::from_nanos(wake.time_ns);
    clock_settime(ClockId::CLOCK_REALTIME, time.into()).map_err(|e| failure("set the clock", e as i32, &e))?;
    reseed(&wake.seed)?;
    if let Some(id) = &wake.machine_id {
        write_machine_id(id).map_err(|e| io_failure("write /etc/machine-id", &e))?;
    }
    network::apply(&wake.network).map_err(|e| io_failure("set up the network", &e))?;
    Ok(Done::Nothing)
}

/// Writes the machine id where the image has one: an image without knows nothing of machine ids.
fn write_machine_id(id: &[u8]) -> io::Result<()> {
    let text: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = match OpenOptions::new().read(true).write(true).open(MACHINE_ID) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let mut old = String::new();
    file.read_to_string(&mut old)?;
    // Written in place: cutting the file off first would cost a clone a tenth of its start. An image's first boot leaves a file
    // of just this length, or a shorter one.
    file.write_all_at(format!("{text}\n").as_bytes(), 0)?;
    if old.len() > text.len() + 1 {
        file.set_len(text.len() as u64 + 1)?;
    }
    JOURNALS.iter().try_for_each(|journals| keep_journal(Path::new(journals), old.trim_end(), &text))
}

/// Gives a journal the name under which it is now looked for. The one who writes it goes on under the old one.
fn keep_journal(journals: &Path, old: &str, new: &str) -> io::Result<()> {
    let named = journals.join(old);
    let target = match fs::symlink_metadata(&named) {
        // Left by an earlier wake.
        Ok(metadata) if metadata.is_symlink() => {
            let target = fs::read_link(&named)?;
            fs::remove_file(&named)?;
            target
        }
        Ok(_) if !old.is_empty() => old.into(),
        _ => return Ok(()),
    };
    symlink(target, journals.join(new))
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

    let pool = OpenOptions::new().write(true).open("/dev/urandom").map_err(|e| io_failure("open /dev/urandom", &e))?;
    let fd = pool.as_raw_fd();
    let entropy = Entropy { bits: 8 * seed.len() as i32, len: seed.len() as i32, bytes: *seed };
    // SAFETY: RNDADDENTROPY reads two numbers and as many bytes as the second says, all of which are there.
    unsafe { add_entropy(fd, &entropy) }.map_err(|e| failure("add to the random pool", e as i32, &e))?;
    // SAFETY: RNDRESEEDCRNG takes no argument.
    unsafe { reseed_crng(fd) }.map_err(|e| failure("reseed the random pool", e as i32, &e))?;
    Ok(())
}

fn io_failure(what: &str, error: &io::Error) -> Failure {
    failure(what, error.raw_os_error().unwrap_or(0), error)
}

fn failure(what: &str, errno: i32, error: &dyn std::fmt::Display) -> Failure {
    Failure { errno, message: format!("{what}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_found_after_any_number_of_wakes() {
        let journals = std::env::temp_dir().join(format!("quicksand-journals-{}", std::process::id()));
        fs::create_dir_all(journals.join("0")).unwrap();
        fs::write(journals.join("0/system.journal"), "log").unwrap();
        for (old, new) in [("0", "1"), ("1", "2"), ("2", "3")] {
            keep_journal(&journals, old, new).unwrap();
            assert_eq!(fs::read_to_string(journals.join(new).join("system.journal")).unwrap(), "log");
        }
        assert_eq!(fs::read_dir(&journals).unwrap().count(), 2);
        keep_journal(&journals, "", "4").unwrap();
        keep_journal(&journals, "none", "5").unwrap();
        assert_eq!(fs::read_dir(&journals).unwrap().count(), 2);
        fs::remove_dir_all(journals).unwrap();
    }
}
