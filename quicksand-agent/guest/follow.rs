//! Following a file that grows, is cut off, is replaced, or does not exist yet.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use quicksand_protocol::message::{Done, Failure, stream};

use crate::{files, operation::Operation};

/// How long to rest where there is nothing new.
const STEP: Duration = Duration::from_millis(20);

/// Sends a file and what is added to it until the host gives it up.
pub(crate) fn follow(path: &[u8], operation: &Arc<Operation>) -> Result<Done, Failure> {
    let path = Path::new(OsStr::from_bytes(path));
    let (mut output, mut faults) = (operation.output(stream::STDOUT), operation.output(stream::STDERR));
    let (mut follower, mut said) = (Follower::default(), String::new());
    loop {
        let fault = match follower.step(path, &mut output) {
            Ok(true) => continue,
            Ok(false) => String::new(),
            Err(error) => error.to_string().replace('\n', " "),
        };
        if fault != said {
            let told = writeln!(faults, "{fault}");
            said = fault;
            if told.is_err() {
                break;
            }
        }
        if !operation.rest(STEP) {
            break;
        }
    }
    Ok(Done::Nothing)
}

/// The file as it was last seen.
#[derive(Debug, Default)]
struct Follower {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// What was read of it.
    len: u64,
}

impl Follower {
    /// Sends what is new. Returns whether there may be more at once.
    fn step(&mut self, path: &Path, output: &mut impl Write) -> io::Result<bool> {
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open { file: files::open(File::options().read(true), path)?, len: 0 }),
        };
        let mut buffer = vec![0; 32 * 1024];
        let len = open.file.read(&mut buffer)?;
        open.len += len as u64;
        output.write_all(&buffer[..len])?;
        if len > 0 {
            return Ok(true);
        }
        let now = fs::metadata(path);
        if now.as_ref().is_ok_and(|now| is_same(now, &open.file) && now.len() >= open.len) {
            return Ok(false);
        }
        // Cut off or replaced: read from its beginning, and what was read of the old one is no part of a line of the new.
        self.open = None;
        output.write_all(b"\n")?;
        now.map(|_| true)
    }
}

fn is_same(named: &Metadata, file: &File) -> bool {
    file.metadata().is_ok_and(|open| (open.dev(), open.ino()) == (named.dev(), named.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_is_cut_off_and_is_replaced() {
        let directory = std::env::temp_dir().join(format!("quicksand-follow-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("log");
        let (mut follower, mut seen) = (Follower::default(), Vec::new());
        let mut read = || {
            seen.clear();
            let mut result = follower.step(&path, &mut seen);
            while let Ok(true) = result {
                result = follower.step(&path, &mut seen);
            }
            (String::from_utf8(seen.clone()).unwrap(), result.is_ok())
        };
        assert_eq!(read(), (String::new(), false));
        fs::write(&path, "one\ntwo").unwrap();
        assert_eq!(read(), ("one\ntwo".into(), true));
        File::options().append(true).open(&path).unwrap().write_all(b" more\n").unwrap();
        assert_eq!(read(), (" more\n".into(), true));
        fs::write(&path, "x\n").unwrap();
        assert_eq!(read(), ("\nx\n".into(), true));
        fs::rename(&path, directory.join("log.1")).unwrap();
        assert_eq!(read(), ("\n".into(), false));
        fs::write(&path, "y\n").unwrap();
        assert_eq!(read(), ("y\n".into(), true));
        fs::remove_dir_all(&directory).unwrap();
    }
}
