//! Writes a merged tree as one tar archive, in an order in which it can be unpacked without looking ahead.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read, Seek, SeekFrom, Write},
};

use super::{
    entry::{Content, Meta, Sparse},
    owners::{Owners, Stranger},
    section::Section,
    tree::{Directory, Inode, Leaf, Node, Tree},
};

/// What GNU tar calls the entries that hold a name too long for a header.
const LONG_LINK: &[u8] = b"././@LongLink";
/// What a header's fields for names hold.
const FIELD: usize = 100;

/// What was written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    pub(crate) entries: u64,
    /// What the files take on a disk, in bytes.
    pub(crate) content: u64,
    /// How many are nobody's, since there is no such owner here, and the first of them.
    pub(crate) strangers: u64,
    pub(crate) stranger: Option<Stranger>,
}

/// Writes the tree. Contents come from the layers' archives, of which each is read from its start to its end; `watch` hears how many
/// bytes of content of how many were written, and may end it all.
pub(crate) fn write(
    tree: &Tree,
    layers: &[Section],
    owners: &Owners,
    out: impl Write,
    watch: &mut dyn FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<Written> {
    let mut archive = Archive { out, owners, written: Written::default() };
    // Directories first, so that none has to be made up; then what has no content, then the files in the order in which the layers'
    // archives hold them.
    let mut leaves = Vec::new();
    archive.directory(b"./", &tree.root, &mut leaves)?;
    let mut files = Vec::new();
    for (path, number) in leaves {
        let Inode { meta, leaf } = &tree.inodes[number];
        match leaf {
            Leaf::File(layer, content) => files.push((*layer, content.offset, number, path)),
            Leaf::Symlink(target) => archive.member(tar::EntryType::Symlink, &path, target, meta)?,
            Leaf::Fifo => archive.member(tar::EntryType::Fifo, &path, b"", meta)?,
        }
    }
    files.sort();
    let mut first_names: HashMap<usize, Vec<u8>> = HashMap::new();
    let numbers: HashSet<usize> = files.iter().map(|(_, _, number, _)| *number).collect();
    let len = |number: &usize| match &tree.inodes[*number].leaf {
        Leaf::File(_, content) => content.len,
        _ => 0,
    };
    let (mut done, total) = (0, numbers.iter().map(len).sum());
    for (layer, _, number, path) in files {
        let Inode { meta, leaf: Leaf::File(_, content) } = &tree.inodes[number] else { continue };
        if let Some(first) = first_names.get(&number) {
            archive.member(tar::EntryType::Link, &path, first, meta)?;
            continue;
        }
        archive.file(&path, meta, content, &mut layers[layer].clone(), &mut |count| {
            done += count;
            watch(done, total)
        })?;
        first_names.insert(number, path);
    }
    archive.out.write_all(&[0; 1024])?;
    archive.out.flush()?;
    Ok(archive.written)
}

struct Archive<'a, W> {
    out: W,
    owners: &'a Owners,
    written: Written,
}

