//! One file tree of many layers, in memory: names and what belongs to them, but no content.
//!
//! Layers are laid over each other as container engines do it. A directory over a directory keeps what is in it; anything else
//! takes the place of what has its name. A file `.wh.NAME` removes NAME, and `.wh..wh..opq` all that lies in its directory, of what
//! the layers below hold: so a layer's removals go first, wherever in its archive they stand. A name that begins with a slash is the
//! same without it. A path that leads through a link is followed within the tree, so that nothing of the host is ever looked at; there,
//! as for a kernel, `..` at the root is the root. A name that leads out of the tree by itself is refused.

use std::{collections::BTreeMap, io};

use super::{
    entry::{Content, Entry, Kind, Meta, Sparse},
    why,
};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs kept for itself.
const AUFS: &[u8] = b".wh..wh.";

/// Linux's bounds for paths and names.
const LONGEST_PATH: usize = 4096;
const LONGEST_NAME: usize = 255;
/// No system has directories as deep as that, and what goes through them need not fear for its stack.
const DEEPEST: usize = 200;
/// As many links as Linux follows in a path.
const MOST_LINKS: usize = 40;

/// How much a tree may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Entries in all layers, also those that others replace.
    pub(crate) entries: u64,
    /// Bytes of names, links and extended attributes, which are kept in memory.
    pub(crate) names: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 2_000_000, names: 256 << 20 }
    }
}

#[derive(Debug)]
pub(crate) struct Tree {
    limits: Limits,
    entries: u64,
    names: u64,
    pub(crate) root: Directory,
    /// What several names may stand for.
    pub(crate) inodes: Vec<Inode>,
}

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) meta: Meta,
    pub(crate) children: BTreeMap<Vec<u8>, Node>,
}

#[derive(Debug)]
pub(crate) enum Node {
    Directory(Directory),
    /// Its place among the inodes.
    Leaf(usize),
}

#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) meta: Meta,
    pub(crate) leaf: Leaf,
}

#[derive(Debug)]
pub(crate) enum Leaf {
    /// The layer whose archive holds the content, and where.
    File(usize, Content),
    Symlink(Vec<u8>),
    Fifo,
}

/// What one entry of a layer asks for.
#[derive(Debug)]
enum Whiteout<'a> {
    /// That all in its directory goes.
    Opaque,
    /// That this name goes.
    Name(&'a [u8]),
    /// Nothing.
    Ignored,
}

impl Default for Directory {
    /// One of which nothing is said but that something lies in it.
    fn default() -> Directory {
        Directory { meta: Meta { mode: 0o755, ..Meta::default() }, children: BTreeMap::new() }
    }
}

impl Tree {
    pub(crate) fn new(limits: Limits) -> Tree {
        Tree { limits, entries: 0, names: 0, root: Directory::default(), inodes: Vec::new() }
    }

    /// Removes what an entry of the next layer says is gone. All of a layer's entries are shown to this before the first of them
    /// is [added](Tree::add).
    pub(crate) fn remove(&mut self, entry: &Entry) -> io::Result<()> {
        let (parents, name) = parents_and_name(&entry.path)?;
        let Some(whiteout) = name.and_then(|name| whiteout(&parents, name)) else { return Ok(()) };
        if let Whiteout::Name(b"" | b"." | b"..") = whiteout {
            return Err(why("is a whiteout of no name"));
        }
        let Some(directory) = self.existing(&parents)? else { return Ok(()) };
        match whiteout {
            Whiteout::Opaque => directory.children.clear(),
            Whiteout::Name(name) => _ = directory.children.remove(name),
            Whiteout::Ignored => {}
        }
        Ok(())
    }

    /// Lays an entry of the layer of that number over what is there. Layers come from the bottom up; what asks for removals is
    /// taken for that if `whiteouts`, else for a file.
    pub(crate) fn add(&mut self, layer: usize, whiteouts: bool, entry: Entry) -> io::Result<()> {
        self.count(&entry)?;
        let (parents, name) = parents_and_name(&entry.path)?;
        let Some(name) = name else {
            if entry.kind != Kind::Directory {
                return Err(why("takes the place of the root directory"));
            }
            self.root.meta = entry.meta;
            return Ok(());
        };
        if whiteouts && whiteout(&parents, name).is_some() {
            return Ok(());
        }
        let parents = self.resolve(&parents)?;
        if parents.len() >= DEEPEST {
            return Err(why(format!("lies more than {DEEPEST} directories deep")));
        }
        // The guest's kernel makes what is there.
        if parents.first().is_some_and(|first| first == b"dev") {
            return Ok(());
        }
        let node = match entry.kind {
            Kind::Directory => {
                let directory = self.directory(&parents)?;
                if let Some(Node::Directory(there)) = directory.children.get_mut(name) {
                    there.meta = entry.meta;
                    return Ok(());
                }
                Node::Directory(Directory { meta: entry.meta, ..Directory::default() })
            }
            // Making one takes a right that an ordinary user does not have, and no system has any elsewhere.
            Kind::Device => {
                self.directory(&parents)?.children.remove(name);
                return Ok(());
            }
            Kind::HardLink(target) => Node::Leaf(self.linked(&target)?),
            Kind::File(content) => self.leaf(entry.meta, Leaf::File(layer, content)),
            Kind::Symlink(target) => self.leaf(entry.meta, Leaf::Symlink(target)),
            Kind::Fifo => self.leaf(entry.meta, Leaf::Fifo),
        };
        self.directory(&parents)?.children.insert(name.to_vec(), node);
        Ok(())
    }

    fn leaf(&mut self, meta: Meta, leaf: Leaf) -> Node {
        self.inodes.push(Inode { meta, leaf });
        Node::Leaf(self.inodes.len() - 1)
    }

