//! A part of a file, to be read independently of who else reads the file: a tar archive that may lie within another.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    sync::Arc,
};

/// A part of a file, with a position of its own.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    file: Arc<File>,
    start: u64,
    len: u64,
    position: u64,
}

impl Section {
    /// The whole file.
    pub(crate) fn whole(file: File) -> io::Result<Section> {
        let len = file.metadata()?.len();
        Ok(Section { file: Arc::new(file), start: 0, len, position: 0 })
    }

    /// A part of this part.
    pub(crate) fn part(&self, offset: u64, len: u64) -> io::Result<Section> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Section { file: Arc::clone(&self.file), start: self.start + offset, len, position: 0 })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.position);
        let len = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..len], self.start + self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.len.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_part_is_all_there_is() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let whole = Section::whole(file).unwrap();
        let mut part = whole.part(2, 6).unwrap().part(1, 4).unwrap();
        let mut text = String::new();
        part.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), part.len()), ("3456", 4));
        part.seek(SeekFrom::End(-1)).unwrap();
        text.clear();
        part.read_to_string(&mut text).unwrap();
        assert_eq!(text, "6");
        part.seek(SeekFrom::Start(100)).unwrap();
        assert_eq!(part.read(&mut [0; 3]).unwrap(), 0);
        assert!(part.seek(SeekFrom::Current(-101)).is_err());
        assert!(whole.part(5, 6).is_err() && whole.part(u64::MAX, 1).is_err());
    }
}
