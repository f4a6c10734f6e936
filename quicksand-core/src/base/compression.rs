//! Compressed files, told by their first bytes rather than by their names.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

/// The most memory that unpacking xz may take, in KiB: `xz -9` asks for 65 MiB.
const XZ_MEMORY: u32 = 256 << 10;
/// The most that unpacking zstd may look back, in bytes: what `zstd --long` asks for.
const ZSTD_WINDOW: u64 = 128 << 20;

/// What a file holds, unpacked where it is compressed by gzip, xz or zstd. Reading more than `limit` bytes is an error: a few
/// bytes may unpack to a whole disk.
pub(crate) fn unpacked<'a>(from: impl Read + 'a, limit: u64) -> io::Result<Box<dyn Read + 'a>> {
    let mut from = BufReader::with_capacity(256 << 10, from);
    let first = from.fill_buf()?;
    let unpacked: Box<dyn Read + 'a> = if first.starts_with(&[0x1f, 0x8b]) {
        Box::new(MultiGzDecoder::new(from))
    } else if first.starts_with(b"\xfd7zXZ\0") {
        Box::new(XzReader::new_mem_limit(from, true, XZ_MEMORY))
    } else if is_zstd(first) {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW);
        Box::new(Frames { from, decoder, within: false })
    } else {
        Box::new(from)
    };
    Ok(Box::new(Limited { from: unpacked, left: limit, limit }))
}

/// A frame of data, or one that readers are to skip.
fn is_zstd(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || bytes.get(..4).is_some_and(|magic| magic[0] & 0xf0 == 0x50 && magic[1..] == [0x2a, 0x4d, 0x18])
}

/// All frames of a zstd file, one after the other.
struct Frames<R> {
    from: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            while self.within && self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let step = self.decoder.decode_blocks(&mut self.from, BlockDecodingStrategy::UptoBlocks(1));
                step.map_err(invalid)?;
            }
            if self.within && self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            self.within = false;
            if self.from.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match self.decoder.init(&mut self.from) {
                Ok(()) => self.within = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut (&mut self.from).take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(invalid(error)),
            }
        }
    }
}

fn invalid(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

struct Limited<R> {
    from: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("it unpacks to more than {} bytes", self.limit))
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    /// The distribution's own programs make what this reads.
    fn packed(program: &str, arguments: &[&str], content: &[u8]) -> Vec<u8> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("start {program}: {e}"));
        let mut input = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || input.write_all(content).unwrap());
            child.wait_with_output().unwrap()
        });
        assert!(output.status.success());
        output.stdout
    }

    fn content() -> Vec<u8> {
        (0..3_000_000u32).map(|number| (number.wrapping_mul(number) >> 13) as u8).collect()
    }

    fn read(bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        unpacked(bytes, limit)?.read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn each_kind_is_unpacked_in_one_piece_and_in_several() {
        let content = content();
        let (one, two) = content.split_at(1_234_567);
        for (program, arguments) in [("gzip", &["-c"]), ("xz", &["-c"]), ("zstd", &["-qc"]), ("cat", &["-u"])] {
            assert_eq!(read(&packed(program, arguments, &content), 1 << 30).unwrap(), content, "{program}");
            let mut pieces = packed(program, arguments, one);
            if program == "zstd" {
                pieces.extend_from_slice(&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, b'x', b'y', b'z']);
            }
            pieces.extend(packed(program, arguments, two));
            assert_eq!(read(&pieces, 1 << 30).unwrap(), content, "{program}");
        }
        assert!(read(b"", 1).unwrap().is_empty());
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let zeros = vec![0; 20 << 20];
        for (program, arguments) in [("gzip", &["-c"]), ("xz", &["-c"]), ("zstd", &["-qc"])] {
            let error = read(&packed(program, arguments, &zeros), 1 << 20).unwrap_err();
            assert!(error.to_string().contains("more than 1048576 bytes"), "{program}: {error}");
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let content = content();
        for (program, arguments) in [("gzip", &["-c"]), ("xz", &["-c"]), ("zstd", &["-qc"])] {
            let whole = packed(program, arguments, &content);
            assert!(read(&whole[..whole.len() / 2], 1 << 30).is_err(), "{program}");
        }
    }
}
