//! A running machine's memory, taken out of its process.
//!
//! A machine's memory is a private map of a file that nobody writes. What the guest changed since lies in private pages of the
//! QEMU process, which the kernel tells apart in `/proc/PID/pagemap` (see `Documentation/admin-guide/mm/pagemap.rst`) and shows
//! in `/proc/PID/mem` to the process's parent and owner. So freezing costs what was changed, not what there is.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::unistd::{SysconfVar, sysconf};

use crate::base::plain_file::next_extent;

/// Largest piece that is copied at once, in bytes.
const PIECE: usize = 1 << 20;
/// What an untouched page holds.
const ZEROS: [u8; 4096] = [0; 4096];

/// Why memory could not be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A file of the process or of ours could not be read or written.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done to the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// The process does not map the memory file.
    #[error("find {} among the maps of process {pid}", file.display())]
    NotMapped {
        /// The process.
        pid: u32,
        /// The memory file.
        file: PathBuf,
    },
    /// The process's maps are not as the kernel writes them.
    #[error("read a line of the maps of process {pid}: {line:?}")]
    BadMaps {
        /// The process.
        pid: u32,
        /// The line.
        line: String,
    },
}

/// Copies a memory file to a new one, leaving holes where it has holes. Returns the bytes of data copied.
///
/// # Errors
///
/// [`MemoryError::Io`]; the new file is then incomplete and the caller's to remove.
pub fn copy_sparse(from: &Path, to: &Path) -> Result<u64, MemoryError> {
    let source = File::open(from).map_err(io_error("open", from))?;
    let target = File::create_new(to).map_err(io_error("create", to))?;
    let len = source.metadata().map_err(io_error("look at", from))?.len();
    target.set_len(len).map_err(io_error("size", to))?;
    let (mut buffer, mut copied, mut at) = (vec![0; PIECE], 0, 0);
    while let Some((start, end)) = next_extent(&source, at, len).map_err(io_error("look for data in", from))? {
        at = start;
        while at < end {
            let piece = &mut buffer[..PIECE.min((end - at) as usize)];
            source.read_exact_at(piece, at).map_err(io_error("read", from))?;
            target.write_all_at(piece, at).map_err(io_error("write", to))?;
            at += piece.len() as u64;
            copied += piece.len() as u64;
        }
    }
    Ok(copied)
}

/// Writes the pages of `file`'s private map in process `pid` that differ from the file into `target`, at their place in the
/// file. Returns their bytes. The guest must be stopped.
///
/// # Errors
///
/// [`MemoryError`]; `target` then holds a mixture and is the caller's to remove.
pub fn copy_private_pages(pid: u32, file: &Path, target: &File) -> Result<u64, MemoryError> {
    let maps = maps_of(pid, file)?;
    let mut copied = 0;
    for map in maps {
        each_private_piece(pid, Region { start: map.start, len: map.end - map.start }, |piece, at| {
            copied += piece.len() as u64;
            target.write_all_at(piece, map.offset + at).map_err(io_error("write pages of", file))
        })?;
    }
    Ok(copied)
}

/// A stretch of a process's own memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Its address in the process: a whole page's.
    pub start: u64,
    /// Its length in bytes: whole pages.
    pub len: u64,
}

/// Copies a region of process `pid` to a new file, at its beginning, with holes where there is nothing but zeros. Returns the bytes
/// copied.
///
/// # Errors
///
/// [`MemoryError::Io`]; the new file is then incomplete and the caller's to remove.
pub fn copy_region(pid: u32, region: Region, to: &Path) -> Result<u64, MemoryError> {
    let target = File::create_new(to).map_err(io_error("create", to))?;
    target.set_len(region.len).map_err(io_error("size", to))?;
    let mut copied = 0;
    each_private_piece(pid, region, |piece, at| {
        // A large page is there as a whole once a byte of it was touched.
        for (number, page) in piece.chunks(ZEROS.len()).enumerate() {
            if *page != ZEROS[..page.len()] {
                target.write_all_at(page, at + (number * ZEROS.len()) as u64).map_err(io_error("write", to))?;
                copied += page.len() as u64;
            }
        }
        Ok(())
    })?;
    Ok(copied)
}

