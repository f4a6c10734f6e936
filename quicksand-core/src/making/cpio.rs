//! Files out of somebody else's initramfs: archives in the `newc` format one after the other, each of which may be compressed.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use crate::base::compression::unpacked;

const HEADER_LEN: usize = 110;
/// The longest path that Linux has.
const LONGEST_PATH: usize = 4096;
/// A compressed archive may follow uncompressed ones, but not be within another compressed one.
const DEEPEST: usize = 2;

/// The content of all files whose path `wanted` takes. All that is unpacked together has at the most `limit` bytes.
pub(crate) fn files(bytes: &[u8], limit: u64, wanted: impl Fn(&str) -> bool) -> io::Result<HashMap<String, Vec<u8>>> {
    let mut all = HashMap::new();
    read(bytes, limit, &wanted, &mut all, 0)?;
    Ok(all)
}

fn read(
    mut bytes: &[u8],
    limit: u64,
    wanted: &impl Fn(&str) -> bool,
    all: &mut HashMap<String, Vec<u8>>,
    depth: usize,
) -> io::Result<()> {
    loop {
        // Between archives there are zeros, as many as one likes.
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes = &bytes[zeros..];
        if bytes.is_empty() {
            return Ok(());
        }
        if !bytes.starts_with(b"07070") {
            if depth == DEEPEST {
                return Err(invalid("it holds something that is no archive"));
            }
            let mut content = Vec::new();
            unpacked(bytes, limit)?.read_to_end(&mut content)?;
            if content.len() == bytes.len() {
                return Err(invalid("it holds something that is no archive"));
            }
            return read(&content, limit, wanted, all, depth + 1);
        }
        let header = bytes.get(..HEADER_LEN).ok_or_else(|| invalid("it ends within an archive"))?;
        let field = |number: usize| {
            let text = std::str::from_utf8(&header[6 + 8 * number..14 + 8 * number]).ok();
            text.and_then(|text| usize::from_str_radix(text, 16).ok()).ok_or_else(|| invalid("a header is no header"))
        };
        let (mode, size, name_len) = (field(1)?, field(6)?, field(11)?);
        if name_len == 0 || name_len > LONGEST_PATH {
            return Err(invalid("a path in it is too long"));
        }
        let content_at = (HEADER_LEN + name_len).next_multiple_of(4);
        let name = bytes.get(HEADER_LEN..HEADER_LEN + name_len - 1);
        let content = bytes.get(content_at..content_at + size);
        let (Some(name), Some(content)) = (name, content) else { return Err(invalid("it ends within an archive")) };
        let name = String::from_utf8_lossy(name);
        let name = name.trim_start_matches("./").trim_start_matches('/');
        if mode & 0o170_000 == 0o100_000 && wanted(name) {
            all.insert(name.to_owned(), content.to_vec());
        }
        bytes = bytes.get((content_at + size).next_multiple_of(4)..).unwrap_or_default();
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::initramfs::Archive;
    use std::{io::Write, path::Path};

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Archive::new();
        for (path, content) in files {
            archive.file(Path::new(path), 0o644, content);
        }
        archive.finish()
    }

    #[test]
    fn plain_and_compressed_archives_follow_each_other() {
        let mut bytes = archive(&[("kernel/x86/microcode/x.bin", b"m")]);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let main =
            archive(&[("lib/modules/6.1/modules.dep", b"a.ko:"), ("lib/modules/6.1/a.ko", b"abc"), ("init", b"i")]);
        packed.write_all(&main).unwrap();
        bytes.extend(packed.finish().unwrap());
        let found = files(&bytes, 1 << 20, |path| path.contains("lib/modules/")).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found["lib/modules/6.1/a.ko"], b"abc");
    }

    #[test]
    fn garbage_is_an_error() {
        let whole = archive(&[("a", b"content")]);
        for bytes in [&whole[..50], &whole[..115], b"garbage", b"070701zzzzzzzz"] {
            files(bytes, 1 << 20, |_| true).unwrap_err();
        }
        assert!(files(b"", 1, |_| true).unwrap().is_empty());
    }
}
