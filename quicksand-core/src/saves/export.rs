//! Writing a save to one file.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

use super::archive::{Entry, INDEX, Index, LONGEST_PATH, MANIFEST};
use crate::{
    base::{progress::Reporter, random},
    error::archive::ArchiveError,
    image::state::State,
};

/// Half as large as uncompressed, and not much larger than with the highest level, which takes four times as long.
const LEVEL: u32 = 3;

/// A file on its way to its name. Dropping it before removes it.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the renaming there is nothing at this path.
        let _ = fs::remove_file(&self.0);
    }
}

pub(super) fn write(state: &State, file: &Path, reporter: &Reporter) -> Result<(), ArchiveError> {
    // It would be replaced by a file of its name.
    if fs::metadata(file).is_ok_and(|there| !there.is_file()) {
        return Err(failed("replace", file)(io::Error::other("it is no file")));
    }
    let files = files(state);
    if let Some((_, path)) = files.iter().find(|(name, _)| name.len() > LONGEST_PATH) {
        return Err(failed("name in an export", path)(io::ErrorKind::InvalidFilename.into()));
    }
    let size = |(_, path): &(String, PathBuf)| Ok(fs::metadata(path).map_err(failed("look at", path))?.len());
    let total = files.iter().map(size).sum::<Result<u64, ArchiveError>>()?;

    let mut progress = Progress { reporter, stage: "digest", current: 0, total };
    let mut entries = Vec::new();
    for (name, path) in &files {
        let mut hash = Sha256::new();
        let size = progress.copy(File::open(path).map_err(failed("open", path))?, |bytes| {
            hash.update(bytes);
            Ok(())
        });
        let size = size.map_err(failed("read", path))?;
        entries.push(Entry { path: name.clone(), size, sha256: random::hex(&hash.finalize()) });
    }
    let index = serde_json::to_vec_pretty(&Index::new(entries.clone())).map_err(|e| failed("write", file)(e.into()))?;

    let name = random::name().map_err(failed("draw a name for", file))?;
    let unfinished = Unfinished(file.with_file_name(format!(".new-{name}")));
    let target = File::create_new(&unfinished.0).map_err(failed("create", &unfinished.0))?;
    let mut progress = Progress { reporter, stage: "pack", current: 0, total };
    let pack = || -> io::Result<()> {
        let mut archive = tar::Builder::new(GzEncoder::new(io::BufWriter::new(target), Compression::new(LEVEL)));
        archive.append(&header(INDEX, index.len() as u64)?, &index[..])?;
        for ((_, path), entry) in files.iter().zip(&entries) {
            let content = Counted { from: File::open(path)?.take(entry.size), progress: &mut progress };
            archive.append(&header(&entry.path, entry.size)?, content)?;
        }
        let target = archive.into_inner()?.finish()?.into_inner()?;
        target.sync_all()
    };
    pack().map_err(failed("write", file))?;
    fs::rename(&unfinished.0, file).map_err(failed("write", file))
}

/// The files of a save but for its memory, by their names in an export.
pub(super) fn files(state: &State) -> Vec<(String, PathBuf)> {
    let mut files = vec![(MANIFEST.to_owned(), state.manifest_file())];
    files.extend(state.image().named_files());
    files.extend(state.named_layers());
    files
}

fn header(path: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    Ok(header)
}

struct Progress<'a> {
    reporter: &'a Reporter,
    stage: &'static str,
    current: u64,
    total: u64,
}

impl Progress<'_> {
    fn add(&mut self, count: usize) {
        self.current += count as u64;
        self.reporter.report(self.stage, self.current, self.total);
    }

    /// Hands on all that can be read, piece by piece. Returns how much it was.
    fn copy(&mut self, mut from: impl Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
        let (mut buffer, mut size) = (vec![0; 1 << 20], 0);
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(size);
            }
            to(&buffer[..count])?;
            size += count as u64;
            self.add(count);
        }
    }
}

/// Tells of what is read.
struct Counted<'a, 'b, R> {
    from: R,
    progress: &'a mut Progress<'b>,
}

impl<R: Read> Read for Counted<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.progress.add(count);
        Ok(count)
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArchiveError + use<> {
    let path = path.to_owned();
    move |source| ArchiveError::Io { what, path, source }
}
