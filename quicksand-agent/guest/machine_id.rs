//! The machine id, of which each clone has its own.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::{FileExt, OpenOptionsExt, symlink},
    path::Path,
};

use nix::libc;

use crate::cover;

const PATH: &str = "/etc/machine-id";
/// Where systemd's journal is, in a directory with the machine id for its name.
const JOURNALS: [&str; 2] = ["/run/log/journal", "/var/log/journal"];

/// Gives the machine another id, where the image has one: an image without knows nothing of machine ids. An error is a warning.
pub(crate) fn renew(id: &[u8]) -> Result<(), String> {
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let old = match write(&id) {
        Ok(Some(old)) => old,
        Ok(None) => return Ok(()),
        Err(unwritten) => cover_with(&id).map_err(|error| {
            format!("the machine id is that of the other clones: {PATH} can't be written ({unwritten}) nor covered ({error})")
        })?,
    };
    for journals in JOURNALS {
        match keep_journal(Path::new(journals), old.trim_end(), &id) {
            // The program that writes the journal can't write there either.
            Err(error) if error.kind() != ErrorKind::ReadOnlyFilesystem => {
                return Err(format!("journalctl does not find what is in {journals}: {error}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns what the file held. `None` where there is none.
fn write(id: &str) -> io::Result<Option<String>> {
    let mut file = match OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(PATH) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    cover::must_be_regular(&file)?;
    let mut old = String::new();
    (&mut file).take(100).read_to_string(&mut old)?;
    // Written in place: cutting the file off first would cost a clone a tenth of its start. An image's first boot leaves a file
    // of just this length, or a shorter one.
    file.write_all_at(format!("{id}\n").as_bytes(), 0)?;
    if old.len() > id.len() + 1 {
        file.set_len(id.len() as u64 + 1)?;
    }
    Ok(Some(old))
}

/// The same without writing it.
fn cover_with(id: &str) -> io::Result<String> {
    let old = cover::read(Path::new(PATH))?.unwrap_or_default();
    cover::cover(Path::new(PATH), format!("{id}\n").as_bytes())?;
    Ok(String::from_utf8_lossy(&old).into_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_found_after_any_number_of_wakes() {
        let directory = tempfile::tempdir().unwrap();
        let journals = directory.path();
        fs::create_dir_all(journals.join("0")).unwrap();
        fs::write(journals.join("0/system.journal"), "log").unwrap();
        for (old, new) in [("0", "1"), ("1", "2"), ("2", "3")] {
            keep_journal(journals, old, new).unwrap();
            assert_eq!(fs::read_to_string(journals.join(new).join("system.journal")).unwrap(), "log");
        }
        assert_eq!(fs::read_dir(journals).unwrap().count(), 2);
        keep_journal(journals, "", "4").unwrap();
        keep_journal(journals, "none", "5").unwrap();
        assert_eq!(fs::read_dir(journals).unwrap().count(), 2);
    }
}
