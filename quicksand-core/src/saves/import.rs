//! Making a save of a file that somebody else wrote.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::Path,
};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::archive::{Entry, INDEX, Index, LARGEST_TEXT, MANIFEST};
use crate::{
    base::{
        cache::{CacheError, Unfinished},
        plain_file,
        progress::Reporter,
        random,
        size::Size,
    },
    error::{Error, Result, archive::ArchiveError},
    image::{
        Image,
        state::{Manifest, State},
    },
    qemu::{
        machine::{LEAST_MEMORY, MOST_CPUS},
        qcow2,
    },
};

/// Free space that is left when all is unpacked.
const SPARE: u64 = 64 << 20;

pub(super) fn read(file: &Path, directory: &Path, reporter: &Reporter) -> Result<()> {
    let source =
        plain_file::open(file).map_err(|source| ArchiveError::Io { what: "open", path: file.to_owned(), source })?;
    let mut archive = tar::Archive::new(GzDecoder::new(io::BufReader::with_capacity(256 * 1024, source)));
    let not_an_export = |why: String| ArchiveError::NotAnExport { file: file.to_owned(), why };
    // Raw: no entry says anything of another one.
    let mut entries = archive.entries().map_err(|e| not_an_export(e.to_string()))?.raw(true);

    let mut first = match entries.next() {
        Some(Ok(first)) if *first.path_bytes() == *INDEX.as_bytes() && first.size() <= LARGEST_TEXT => first,
        Some(Err(error)) => return Err(not_an_export(error.to_string()).into()),
        _ => return Err(not_an_export(format!("it does not begin with {INDEX}")).into()),
    };
    let mut text = Vec::new();
    first.read_to_end(&mut text).map_err(|source| broken(file, INDEX, source))?;
    let index = Index::parse(file, &text)?;
    let total = index.total();
    check_space(directory, total)?;

    let unfinished = Unfinished::beside(directory)?;
    let mut done = 0;
    reporter.report("unpack", done, total);
    for wanted in &index.files {
        let refused = |why: String| refuse(file, &wanted.path, why);
        let mut entry = match entries.next() {
            Some(entry) => entry.map_err(|source| broken(file, &wanted.path, source))?,
            None => return Err(broken(file, &wanted.path, io::ErrorKind::UnexpectedEof.into()).into()),
        };
        if !entry.header().entry_type().is_file() {
            return Err(refused(format!("it is no file but of the kind {:?}", entry.header().entry_type())).into());
        }
        if *entry.path_bytes() != *wanted.path.as_bytes() || entry.size() != wanted.size {
            return Err(refused("another one comes in its place".to_owned()).into());
        }
        let path = unfinished.path().join(&wanted.path);
        let parent = path.parent().unwrap_or(unfinished.path());
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let mut target = File::create_new(&path).map_err(Error::io("create", &path))?;
        let (mut buffer, mut hash, mut size) = (vec![0; 1 << 20], Sha256::new(), 0u64);
        loop {
            let count = entry.read(&mut buffer).map_err(|source| broken(file, &wanted.path, source))?;
            if count == 0 {
                break;
            }
            size += count as u64;
            if size > wanted.size {
                return Err(refused("it is larger than announced".to_owned()).into());
            }
            hash.update(&buffer[..count]);
            // What was a hole is one again.
            let written = match buffer[..count].iter().all(|byte| *byte == 0) {
                true => target.seek_relative(count as i64),
                false => target.write_all(&buffer[..count]),
            };
            written.map_err(Error::io("write", &path))?;
            done += count as u64;
            reporter.report("unpack", done, total);
        }
        target.set_len(size).map_err(Error::io("size", &path))?;
        if size != wanted.size {
            return Err(broken(file, &wanted.path, io::ErrorKind::UnexpectedEof.into()).into());
        }
        if random::hex(&hash.finalize()) != wanted.sha256 {
            return Err(ArchiveError::Digest { file: file.to_owned(), entry: wanted.path.clone() }.into());
        }
    }
    match entries.next() {
        None => {}
        Some(Err(source)) => return Err(broken(file, "the last", source).into()),
        Some(Ok(_)) => return Err(refuse(file, "after the last", "the index names no more".to_owned()).into()),
    }
    check_content(file, unfinished.path(), &index.files, As::Stranger)?;
    Ok(unfinished.finish()?)
}

/// Who a save is after it came from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// One of this host alone: what it says that it is, others may have said as well, so it is named by what it holds.
    Stranger,
    /// The same that it was, so that what is made from it is that, too; with its memory or without.
    Itself {
        /// Whether its memory came as well.
        memory: bool,
    },
}

