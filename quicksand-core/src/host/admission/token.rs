//! Files that say that their makers live: each is locked for as long, and the kernel frees the lock however a process dies.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

use crate::base::random;

/// Names of files that may not be locked yet start with this.
const NASCENT: &str = ".";
/// A file that is not locked by then will never be.
const BIRTH: Duration = Duration::from_secs(60);

/// A file of ours. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Token {
    path: PathBuf,
    file: File,
}

/// The file of somebody who lives.
#[derive(Debug)]
pub(crate) struct Living {
    pub(crate) name: String,
    pub(crate) content: String,
}

impl Token {
    /// Makes one. Names are in the order in which they were made, by all processes since the host booted.
    pub(crate) fn create(directory: &Path, content: &str) -> io::Result<Token> {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let name = format!("{:020}-{}", now.as_nanos(), random::name()?);
        // Under its name it is always locked, so that nobody takes it for a dead one.
        let nascent = directory.join(format!("{NASCENT}{name}"));
        let file = File::options().read(true).write(true).create_new(true).open(&nascent)?;
        let path = directory.join(&name);
        let made = file
            .lock()
            .and_then(|()| file.write_all_at(content.as_bytes(), 0))
            .and_then(|()| fs::rename(&nascent, &path));
        if let Err(error) = made {
            let _ = fs::remove_file(&nascent);
            return Err(error);
        }
        Ok(Token { path, file })
    }

    pub(crate) fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Puts another content in place, no shorter than the one before.
    pub(crate) fn rewrite(&self, content: &str) -> io::Result<()> {
        self.file.write_all_at(content.as_bytes(), 0)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // One that stays is taken for dead as soon as the lock is free.
        let _ = fs::remove_file(&self.path);
    }
}

/// The files of those who live, in order. Those of the dead are removed.
pub(crate) fn living(directory: &Path) -> io::Result<Vec<Living>> {
    let mut living = Vec::new();
    for name in names(directory)? {
        let path = directory.join(&name);
        // Gone meanwhile.
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock_shared().is_ok() {
            // No other file will ever have this name.
            let _ = fs::remove_file(&path);
        } else {
            let content = io::read_to_string(file).unwrap_or_default();
            living.push(Living { name, content });
        }
    }
    Ok(living)
}

/// How many files stand before that of this name. The first of them goes if it is a dead one's, so that whoever asks time and
/// again comes to be the first.
pub(crate) fn before(directory: &Path, name: &str) -> io::Result<usize> {
    let mut before = names(directory)?;
    before.retain(|other| other.as_str() < name);
    let Some(first) = before.first() else { return Ok(0) };
    let path = directory.join(first);
    if File::open(&path).is_ok_and(|file| file.try_lock_shared().is_ok()) {
        let _ = fs::remove_file(&path);
    }
    Ok(before.len())
}

/// The names in a directory that are always locked while their makers live, in order.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)?.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.starts_with(NASCENT) {
            names.push(name);
        } else if is_old(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_old(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age > BIRTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_found_in_order_and_the_dead_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let tokens: Vec<Token> = (0..3).map(|n| Token::create(path, &n.to_string()).unwrap()).collect();
        fs::write(path.join("00000000000000000000-dead"), "x").unwrap();
        fs::write(path.join(".nascent"), "x").unwrap();
        assert_eq!(before(path, tokens[1].name()).unwrap(), 2, "one of them dead");
        assert_eq!(before(path, tokens[1].name()).unwrap(), 1);
        let contents = || -> Vec<String> { living(path).unwrap().into_iter().map(|living| living.content).collect() };
        assert_eq!(contents(), ["0", "1", "2"]);
        tokens[1].rewrite("one").unwrap();
        assert_eq!(contents(), ["0", "one", "2"]);
        drop(tokens);
        assert!(contents().is_empty());
        assert_eq!(fs::read_dir(path).unwrap().count(), 1);
    }
}