/// Writes what [`copy_region`] put into a file back into a region of process `pid` that holds nothing but zeros. Returns the bytes
/// written.
///
/// # Errors
///
/// [`MemoryError::Io`]
pub fn fill_region(pid: u32, region: Region, from: &Path) -> Result<u64, MemoryError> {
    let source = File::open(from).map_err(io_error("open", from))?;
    let len = source.metadata().map_err(io_error("look at", from))?.len().min(region.len);
    let (memory_path, memory) = memory_of(pid, true)?;
    let (mut buffer, mut written, mut at) = (vec![0; PIECE], 0, 0);
    while let Some((start, end)) = next_extent(&source, at, len).map_err(io_error("look for data in", from))? {
        at = start;
        while at < end.min(len) {
            let piece = &mut buffer[..PIECE.min((end.min(len) - at) as usize)];
            source.read_exact_at(piece, at).map_err(io_error("read", from))?;
            memory.write_all_at(piece, region.start + at).map_err(io_error("write", &memory_path))?;
            at += piece.len() as u64;
            written += piece.len() as u64;
        }
    }
    Ok(written)
}

fn memory_of(pid: u32, write: bool) -> Result<(PathBuf, File), MemoryError> {
    let path = PathBuf::from(format!("/proc/{pid}/mem"));
    let file = File::options().read(true).write(write).open(&path).map_err(io_error("open", &path))?;
    Ok((path, file))
}

/// Reads the pages of a region that the process has for itself, piece by piece, each with its offset in the region.
fn each_private_piece(
    pid: u32,
    region: Region,
    mut take: impl FnMut(&[u8], u64) -> Result<(), MemoryError>,
) -> Result<(), MemoryError> {
    let (pagemap_path, page) = (PathBuf::from(format!("/proc/{pid}/pagemap")), page_size());
    let (memory_path, memory) = memory_of(pid, false)?;
    let mut words = vec![0; (region.len / page * 8) as usize];
    let pagemap = File::open(&pagemap_path).map_err(io_error("open", &pagemap_path))?;
    pagemap.read_exact_at(&mut words, region.start / page * 8).map_err(io_error("read", &pagemap_path))?;
    let mut buffer = vec![0; PIECE];
    for (first, count) in runs(words.as_chunks::<8>().0.iter().map(|word| is_private(u64::from_le_bytes(*word)))) {
        let (mut at, end) = (first as u64 * page, (first + count) as u64 * page);
        while at < end {
            let piece = &mut buffer[..PIECE.min((end - at) as usize)];
            memory.read_exact_at(piece, region.start + at).map_err(io_error("read", &memory_path))?;
            take(piece, at)?;
            at += piece.len() as u64;
        }
    }
    Ok(())
}

/// Whether a word of pagemap is a page that the process has for itself: present or swapped out, and no page of a file.
fn is_private(word: u64) -> bool {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const OF_FILE: u64 = 1 << 61;
    word & (PRESENT | SWAPPED) != 0 && word & OF_FILE == 0
}

/// Runs of `true`, as first index and count.
fn runs(flags: impl Iterator<Item = bool>) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, _) in flags.enumerate().filter(|(_, flag)| *flag) {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == index => *count += 1,
            _ => runs.push((index, 1)),
        }
    }
    runs
}

#[derive(Debug, PartialEq, Eq)]
struct Map {
    start: u64,
    end: u64,
    offset: u64,
}

/// The process's maps of that file. Found by inode: a path may hold characters that the kernel escapes.
fn maps_of(pid: u32, file: &Path) -> Result<Vec<Map>, MemoryError> {
    let path = PathBuf::from(format!("/proc/{pid}/maps"));
    let inode = fs::metadata(file).map_err(io_error("look at", file))?.ino();
    let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    let mut maps = Vec::new();
    for line in text.lines() {
        let (map, of) = parse_map(line).ok_or_else(|| MemoryError::BadMaps { pid, line: line.to_owned() })?;
        if of == inode {
            maps.push(map);
        }
    }
    if maps.is_empty() {
        return Err(MemoryError::NotMapped { pid, file: file.to_owned() });
    }
    Ok(maps)
}

/// `start-end perms offset device inode path`
fn parse_map(line: &str) -> Option<(Map, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let offset = fields.nth(1)?;
    let inode = fields.nth(1)?.parse().ok()?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some((Map { start: hex(start)?, end: hex(end)?, offset: hex(offset)? }, inode))
}

