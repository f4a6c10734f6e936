//! Exchanging a file that somebody may have open.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    process,
};

/// Writes `after` in the place of `before`: whoever looks finds the one or the other, also when we are killed.
///
/// # Errors
///
/// Where that can't be done, or the file no longer is `before`, as when it was edited meanwhile.
pub(super) fn exchange(path: &Path, before: &str, after: &str) -> io::Result<()> {
    // Of a link to a file, the file.
    let path = path.canonicalize()?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", process::id()));
    let new = path.with_file_name(name);
    let result = write(&path, &new, before, after);
    if result.is_err() {
        let _ = fs::remove_file(&new);
    }
    result
}

fn write(path: &Path, new: &Path, before: &str, after: &str) -> io::Result<()> {
    let mut file = File::create(new)?;
    file.set_permissions(fs::metadata(path)?.permissions())?;
    file.write_all(after.as_bytes())?;
    file.sync_all()?;
    if fs::read(path)? != before.as_bytes() {
        return Err(io::Error::other("it was changed while its session ran"));
    }
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_file_is_exchanged_and_stays_what_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("x.md"), directory.path().join("link.md"));
        fs::write(&file, "before").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("x.md", &link).unwrap();
        exchange(&link, "before", "after").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "after");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink());

        let error = exchange(&file, "before", "other").unwrap_err();
        assert_eq!(error.to_string(), "it was changed while its session ran");
        assert_eq!(fs::read_to_string(&file).unwrap(), "after");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else stays");
    }
}
