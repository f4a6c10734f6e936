//! Reads the entries of a tar archive that anybody may have made: nothing is taken into memory without a bound.
//!
//! The headers are those of the crate `tar`. Its own iterator is not used, since it reads an extension whole however large it
//! is, and takes a line feed in an extended attribute's value for the value's end.

use std::io::{self, BufRead, BufReader, Read};

use super::{section::Section, why};

const BLOCK: u64 = 512;
/// The most that the extensions of one entry (long names, extended attributes) may take.
const MOST_EXTENSION: u64 = 1 << 20;
/// The most extensions that one entry may have.
const MOST_EXTENSIONS: usize = 16;

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As the archive has it.
    pub(crate) path: Vec<u8>,
    pub(crate) meta: Meta,
    pub(crate) kind: Kind,
}

/// What every kind of file has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds since 1970.
    pub(crate) mtime: u64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File(Content),
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Directory,
    Fifo,
    /// A character or block device.
    Device,
}

/// Where the archive holds a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) offset: u64,
    /// What it takes in the archive.
    pub(crate) len: u64,
    pub(crate) sparse: Option<Sparse>,
}

/// How a content with holes is to be read. It is handed on as it came: GNU tar unpacks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sparse {
    /// The header block, whose table of parts may go on in the blocks at the content's offset; and the length of the parts.
    Gnu(Box<[u8; 512]>, u64),
    /// The records `GNU.sparse.*` but the name.
    Pax(Vec<(Vec<u8>, Vec<u8>)>),
}

/// Goes through an archive from its start.
#[derive(Debug)]
pub(crate) struct Entries {
    archive: BufReader<Section>,
    len: u64,
    at: u64,
}

