//! Sends a kernel and its modules to the host, which then boots the machine by it.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    thread,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    unistd::sync,
};
use quicksand_protocol::{
    VERSION,
    frame::{Kind, MAX_PAYLOAD},
    message::{Offer, to_payload},
};

use super::{Found, boot_partition::BootPartition};
use crate::port::{self, Writer};

/// How long the host may take to end this boot, once it has everything.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns only if it could not begin, with why. What fails later ends the guest, and the host boots it by the kernel that runs now.
pub(super) fn offer(found: &Found, boot: Option<&BootPartition>) -> io::Error {
    let prepared = prepare(found).and_then(|(files, payload)| Ok((files, payload, port::open()?)));
    let (files, payload, (_reader, writer)) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    // From here on the host counts on the rest.
    if let Err(error) = send(&writer, &payload, files, boot) {
        stop(&error.to_string());
    }
    thread::sleep(PATIENCE);
    stop("the host does not take the kernel that it was offered")
}

/// A file, and how many bytes of it are sent.
type Piece = (File, u64);

/// The files, and what is said of them.
fn prepare(found: &Found) -> io::Result<(Vec<Piece>, Vec<u8>)> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (mut files, mut names) = (Vec::new(), Vec::new());
    for path in [&found.kernel].into_iter().chain(&found.modules) {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        files.push((file, size));
        names.push((name(path), size));
    }
    let kernel = names.remove(0).1;
    let offer = Offer { version: VERSION, release: found.release.clone(), kernel, modules: names };
    Ok((files, to_payload(&offer).map_err(io::Error::other)?))
}

fn send(writer: &Writer, payload: &[u8], files: Vec<Piece>, boot: Option<&BootPartition>) -> io::Result<()> {
    writer.begin_session(Kind::Offer, payload)?;
    let mut buffer = vec![0; MAX_PAYLOAD];
    for (file, size) in files {
        let mut file = file.take(size);
        let mut left = size;
        while left > 0 {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file became shorter"));
            }
            writer.send(writer.session(), Kind::Data, 0, 0, &buffer[..count])?;
            left -= count as u64;
        }
    }
    // The disk is left as by a system that went down.
    if let Some(boot) = boot {
        boot.unmount();
    }
    sync();
    let _ = mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>);
    writer.send(writer.session(), Kind::Eof, 0, 0, &[])
}

/// Ends the guest: process 1 that ends is a panic, which ends the machine.
fn stop(why: &str) -> ! {
    eprintln!("quicksand: failed to offer a kernel: {why}");
    let _ = fs::write("/proc/sysrq-trigger", "c");
    std::process::exit(1)
}
