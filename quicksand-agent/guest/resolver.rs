//! `/etc/resolv.conf` of a guest with a way out.
//!
//! What somebody put there on purpose stays: a link, and a file that names other servers than the image's did.

use std::{
    fs,
    io::{self, ErrorKind},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::libc;

use crate::cover;

const PATH: &str = "/etc/resolv.conf";

/// What the image has in it, which nobody has chosen for this machine.
static IMAGES: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// Remembers what there is as the image's. It is then in the frozen memory.
pub(crate) fn remember_images() {
    *IMAGES.lock().unwrap_or_else(PoisonError::into_inner) = cover::read(Path::new(PATH)).ok().flatten();
}

/// Has programs ask that name server. An error is a warning.
pub(crate) fn point_to(server: Ipv4Addr) -> Result<(), String> {
    let text = format!("nameserver {server}\n");
    let failed = |error: io::Error| format!("{PATH} does not name the network's server, {server}: {error}");
    match fs::canonicalize(PATH) {
        Ok(file) if is_in_memory(&file) => {
            // A resolver's own, which it would write again; that it can't is no more than a line in its log.
            if current(&file).map_err(failed)? != text.as_bytes() {
                cover::cover(&file, text.as_bytes())
            } else {
                Ok(())
            }
        }
        Ok(file) => {
            let current = current(&file).map_err(failed)?;
            if current == text.as_bytes() {
                return Ok(());
            }
            let others = chosen_servers(&current, &text);
            if !others.is_empty() {
                return Err(format!(
                    "{PATH} names {} and not the network's server, {server}: it was left as it is",
                    others.join(", ")
                ));
            }
            match cover::write_in_place(&file, text.as_bytes()) {
                // Immutable: somebody wants it to be as it is.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error),
                Err(_) => cover::cover(&file, text.as_bytes()),
                written => written,
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => make(&text),
        Err(error) => Err(error),
    }
    .map_err(failed)
}

/// Whether a file is there until the next boot only.
fn is_in_memory(file: &Path) -> bool {
    ["/run", "/dev"].iter().any(|directory| file.starts_with(directory))
}

fn current(file: &Path) -> io::Result<Vec<u8>> {
    Ok(cover::read(file)?.unwrap_or_default())
}

/// The servers in a file that is neither the image's nor what we write.
fn chosen_servers(current: &[u8], ours: &str) -> Vec<String> {
    let images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
    if images.as_deref() == Some(current) {
        return Vec::new();
    }
    let current = String::from_utf8_lossy(current);
    let servers = current.lines().filter(|line| line.trim() != ours.trim());
    let servers = servers.filter_map(|line| line.trim().strip_prefix("nameserver")?.split_ascii_whitespace().next());
    servers.map(|server| server.chars().take(50).collect()).take(3).collect()
}

/// Makes the file, also where a link leads to none: no resolver is there that would.
fn make(text: &str) -> io::Result<()> {
    let mut file = PathBuf::from(PATH);
    // The kernel follows so many.
    for _ in 0..40 {
        match fs::read_link(&file) {
            Ok(target) => file = file.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => break,
        }
    }
    if file != Path::new(PATH) {
        fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
    }
    cover::write_in_place(&file, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_somebody_chose_are_told_from_ours_and_the_images() {
        let ours = "nameserver 10.0.2.3\n";
        let chosen = |text: &str| chosen_servers(text.as_bytes(), ours);
        assert!(chosen("").is_empty() && chosen("# nameserver 1.1.1.1\nsearch example.org\n").is_empty());
        assert!(chosen("options edns0\nnameserver 10.0.2.3\n").is_empty());
        assert_eq!(chosen("nameserver 192.0.2.53\nnameserver\t::1 \n"), ["192.0.2.53", "::1"]);
    }
}
