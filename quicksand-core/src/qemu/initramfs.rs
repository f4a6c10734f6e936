//! The archive that a guest starts from, in the kernel's `newc` cpio format.
//!
//! The format is that of the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`: for each entry a header of
//! 110 bytes in hexadecimal text, the name, and the content, each padded to four bytes; an entry `TRAILER!!!` ends it.

use std::path::Path;

/// Builds an archive entry by entry.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;

impl Archive {
    /// An archive without entries.
    pub fn new() -> Archive {
        Archive::default()
    }

    /// Adds a directory. Its parent must have been added before.
    pub fn directory(&mut self, path: &Path) -> &mut Archive {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds a file with its permission bits. Its directory must have been added before.
    ///
    /// # Panics
    ///
    /// Where the content has 4 GiB or more, which the format can't say.
    pub fn file(&mut self, path: &Path, mode: u32, content: &[u8]) -> &mut Archive {
        self.entry(path, REGULAR | (mode & 0o7777), (0, 0), content)
    }

    /// Adds `/dev/console`, which the kernel opens for process 1's standard streams.
    pub fn console(&mut self) -> &mut Archive {
        self.directory(Path::new("dev")).entry(Path::new("dev/console"), CHARACTER | 0o600, (5, 1), &[])
    }

    /// The archive's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) -> &mut Archive {
        let name = path.as_os_str().as_encoded_bytes();
        let size = u32::try_from(content.len()).expect("a file of an initramfs has less than 4 GiB");
        self.entries += 1;
        let fields = [
            self.entries,
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time: the same input gives the same archive
            size,
            0, // device that holds it
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0, // no checksum
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    /// GNU cpio reads what this writes. It is installed by `scripts/test`.
    #[test]
    fn cpio_lists_and_unpacks_it() {
        let mut archive = Archive::new();
        archive.console().directory(Path::new("modules"));
        archive.file(Path::new("modules/a.ko"), 0o644, b"12345").file(Path::new("init"), 0o755, &[7; 70_000]);
        let bytes = archive.finish();

        let directory = tempfile::tempdir().unwrap();
        let mut cpio = Command::new("cpio")
            .args(["--extract", "--quiet", "--make-directories", "--no-absolute-filenames", "modules/*", "init"])
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(cpio.wait().unwrap().success());
        assert_eq!(std::fs::read(directory.path().join("modules/a.ko")).unwrap(), b"12345");
        assert_eq!(std::fs::read(directory.path().join("init")).unwrap(), [7; 70_000]);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(directory.path().join("init")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn the_same_entries_give_the_same_bytes() {
        let make = || {
            let mut archive = Archive::new();
            archive.console().file(Path::new("init"), 0o755, b"x");
            archive.finish()
        };
        assert_eq!(make(), make());
        assert_eq!(make().len() % 4, 0);
    }
}