/// Sees to it that what came is a save, all files of which are what `entries` say, and gives it its identity.
pub(super) fn check_content(file: &Path, directory: &Path, entries: &[Entry], who: As) -> Result<()> {
    let refused = |entry: &str, why: String| refuse(file, entry, why);
    let path = directory.join(MANIFEST);
    let text = fs::read(&path).map_err(Error::io("read", &path))?;
    let manifest =
        Manifest::parse(&path, &text).map_err(|source| ArchiveError::Save { file: file.to_owned(), source })?;
    let manifest = match who {
        As::Stranger => {
            let mut id = identity(&mut entries.iter());
            id.truncate(32);
            manifest.imported(id)
        }
        As::Itself { memory: false } => manifest.without_memory(),
        As::Itself { memory: true } => manifest,
    };
    let machine = &manifest.machine;
    let whole = machine.memory.is_multiple_of(Size::from_mib(1).bytes()) && machine.memory >= LEAST_MEMORY.bytes();
    if !whole || !(1..=MOST_CPUS).contains(&machine.cpus) {
        return Err(refused(MANIFEST, "there is no such machine".to_owned()).into());
    }
    let layers = entries.iter().filter(|entry| entry.path.starts_with("layers/")).count();
    if layers != manifest.layers {
        return Err(refused(MANIFEST, format!("it has {} layers, of which {layers} are there", manifest.layers)).into());
    }
    manifest.write(&path).map_err(|source| ArchiveError::Save { file: file.to_owned(), source })?;
    check_image(file, &directory.join("image"), entries, who)?;

    let state = State::read(directory).map_err(|source| ArchiveError::Save { file: file.to_owned(), source })?;
    let state = state.ok_or_else(|| refused(MANIFEST, "it is missing".to_owned()))?;
    if let (true, Some(fault)) = (state.manifest.has_memory, state.memory_fault()) {
        return Err(refused(MANIFEST, fault).into());
    }
    check_disks(file, &state)
}

/// Sees to it that the image of a save, in `directory`, is one.
pub(crate) fn check_image(file: &Path, directory: &Path, entries: &[Entry], who: As) -> Result<(), ArchiveError> {
    let images = || entries.iter().filter(|entry| entry.path.starts_with("image/"));
    let named = match who {
        As::Stranger => Image::adopt(directory, identity(&mut images())),
        As::Itself { .. } => Image::described(directory, |path| {
            let path = format!("image/{}", path.display());
            images().find(|entry| entry.path == path).map(|entry| entry.sha256.clone())
        }),
    };
    let named = named.map_err(|why| refuse(file, &format!("image/{}", Image::FILE), why))?;
    let mut known: Vec<String> = named.iter().map(|path| format!("image/{}", path.display())).collect();
    known.push(format!("image/{}", Image::FILE));
    match images().find(|entry| !known.contains(&entry.path)) {
        Some(stray) => Err(refuse(file, &stray.path, "its image does not name it".to_owned())),
        None => Ok(()),
    }
}

/// Sees to it that the disks of a save fit one another, and that QEMU may be given them.
pub(crate) fn check_disks(file: &Path, state: &State) -> Result<()> {
    let refused = |entry: &str, why: String| refuse(file, entry, why);
    let mut size = 0;
    for path in state.disk() {
        let header = qcow2::check(&path).map_err(|source| ArchiveError::Disk { file: file.to_owned(), source })?;
        let smaller = header.disk_size < size;
        size = header.disk_size;
        if smaller || size > state.disk_size() || (path == state.image().disk() && size != state.image().disk_size()) {
            let entry = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(refused(&entry, format!("a disk of {size} bytes does not belong there")).into());
        }
    }
    if size != state.disk_size() {
        return Err(refused(MANIFEST, format!("its disk has {size} bytes, not {}", state.disk_size())).into());
    }
    Ok(())
}

/// A digest of files and their names.
fn identity(of: &mut dyn Iterator<Item = &Entry>) -> String {
    let mut hash = Sha256::new();
    of.for_each(|entry| hash.update(format!("{} {} {}\n", entry.path, entry.size, entry.sha256)));
    random::hex(&hash.finalize())
}

pub(crate) fn check_space(directory: &Path, needed: u64) -> Result<()> {
    let parent = directory.parent().unwrap_or(directory);
    let stat = nix::sys::statvfs::statvfs(parent).map_err(|e| CacheError::io("look at", parent)(e.into()))?;
    let free = stat.blocks_available() * stat.fragment_size();
    if free < needed.saturating_add(SPARE) {
        let (needed, free) = (Size::from_bytes(needed.saturating_add(SPARE)), Size::from_bytes(free));
        return Err(Error::NoSpace { path: parent.to_owned(), needed, free });
    }
    Ok(())
}

fn broken(file: &Path, entry: &str, source: io::Error) -> ArchiveError {
    ArchiveError::Broken { file: file.to_owned(), entry: entry.to_owned(), source }
}

pub(crate) fn refuse(file: &Path, entry: &str, why: String) -> ArchiveError {
    ArchiveError::Refused { file: file.to_owned(), entry: entry.to_owned(), why }
}
