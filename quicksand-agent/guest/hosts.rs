//! Our part of `/etc/hosts`.

use std::{
    fs,
    io::{self, ErrorKind},
    net::Ipv4Addr,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    sync::{Mutex, PoisonError},
};

use quicksand_protocol::{
    message::Done,
    network::{OWN_HOSTS_BEGIN as BEGIN, OWN_HOSTS_END as END, without_own_hosts},
};

use crate::cover;

const PATH: &str = "/etc/hosts";

/// One writer at a time.
static WRITING: Mutex<()> = Mutex::new(());

/// Replaces our part of the file, or makes it. What others wrote stays. A file that can't be written is covered.
pub(crate) fn replace(entries: &[([u8; 4], String)]) -> Done {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(PATH);
    let work = || {
        let old = text(&cover::read(path)?.unwrap_or_default());
        let new = with_entries(&old, entries);
        if new == old { Ok(()) } else { write(path, &bytes(&new)).or_else(|_| cover::cover(path, &bytes(&new))) }
    };
    let failed = |error: io::Error| {
        let names: Vec<&str> = entries.iter().map(|(_, name)| name.as_str()).take(5).collect();
        format!("{PATH} can't be written, so the guest does not know {}: {error}", names.join(", "))
    };
    Done::but_for(work().map_err(failed).err())
}

/// Bytes as text whatever they are, a character for each.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(character).unwrap_or(b'?')).collect()
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
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    // Where it is a link, its target is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let beside = path.with_extension("quicksand");
    let old = fs::metadata(&path);
    let mode = old.as_ref().map_or(0o644, |metadata| metadata.permissions().mode());
    let replaced = fs::write(&beside, content)
        .and_then(|()| old.map_or(Ok(()), |old| chown(&beside, Some(old.uid()), Some(old.gid()))))
        .and_then(|()| fs::set_permissions(&beside, PermissionsExt::from_mode(mode)))
        .and_then(|()| fs::rename(&beside, &path));
    replaced.or_else(|error| {
        let _ = fs::remove_file(&beside);
        // A file that is a mount of its own can't be replaced.
        if error.kind() == ErrorKind::ResourceBusy { cover::write_in_place(&path, content) } else { Err(error) }
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
        let any: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes(&text(&any)), any);
    }
}