/// What extensions say of the entry that they precede.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entries {
    pub(crate) fn new(archive: Section) -> Entries {
        let len = archive.len();
        Entries { archive: BufReader::with_capacity(64 * 1024, archive), len, at: 0 }
    }

    /// The next entry. An archive may end without the blocks that mark its end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        for _ in 0..=MOST_EXTENSIONS {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size()?;
            let kind = header.entry_type();
            if kind.is_gnu_longname() {
                extensions.path = Some(until_nul(self.extension(size)?));
            } else if kind.is_gnu_longlink() {
                extensions.link = Some(until_nul(self.extension(size)?));
            } else if kind.is_pax_local_extensions() {
                let records = self.extension(size)?;
                extensions.read(&records)?;
            } else if kind.is_pax_global_extensions() {
                // Comments, as git writes them. What they might say of owners and times, no maker of images says there.
                self.extension(size)?;
            } else {
                return self.entry(header, extensions).map(Some);
            }
        }
        Err(why("has too many extensions before an entry"))
    }

    fn entry(&mut self, header: tar::Header, extensions: Extensions) -> io::Result<Entry> {
        use tar::EntryType;
        let path = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let meta = Meta {
            mode: blank_is_zero(header.mode(), &header.as_old().mode)? & 0o7777,
            uid: extensions.uid.map_or_else(|| blank_is_zero(header.uid(), &header.as_old().uid), Ok)?,
            gid: extensions.gid.map_or_else(|| blank_is_zero(header.gid(), &header.as_old().gid), Ok)?,
            // A time before 1970 is no reason to refuse an image.
            mtime: extensions.mtime.unwrap_or_else(|| header.mtime().unwrap_or(0)),
            xattrs: extensions.xattrs,
        };
        let link = || extensions.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
        let link = || link().filter(|name| !name.is_empty()).ok_or_else(|| why("has a link to nowhere"));
        let size = extensions.size.map_or_else(|| header.entry_size(), Ok)?;
        let kind = match header.entry_type() {
            // Very old archives have directories as files whose names end so.
            EntryType::Regular | EntryType::Continuous if size == 0 && path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => {
                let sparse = Some(extensions.sparse).filter(|records| !records.is_empty()).map(Sparse::Pax);
                Kind::File(self.content(size, sparse)?)
            }
            EntryType::GNUSparse => Kind::File(self.sparse_content(&header, size)?),
            EntryType::Link => Kind::HardLink(link()?),
            EntryType::Symlink => Kind::Symlink(link()?),
            EntryType::Directory => Kind::Directory,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => Kind::Device,
            other => return Err(why(format!("has an entry of the unknown type {:?}", char::from(other.as_byte())))),
        };
        // Links of some makers have a size: that of their target, of which nothing follows.
        if matches!(kind, Kind::Directory) && size > 0 {
            self.skip(size)?;
        }
        Ok(Entry { path, meta, kind })
    }

    /// The block of the next header; `None` at the end.
    fn header(&mut self) -> io::Result<Option<tar::Header>> {
        if self.archive.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut header = tar::Header::new_old();
        self.block(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let blanks = 8 * u32::from(b' ');
        let sum = bytes[..148].iter().chain(&bytes[156..]).fold(blanks, |sum, byte| sum + u32::from(*byte));
        if header.cksum().ok() != Some(sum) {
            return Err(why("is no tar archive, or a damaged one: a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn block(&mut self, block: &mut [u8; 512]) -> io::Result<()> {
        self.archive.read_exact(block).map_err(ended)?;
        self.at += BLOCK;
        Ok(())
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MOST_EXTENSION {
            return Err(why(format!("has an extension of {size} bytes, more than {MOST_EXTENSION}")));
        }
        let mut bytes = vec![0; size as usize];
        self.archive.read_exact(&mut bytes).map_err(ended)?;
        self.at += size;
        self.skip_to_block()?;
        Ok(bytes)
    }

    fn content(&mut self, len: u64, sparse: Option<Sparse>) -> io::Result<Content> {
        let offset = self.at;
        self.skip(len)?;
        Ok(Content { offset, len, sparse })
    }

    fn sparse_content(&mut self, header: &tar::Header, parts: u64) -> io::Result<Content> {
        let gnu = header.as_gnu().ok_or_else(|| why("has a file with holes in a form that is not GNU's"))?;
        let offset = self.at;
        let mut goes_on = gnu.is_extended();
        let mut table = 0;
        while goes_on {
            table += BLOCK;
            if table > MOST_EXTENSION {
                return Err(why("has a file with too many holes"));
            }
            let mut block = [0; 512];
            self.block(&mut block)?;
            // The byte after the 21 parts of a block.
            goes_on = block[504] != 0;
        }
        self.skip(parts)?;
        let len = self.at - offset;
        Ok(Content { offset, len, sparse: Some(Sparse::Gnu(Box::new(*header.as_bytes()), parts)) })
    }

    /// Skips content and the rest of its last block.
    fn skip(&mut self, len: u64) -> io::Result<()> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.len).ok_or_else(ended_error)?;
        self.archive.seek_relative(i64::try_from(len).map_err(|_| ended_error())?)?;
        self.at = end;
        self.skip_to_block()
    }

    fn skip_to_block(&mut self) -> io::Result<()> {
        // The last block may be cut short where nothing follows it.
        let rest = (self.at.next_multiple_of(BLOCK) - self.at).min(self.len - self.at);
        self.archive.seek_relative(rest as i64)?;
        self.at += rest;
        Ok(())
    }
}

impl Extensions {
    /// Reads PAX records: `LENGTH KEY=VALUE\n`, where the length counts all of it.
    fn read(&mut self, mut records: &[u8]) -> io::Result<()> {
        let malformed = || why("has a malformed extended header");
        while !records.is_empty() {
            // Some makers fill up with zeros.
            if records.iter().all(|byte| *byte == 0) {
                break;
            }
            let blank = records.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let len: usize = number(&records[..blank]).and_then(|len| len.try_into().ok()).ok_or_else(malformed)?;
            let record = records.get(blank + 1..len).ok_or_else(malformed)?;
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            self.record(&record[..equals], &record[equals + 1..]).ok_or_else(malformed)?;
            records = &records[len..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => {
                let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                self.mtime = Some(if whole.starts_with(b"-") { 0 } else { number(whole)? });
            }
            b"GNU.sparse.name" => self.path = Some(value.to_vec()),
            _ if key.starts_with(b"GNU.sparse.") => self.sparse.push((key.to_vec(), value.to_vec())),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.").filter(|name| is_kept(name)) {
                    self.xattrs.retain(|(other, _)| other != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// The extended attributes that mean something on another machine, and that an ordinary user's namespace may set.
fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"user.")
}

fn number(text: &[u8]) -> Option<u64> {
    // `parse` takes a sign.
    std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// A header's field that some makers leave out.
fn blank_is_zero<T: From<u8>>(value: io::Result<T>, field: &[u8]) -> io::Result<T> {
    value.or_else(|error| if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(0.into()) } else { Err(error) })
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn ended(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof { ended_error() } else { error }
}

fn ended_error() -> io::Error {
    why("ends in the middle of an entry")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn entries(bytes: &[u8]) -> io::Result<Vec<Entry>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut entries = Entries::new(Section::whole(file).unwrap());
        let mut all = Vec::new();
        while let Some(entry) = entries.next()? {
            all.push(entry);
        }
        Ok(all)
    }

    fn header(kind: tar::EntryType, name: &str, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(9);
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn member(header: &tar::Header, content: &[u8]) -> Vec<u8> {
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest;
            while len != rest + len.to_string().len() {
                len = rest + len.to_string().len();
            }
            bytes.extend(format!("{len} {key}=").as_bytes());
            bytes.extend(*value);
            bytes.push(b'\n');
        }
        member(&header(tar::EntryType::XHeader, "x", bytes.len() as u64), &bytes)
    }

    #[test]
    fn an_entry_is_read_with_what_precedes_it() {
        let mut bytes = member(&header(tar::EntryType::Directory, "d/", 0), b"");
        bytes.extend(pax(&[
            ("path", b"d/\xff\xfelong"),
            ("uid", b"70000000000"),
            ("mtime", b"12.5"),
            ("SCHILY.xattr.security.capability", b"\x01\n=\n\x00"),
            ("SCHILY.xattr.security.selinux", b"x"),
        ]));
        bytes.extend(member(&header(tar::EntryType::Regular, "short", 3), b"abc"));
        bytes.extend(member(&header(tar::EntryType::Fifo, "f", 0), b""));
        let all = entries(&bytes).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].path.as_slice(), &all[0].kind), (&b"d/"[..], &Kind::Directory));
        let Kind::File(Content { offset, len: 3, sparse: None }) = all[1].kind else { panic!("{:?}", all[1]) };
        assert_eq!(&bytes[offset as usize..][..3], b"abc");
        let capability = (b"security.capability".to_vec(), b"\x01\n=\n\x00".to_vec());
        let meta = Meta { mode: 0o4755, uid: 70_000_000_000, gid: 8, mtime: 12, xattrs: vec![capability] };
        assert_eq!((all[1].path.as_slice(), &all[1].meta), (&b"d/\xff\xfelong"[..], &meta));
        assert_eq!((all[2].meta.uid, &all[2].kind), (7, &Kind::Fifo));
    }

    #[test]
    fn long_names_of_gnu_are_read() {
        let mut builder = tar::Builder::new(Vec::new());
        let (name, target) = ("n/".repeat(200) + "x", "t/".repeat(200) + "y");
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, &name, &target).unwrap();
        let all = entries(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(all[0].path, name.as_bytes());
        assert_eq!(all[0].kind, Kind::Symlink(target.into_bytes()));
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        let bomb = member(&header(tar::EntryType::XHeader, "x", 1 << 40), b"");
        assert!(entries(&bomb).unwrap_err().to_string().contains("an extension of 1099511627776 bytes"));
        let many = pax(&[("comment", b"x")]).repeat(40);
        assert!(entries(&many).unwrap_err().to_string().contains("too many extensions"));
    }

    #[test]
    fn damage_is_an_error() {
        let whole = member(&header(tar::EntryType::Regular, "f", 600), &[1; 600]);
        assert_eq!(entries(&whole).unwrap().len(), 1);
        assert_eq!(entries(&[&whole[..], &[0; 1024][..], b"more"].concat()).unwrap().len(), 1);
        for cut in [100, 512, 700, 1111] {
            let error = entries(&whole[..cut]).unwrap_err();
            assert!(error.to_string().contains("ends in the middle"), "{cut}: {error}");
        }
        assert!(entries(&[7; 2000]).unwrap_err().to_string().contains("no tar archive"));
        for records in ["5 a=b", "9 a=b\n", "x a=b\n", "-6 a=b\n", "+6 a=b\n", "6 ab\n\n", "99999999999999999999 a=b\n"]
        {
            let extension = header(tar::EntryType::XHeader, "x", records.len() as u64);
            let error = entries(&member(&extension, records.as_bytes())).unwrap_err();
            assert!(error.to_string().contains("malformed"), "{records}: {error}");
        }
    }
}
