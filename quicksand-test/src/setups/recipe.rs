//! What a layer is made from, as a text: another text, another save.

use std::{
    fs,
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::registry::Layer;
use crate::meta::{MachineMeta, Work};

/// A file that a setup depends on could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read {}, which the setup {setup} names in inputs(..)", path.display())]
pub(crate) struct InputError {
    setup: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The recipe of a layer that is made from `source`.
pub(super) fn recipe(layer: &Layer, source: &str) -> Result<String, InputError> {
    let MachineMeta { memory, cpus, network, accel, disk_size, display } = layer.machine;
    let mut recipe = format!("{source}; memory {memory:?}; cpus {cpus:?}; network {network:?}; accel {accel:?}");
    // Written where they are given, so that saves from before they could be stay good.
    if let Some(bytes) = disk_size {
        recipe.push_str(&format!("; disk {bytes}"));
    }
    if let Some(display) = display {
        recipe.push_str(&format!("; display {display}"));
    }
    match layer.work {
        None => recipe.push_str("; setup none"),
        Some(Work::Function { fingerprint, .. }) => recipe.push_str(&format!("; setup {fingerprint}")),
        Some(Work::Commands(lines)) => recipe.push_str(&format!("; commands {lines:?}")),
    }
    for input in layer.inputs {
        let path = layer.package.join(input);
        let digest = digest(&path).map_err(|source| InputError { setup: layer.name, path, source })?;
        recipe.push_str(&format!("; input {input:?} {digest}"));
    }
    Ok(recipe)
}

/// The SHA-256 of a file's content and of whether it is a program, or of all that is in a directory.
fn digest(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    // A link that is named is followed, as an upload follows it.
    add(&mut hash, &fs::canonicalize(path)?)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn add(hash: &mut Sha256, path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        entries.sort_unstable();
        hash.update([b'd']);
        hash.update((entries.len() as u64).to_le_bytes());
        for entry in entries {
            add_text(hash, entry.file_name().unwrap_or_default().as_bytes());
            add(hash, &entry)?;
        }
    } else if metadata.is_symlink() {
        hash.update([b'l']);
        add_text(hash, fs::read_link(path)?.as_os_str().as_bytes());
    } else if metadata.is_file() {
        let is_program = metadata.permissions().mode() & 0o111 != 0;
        hash.update([b'f', u8::from(is_program)]);
        let mut file = fs::File::open(path)?;
        let mut content = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                length => content.update(&buffer[..length]),
            }
        }
        hash.update(content.finalize());
    } else {
        // Reading a pipe or a device might never end.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file nor a directory"));
    }
    Ok(())
}

/// A text and its length, so that no two sequences come to the same.
fn add_text(hash: &mut Sha256, text: &[u8]) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_digest_tells_every_change() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("in");
        let (file, deep) = (root.join("a"), root.join("sub/b"));
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(&file, "one").unwrap();
        fs::write(&deep, "two").unwrap();
        let mut seen = HashSet::from([digest(&root).unwrap()]);
        assert_eq!(digest(&root).unwrap(), digest(&root).unwrap());
        let mut changes = |what: &str| assert!(seen.insert(digest(&root).unwrap()), "{what}");
        fs::write(&deep, "three").unwrap();
        changes("content below");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        changes("a program");
        fs::rename(&file, root.join("c")).unwrap();
        changes("a name");
        symlink("c", &file).unwrap();
        changes("a link");
        fs::remove_file(&deep).unwrap();
        changes("a file less");
        assert_eq!(digest(&file).unwrap(), digest(&root.join("c")).unwrap(), "a link that is named is followed");
        assert_eq!(digest(&deep).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(digest(Path::new("/dev/null")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