    fn count(&mut self, entry: &Entry) -> io::Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(why(format!("is one too many: an image may have {} entries", self.limits.entries)));
        }
        let link = match &entry.kind {
            Kind::HardLink(target) | Kind::Symlink(target) => target.len(),
            _ => 0,
        };
        if entry.path.len() > LONGEST_PATH || link > LONGEST_PATH {
            return Err(why(format!("has a path of more than {LONGEST_PATH} bytes")));
        }
        let sparse = match &entry.kind {
            Kind::File(Content { sparse: Some(Sparse::Gnu(header, _)), .. }) => header.len(),
            Kind::File(Content { sparse: Some(Sparse::Pax(records)), .. }) => sum(records),
            _ => 0,
        };
        self.names += (entry.path.len() + link + sum(&entry.meta.xattrs) + sparse) as u64;
        if self.names > self.limits.names {
            let most = self.limits.names;
            return Err(why(format!("is too much: names, links and extended attributes may take {most} bytes")));
        }
        Ok(())
    }

    /// The inode that a hard link means. Its last part is not followed, as by link(2).
    fn linked(&self, target: &[u8]) -> io::Result<usize> {
        let (parents, name) = parents_and_name(target)?;
        let name = name.ok_or_else(|| why("is a hard link to the root directory"))?;
        let mut directory = &self.root;
        for part in self.resolve(&parents)? {
            match directory.children.get(&part) {
                Some(Node::Directory(next)) => directory = next,
                _ => return Err(no_target(target)),
            }
        }
        match directory.children.get(name) {
            Some(Node::Leaf(inode)) => Ok(*inode),
            Some(Node::Directory(_)) => Err(why("is a hard link to a directory")),
            None => Err(no_target(target)),
        }
    }

    /// Where a path leads when links are followed: a path without links, of which the last parts need not exist.
    fn resolve(&self, parts: &[&[u8]]) -> io::Result<Vec<Vec<u8>>> {
        let mut pending: Vec<Vec<u8>> = parts.iter().rev().map(|part| part.to_vec()).collect();
        // Each directory on the way down to the last part, as far as they exist.
        let mut at: Vec<(Vec<u8>, Option<&Directory>)> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == b".." {
                // Only a link's target has such a part. The root directory is its own parent.
                at.pop();
                continue;
            }
            let directory = at.last().map_or(Some(&self.root), |(_, directory)| *directory);
            match directory.and_then(|directory| directory.children.get(&part)) {
                Some(Node::Directory(next)) => at.push((part, Some(next))),
                Some(Node::Leaf(inode)) => {
                    let Leaf::Symlink(target) = &self.inodes[*inode].leaf else {
                        return Err(why("lies in something that is no directory"));
                    };
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(why("leads through too many links"));
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    let target = split(target)?;
                    pending.extend(target.into_iter().rev().map(<[u8]>::to_vec));
                }
                None => at.push((part, None)),
            }
        }
        Ok(at.into_iter().map(|(part, _)| part).collect())
    }

    /// The directory that a path of any kind leads to, if it is there.
    fn existing(&mut self, parts: &[&[u8]]) -> io::Result<Option<&mut Directory>> {
        let path = self.resolve(parts)?;
        let mut directory = &mut self.root;
        for part in path {
            match directory.children.get_mut(&part) {
                Some(Node::Directory(next)) => directory = next,
                _ => return Ok(None),
            }
        }
        Ok(Some(directory))
    }

    /// The directory at a path without links, made where it is missing.
    fn directory(&mut self, path: &[Vec<u8>]) -> io::Result<&mut Directory> {
        let mut directory = &mut self.root;
        for part in path {
            let make = || Node::Directory(Directory::default());
            match directory.children.entry(part.clone()).or_insert_with(make) {
                Node::Directory(next) => directory = next,
                Node::Leaf(_) => return Err(why("lies in something that is no directory")),
            }
        }
        Ok(directory)
    }
}

fn whiteout<'a>(parents: &[&[u8]], name: &'a [u8]) -> Option<Whiteout<'a>> {
    if name == OPAQUE {
        Some(Whiteout::Opaque)
    } else if name.starts_with(AUFS) || parents.iter().any(|part| part.starts_with(AUFS)) {
        Some(Whiteout::Ignored)
    } else {
        name.strip_prefix(WHITEOUT).map(Whiteout::Name)
    }
}

/// The parts of a path.
type Parts<'a> = Vec<&'a [u8]>;

/// The parts of an entry's path, or of a hard link's target, as seen from the root directory: with `..` carried out, as engines do it
/// before they follow any link. The root directory has no name.
fn parents_and_name(path: &[u8]) -> io::Result<(Parts<'_>, Option<&[u8]>)> {
    let mut parts = Parts::new();
    for part in split(path)? {
        if part != b".." {
            parts.push(part);
        } else if parts.pop().is_none() && !path.starts_with(b"/") {
            return Err(why("leads out of the root directory by \"..\""));
        }
    }
    let name = parts.pop();
    Ok((parts, name))
}

/// The parts of a path, without what a slash at its beginning says.
fn split(path: &[u8]) -> io::Result<Parts<'_>> {
    if path.contains(&0) {
        return Err(why("has a path with a NUL in it"));
    }
    let parts: Vec<_> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.iter().any(|part| part.len() > LONGEST_NAME) {
        return Err(why(format!("has a name of more than {LONGEST_NAME} bytes")));
    }
    Ok(parts)
}

fn sum(pairs: &[(Vec<u8>, Vec<u8>)]) -> usize {
    pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn no_target(target: &[u8]) -> io::Error {
    why(format!("is a hard link to {:?}, which is not there", String::from_utf8_lossy(target)))
}
