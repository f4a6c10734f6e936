//! A piece of a file, packed and unpacked.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use quicksand_fetch::Digest;
use sha2::{Digest as _, Sha256};

/// As of an export: half as large as uncompressed, and a quarter of the time of the highest level.
const LEVEL: u32 = 3;
/// In such pieces it is looked for zeros, in bytes: a page of a guest, a cluster's part of a disk.
const PIECE: usize = 4096;
const ZEROS: [u8; PIECE] = [0; PIECE];

/// A packed chunk.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

/// Packs that part of a file. `None` where it holds nothing but zeros.
pub(crate) fn pack(file: &File, at: u64, size: u64) -> io::Result<Option<Packed>> {
    let mut raw = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    file.read_exact_at(&mut raw, at)?;
    if is_zero(&raw) {
        return Ok(None);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(LEVEL));
    encoder.write_all(&raw)?;
    let bytes = encoder.finish()?;
    Ok(Some(Packed { digest: Digest::of(&bytes), bytes }))
}

/// A chunk of `size` bytes.
pub(crate) fn unpacked(packed: &[u8], size: u64) -> io::Result<Vec<u8>> {
    let mut raw = Vec::with_capacity(usize::try_from(size).map_err(io::Error::other)?);
    GzDecoder::new(packed).take(size + 1).read_to_end(&mut raw)?;
    if raw.len() as u64 != size {
        let than = if raw.len() as u64 > size { "more" } else { "less" };
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it unpacks to {than} than {size} bytes")));
    }
    Ok(raw)
}

/// Writes a chunk of `size` bytes to its place in a file, whose zeros stay holes.
pub(crate) fn unpack(packed: &[u8], file: &File, at: u64, size: u64) -> io::Result<()> {
    let raw = unpacked(packed, size)?;
    // What lies together is written together.
    let mut start = 0;
    while start < raw.len() {
        let zeros: usize = raw[start..].chunks(PIECE).take_while(|piece| is_zero(piece)).map(<[u8]>::len).sum();
        start += zeros;
        let data: usize = raw[start..].chunks(PIECE).take_while(|piece| !is_zero(piece)).map(<[u8]>::len).sum();
        file.write_all_at(&raw[start..start + data], at + start as u64)?;
        start += data;
    }
    Ok(())
}

/// The SHA-256 of a file, in hexadecimal digits. `read` hears of each piece that was read.
pub(crate) fn sha256(path: &Path, mut read: impl FnMut(u64)) -> io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(Digest::from(hash).hex().to_owned());
        }
        hash.update(&buffer[..count]);
        read(count as u64);
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(PIECE).all(|piece| *piece == ZEROS[..piece.len()])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_chunk_comes_back_with_its_holes() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut content = vec![0; 1 << 20];
        content[5000..9000].fill(7);
        *content.last_mut().unwrap() = 1;
        from.write_all_at(&content, 100).unwrap();
        assert!(pack(&from, 0, 90).unwrap().is_none());
        let packed = pack(&from, 100, content.len() as u64).unwrap().unwrap();
        assert_eq!(packed.digest, Digest::of(&packed.bytes));
        to.set_len(2 << 20).unwrap();
        unpack(&packed.bytes, &to, 8192, content.len() as u64).unwrap();
        let mut back = vec![9; content.len()];
        to.read_exact_at(&mut back, 8192).unwrap();
        assert!(back == content);
        assert!(to.metadata().unwrap().blocks() * 512 < 64 << 10);
    }

    #[test]
    fn one_of_another_size_or_none_is_refused() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all_at(&[1; 5000], 0).unwrap();
        let packed = pack(&from, 0, 5000).unwrap().unwrap().bytes;
        for (size, why) in [(4999, "more"), (5001, "less")] {
            let error = unpack(&packed, &to, 0, size).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        unpack(&packed[..packed.len() / 2], &to, 0, 5000).unwrap_err();
        unpack(b"no gzip", &to, 0, 5000).unwrap_err();
        assert_eq!(to.metadata().unwrap().len(), 0);
    }
}
