//! Our part of `/etc/hosts`.

use std::{
    fs, io,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use quicksand_protocol::{
    message::{Done, Failure},
    network::{OWN_HOSTS_BEGIN as BEGIN, OWN_HOSTS_END as END, without_own_hosts},
};

const PATH: &str = "/etc/hosts";

/// One writer at a time.
static WRITING: Mutex<()> = Mutex::new(());

/// Replaces our part of the file, or makes it. What others wrote stays.
pub(crate) fn replace(entries: &[([u8; 4], String)]) -> Result<Done, Failure> {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        let old = match fs::read_to_string(PATH) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            old => old?,
        };
        let new = with_entries(&old, entries);
        if new == old { Ok(()) } else { write(Path::new(PATH), &new) }
    };
    work()
        .map(|()| Done::Nothing)
        .map_err(|e: io::Error| Failure { errno: e.raw_os_error().unwrap_or(0), message: format!("write {PATH}: {e}") })
}

fn with_entries(old: &str, entries: &[([u8; 4], String)]) -> String {
    let mut new = without_own_hosts(old);
    if !entries.is_empty() {
        let lines = entries.iter().map(|(address, name)| format!("{} {name}\n", Ipv4Addr::from(*address)));
        new.extend([format!("{BEGIN}\n")].into_iter().chain(lines).chain([format!("{END}\n")]));
    }
    new
}

/// Puts a new file in the place of the old one, so that nobody reads half of it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    // Where it is a link, its target is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let beside = path.with_extension("quicksand");
    let mode = fs::metadata(&path).map_or(0o644, |metadata| metadata.permissions().mode());
    let replaced = fs::write(&beside, text)
        .and_then(|()| fs::set_permissions(&beside, PermissionsExt::from_mode(mode)))
        .and_then(|()| fs::rename(&beside, &path));
    // A file that is a mount of its own can't be replaced.
    replaced.or_else(|_| {
        let _ = fs::remove_file(&beside);
        fs::write(&path, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays() {
        let entries = [([10, 77, 1, 2], "db".to_owned())];
        let once = with_entries("127.0.0.1 localhost", &entries);
        assert_eq!(once, format!("127.0.0.1 localhost\n{BEGIN}\n10.77.1.2 db\n{END}\n"));
        let added = format!("{once}192.0.2.1 own\n");
        let twice = with_entries(&added, &[([10, 77, 1, 3], "web".to_owned())]);
        assert_eq!(twice, format!("127.0.0.1 localhost\n192.0.2.1 own\n{BEGIN}\n10.77.1.3 web\n{END}\n"));
        assert_eq!(with_entries(&twice, &[]), "127.0.0.1 localhost\n192.0.2.1 own\n");
    }
}
