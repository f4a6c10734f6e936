//! What files have beside their content, owner and mode: extended attributes, access control lists, flags.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
};

use quicksand_protocol::{
    index::Attributes,
    message::{Done, Failure, stream},
};
use rustix::fs::{AtFlags, CWD, StatxFlags, lgetxattr, llistxattr, statx};

use crate::operation::Operation;

/// The longest list of names and the longest value that the kernel has.
const LONGEST: usize = 64 * 1024;

/// Answers for each path that comes on the operation's input.
pub(crate) fn send(operation: &Arc<Operation>) -> Result<Done, Failure> {
    let mut output = operation.output(stream::STDOUT);
    match answer(BufReader::new(operation.input()), &mut output) {
        Ok(()) => Ok(Done::Nothing),
        Err(error) => {
            output.abandon();
            let message = format!("send the attributes of files: {error}");
            Err(Failure { errno: error.raw_os_error().unwrap_or(0), message })
        }
    }
}

fn answer(mut paths: impl BufRead, output: impl Write) -> io::Result<()> {
    let mut output = io::BufWriter::with_capacity(32 * 1024, output);
    let mut buffers = (vec![0; LONGEST], vec![0; LONGEST]);
    let mut path = Vec::new();
    while paths.read_until(0, &mut path)? > 0 {
        if path.last() == Some(&0) {
            path.pop();
        }
        output.write_all(&of(Path::new(OsStr::from_bytes(&path)), &mut buffers).encode())?;
        path.clear();
    }
    output.flush()
}

/// Those of a file. One that has gone, or whose file system has none, has none.
fn of(path: &Path, (names, value): &mut (Vec<u8>, Vec<u8>)) -> Attributes {
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    let flags = stat.map_or(0, |stat| stat.stx_attributes.bits());
    let len = llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let mut extended = Vec::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| Attributes::is_told(name)) {
        if let Ok(len) = lgetxattr(path, name, value.as_mut_slice()) {
            extended.push((name.to_vec(), value[..len].to_vec()));
        }
    }
    extended.sort();
    Attributes { flags: flags & Attributes::FLAGS, extended }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_an_answer() {
        let mut output = Vec::new();
        answer(&b"/\0/no/such\0/proc/self/exe"[..], &mut output).unwrap();
        let mut rest = &output[..];
        for _ in 0..3 {
            let (attributes, after) = Attributes::decode(rest).unwrap();
            assert!(attributes.extended.iter().all(|(name, _)| Attributes::is_told(name)));
            rest = after;
        }
        assert!(rest.is_empty());
    }
}