/// The size of the host's pages in bytes.
pub(crate) fn page_size() -> u64 {
    sysconf(SysconfVar::PAGE_SIZE).ok().flatten().map_or(4096, |size| size as u64)
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> MemoryError + use<'a> {
    move |source| MemoryError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        process::{Command, Stdio},
    };

    #[test]
    fn runs_are_joined() {
        assert_eq!(runs([true, true, false, true].into_iter()), [(0, 2), (3, 1)]);
        assert_eq!(runs([false, false].into_iter()), []);
    }

    #[test]
    fn maps_are_read() {
        let line = "7f00-7f10 rw-p 00001000 fe:00 1234                       /a b";
        assert_eq!(parse_map(line), Some((Map { start: 0x7f00, end: 0x7f10, offset: 0x1000 }, 1234)));
        assert_eq!(parse_map("7f00-7f10 rw-p 00001000"), None);
        assert_eq!(parse_map(""), None);
    }

    #[test]
    fn a_sparse_copy_keeps_data_and_holes() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"here", 3 << 20).unwrap();
        file.write_all_at(b"end", (64 << 20) - 3).unwrap();
        let copied = copy_sparse(&from, &to).unwrap();
        assert!(copied < 1 << 20, "{copied} bytes copied of a file with two pages");
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
        assert!(fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
    }

    /// Memory of one process is carried into another, as from a frozen machine into its clone.
    #[test]
    fn a_region_is_carried_from_one_process_to_another() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("region");
        let script = "import ctypes,mmap,sys\n\
                      m=mmap.mmap(-1,1<<20,flags=mmap.MAP_PRIVATE|mmap.MAP_ANONYMOUS)\n\
                      if sys.argv[1]=='from': m[8192:8196]=b'mine'; m[900000]=33; m[100000]=0\n\
                      print(ctypes.addressof(ctypes.c_char.from_buffer(m)),flush=True); sys.stdin.readline()\n\
                      print(m[8192:8196].decode(),m[900000],sum(m[:]),flush=True)";
        let process = |role: &str| {
            let mut child = Command::new("python3")
                .args(["-c", script, role])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            std::io::BufRead::read_line(&mut output, &mut line).unwrap();
            (child, output, Region { start: line.trim().parse().unwrap(), len: 1 << 20 })
        };
        let (mut source, _output, region) = process("from");
        let copied = copy_region(source.id(), region, &file).unwrap();
        let (mut target, mut output, region) = process("to");
        let written = fill_region(target.id(), region, &file).unwrap();
        let (mut said, mut keys) = (String::new(), target.stdin.take().unwrap());
        std::io::Write::write_all(&mut keys, b"\n").unwrap();
        std::io::BufRead::read_line(&mut output, &mut said).unwrap();
        drop(source.stdin.take());
        source.wait().unwrap();
        target.wait().unwrap();
        assert_eq!((copied, said.as_str()), (2 * page_size(), "mine 33 458\n"));
        assert!((copied..1 << 20).contains(&written), "{written}");
    }

    /// Another process changes pages of its private map; they are found, and no others.
    #[test]
    fn private_pages_of_another_process_are_copied() {
        let directory = tempfile::tempdir().unwrap();
        let (base, copy) = (directory.path().join("base"), directory.path().join("copy"));
        fs::write(&base, vec![b'b'; 1 << 20]).unwrap();
        fs::write(&copy, vec![b'b'; 1 << 20]).unwrap();
        let script = "import mmap,sys\n\
                      f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0,flags=mmap.MAP_PRIVATE)\n\
                      m[8192:8196]=b'mine'; m[500000]=33; s=m[100000]\n\
                      print('ready',flush=True); sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(&base)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        let target = File::options().write(true).open(&copy).unwrap();
        let copied = copy_private_pages(child.id(), &base, &target);
        let missing = copy_private_pages(child.id(), &directory.path().join("copy"), &target);
        drop(child.stdin.take());
        child.wait().unwrap();

        assert_eq!(copied.unwrap(), 2 * page_size());
        let copy = fs::read(&copy).unwrap();
        assert_eq!((&copy[8192..8196], copy[500_000], copy[100_000]), (&b"mine"[..], 33, b'b'));
        assert!(matches!(missing, Err(MemoryError::NotMapped { .. })));
        assert_eq!(fs::read(&base).unwrap(), vec![b'b'; 1 << 20], "the base is never written");
    }
}