impl<W: Write> Archive<'_, W> {
    fn directory(&mut self, path: &[u8], directory: &Directory, leaves: &mut Vec<(Vec<u8>, usize)>) -> io::Result<()> {
        self.member(tar::EntryType::Directory, path, b"", &directory.meta)?;
        for (name, node) in &directory.children {
            let mut path = [path, name].concat();
            match node {
                Node::Leaf(inode) => leaves.push((path, *inode)),
                Node::Directory(directory) => {
                    path.push(b'/');
                    self.directory(&path, directory, leaves)?;
                }
            }
        }
        Ok(())
    }

    /// An entry without content.
    fn member(&mut self, kind: tar::EntryType, path: &[u8], link: &[u8], meta: &Meta) -> io::Result<()> {
        let meta = &self.owned(path, meta);
        self.extensions(path, link, meta, &[])?;
        self.header(header(kind, path, link, meta, 0))
    }

    /// What a file has, with an owner that there is.
    fn owned(&mut self, path: &[u8], meta: &Meta) -> Meta {
        let mut owned = meta.clone();
        if self.owners.fit(&mut owned) {
            self.written.strangers += 1;
            let path = || String::from_utf8_lossy(path.strip_prefix(b".").unwrap_or(path)).into_owned();
            self.written.stranger.get_or_insert_with(|| Stranger { path: path(), uid: meta.uid, gid: meta.gid });
        }
        owned
    }

    fn file(
        &mut self,
        path: &[u8],
        meta: &Meta,
        content: &Content,
        layer: &mut Section,
        watch: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let meta = &self.owned(path, meta);
        let mut own = header(tar::EntryType::Regular, path, b"", meta, content.len);
        match &content.sparse {
            None => self.extensions(path, b"", meta, &[])?,
            Some(Sparse::Pax(records)) => {
                let name = (b"GNU.sparse.name".to_vec(), path.to_vec());
                self.extensions(path, b"", meta, &[&records[..], &[name]].concat())?;
            }
            Some(Sparse::Gnu(from, parts)) => {
                self.extensions(path, b"", meta, &[])?;
                own = header(tar::EntryType::GNUSparse, path, b"", meta, *parts);
                // The table of parts and what follows it. The parts' own length stands in the field of the size.
                own.as_mut_bytes()[386..495].copy_from_slice(&from[386..495]);
                own.set_cksum();
            }
        }
        self.header(own)?;
        self.written.content += content.len.next_multiple_of(4096);
        layer.seek(SeekFrom::Start(content.offset))?;
        let mut buffer = vec![0; (content.len.clamp(1, 256 * 1024)) as usize];
        let mut left = content.len;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = layer.read(&mut buffer[..most])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.out.write_all(&buffer[..count])?;
            left -= count as u64;
            watch(count as u64)?;
        }
        self.pad(content.len)
    }

    /// What does not fit into a header: long names as GNU has them, which may hold any bytes, and the rest as PAX records.
    fn extensions(&mut self, path: &[u8], link: &[u8], meta: &Meta, records: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
        let mut pax = Vec::new();
        for (key, value) in records {
            record(&mut pax, key, value);
        }
        for (name, value) in &meta.xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if !pax.is_empty() {
            self.extension(tar::EntryType::XHeader, b"./pax", &pax)?;
        }
        for (kind, name) in [(tar::EntryType::GNULongName, path), (tar::EntryType::GNULongLink, link)] {
            if name.len() > FIELD {
                self.extension(kind, LONG_LINK, &[name, &[0]].concat())?;
            }
        }
        Ok(())
    }

    fn extension(&mut self, kind: tar::EntryType, name: &[u8], content: &[u8]) -> io::Result<()> {
        let meta = Meta { mode: 0o644, ..Meta::default() };
        self.out.write_all(header(kind, name, b"", &meta, content.len() as u64).as_bytes())?;
        self.out.write_all(content)?;
        self.pad(content.len() as u64)
    }

    fn header(&mut self, header: tar::Header) -> io::Result<()> {
        self.written.entries += 1;
        self.out.write_all(header.as_bytes())
    }

    fn pad(&mut self, len: u64) -> io::Result<()> {
        let rest = len.next_multiple_of(512) - len;
        self.out.write_all(&[0; 512][..rest as usize])
    }
}

fn header(kind: tar::EntryType, path: &[u8], link: &[u8], meta: &Meta, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(meta.mode);
    header.set_uid(meta.uid);
    header.set_gid(meta.gid);
    header.set_mtime(meta.mtime);
    header.set_size(size);
    let bytes = header.as_mut_bytes();
    let (path, link) = (&path[..path.len().min(FIELD)], &link[..link.len().min(FIELD)]);
    bytes[..path.len()].copy_from_slice(path);
    bytes[157..157 + link.len()].copy_from_slice(link);
    header.set_cksum();
    header
}

fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // A blank, an equals sign and a line feed. The length counts its own digits, which may make it longer.
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend(len.to_string().as_bytes());
    records.push(b' ');
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}
