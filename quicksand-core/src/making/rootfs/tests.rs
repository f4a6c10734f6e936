//! Layer sets, ordinary and hostile, and what becomes of them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
};

use proptest::prelude::*;
use tar::EntryType;

use super::*;

/// An archive in the making.
struct Pack(tar::Builder<Vec<u8>>);

impl Pack {
    fn new() -> Pack {
        Pack(tar::Builder::new(Vec::new()))
    }

    /// Any name that fits into a header, also one that the crate `tar` refuses.
    fn raw(mut self, kind: EntryType, path: &str, link: &str, mode: u32, content: &[u8]) -> Pack {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(100);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, path: &str, content: &str) -> Pack {
        self.raw(EntryType::Regular, path, "", 0o644, content.as_bytes())
    }

    fn dir(self, path: &str, mode: u32) -> Pack {
        self.raw(EntryType::Directory, path, "", mode, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Pack {
        self.raw(EntryType::Symlink, path, target, 0o777, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Pack {
        self.raw(EntryType::Link, path, target, 0o644, b"")
    }

    fn gone(self, path: &str) -> Pack {
        self.file(path, "")
    }

    fn layer(self) -> Layer {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&self.0.into_inner().unwrap()).unwrap();
        Layer { name: "the layer".into(), archive: Section::whole(file).unwrap() }
    }
}

/// What an archive holds: for each path a short text.
type Listing = BTreeMap<String, String>;

fn merged(packs: Vec<Pack>) -> Result<Listing, MergeError> {
    merged_with(packs, true, Limits::default())
}

fn merged_with(packs: Vec<Pack>, whiteouts: bool, limits: Limits) -> Result<Listing, MergeError> {
    let out = tempfile::NamedTempFile::new().unwrap();
    let layers = packs.into_iter().map(Pack::layer).collect();
    let written = merge(layers, whiteouts, limits, &Owners::default(), out.path(), &mut |_, _| Ok(()))?;
    let listing = list(out.path());
    assert_eq!(written.entries, listing.len() as u64, "{listing:?}");
    Ok(listing)
}

/// Reads with another reader than ours. Every parent must have been listed before what is in it.
fn list(path: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let path = path.strip_prefix("./").unwrap().trim_end_matches('/').to_owned();
        let header = entry.header().clone();
        let link = entry.link_name_bytes().map(|link| String::from_utf8(link.into_owned()).unwrap());
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        let mode = header.mode().unwrap();
        let text = match header.entry_type() {
            EntryType::Regular => content,
            EntryType::Directory => format!("dir {mode:o}"),
            EntryType::Symlink => format!("-> {}", link.unwrap()),
            EntryType::Link => {
                let link = link.unwrap();
                assert!(listing.contains_key(link.strip_prefix("./").unwrap()), "{path} before {link}");
                format!("= {link}")
            }
            other => format!("{other:?}"),
        };
        if let Some((parent, _)) = path.rsplit_once('/') {
            assert!(listing.get(parent).is_some_and(|it| it.starts_with("dir ")), "{path} without its directory");
        }
        assert!(listing.insert(path.clone(), text).is_none(), "{path} twice");
    }
    listing
}

fn listing(lines: &[(&str, &str)]) -> Listing {
    let root = [("", "dir 755")];
    root.iter().chain(lines).map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[track_caller]
fn refused(packs: Vec<Pack>, words: &str) {
    let error = merged(packs).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn upper_layers_lie_over_lower_ones() {
    let lower =
        Pack::new().dir("./", 0o700).dir("etc/", 0o755).file("etc/a", "1").file("etc/b", "1").symlink("l", "etc");
    let upper = Pack::new().dir("etc", 0o711).file("./etc/b", "2").file("new/deep/c", "3");
    let mut expected = listing(&[
        ("etc", "dir 711"),
        ("etc/a", "1"),
        ("etc/b", "2"),
        ("l", "-> etc"),
        ("new", "dir 755"),
        ("new/deep", "dir 755"),
        ("new/deep/c", "3"),
    ]);
    expected.insert(String::new(), "dir 700".into());
    assert_eq!(merged(vec![lower, upper]).unwrap(), expected);
}

#[test]
fn whiteouts_remove_what_lies_below_wherever_they_stand() {
    let lower = || Pack::new().file("d/a", "1").file("d/b", "1").file("d/s/x", "1").file("e/f", "1").file("g", "1");
    let upper =
        Pack::new().file("d/b", "2").gone("d/.wh.a").gone("d/.wh.b").gone("d/.wh.s").gone(".wh.e").gone(".wh.none");
    let kept = [("d", "dir 755"), ("d/b", "2"), ("g", "1")];
    assert_eq!(merged(vec![lower(), upper]).unwrap(), listing(&kept));

    // An opaque directory keeps what its own layer puts there, be it before or after.
    let upper = Pack::new().file("d/s/y", "2").gone("d/.wh..wh..opq").file("d/c", "2").gone("h/.wh..wh..opq");
    let kept = [
        ("d", "dir 755"),
        ("d/c", "2"),
        ("d/s", "dir 755"),
        ("d/s/y", "2"),
        ("e", "dir 755"),
        ("e/f", "1"),
        ("g", "1"),
    ];
    assert_eq!(merged(vec![lower(), upper]).unwrap(), listing(&kept));

    // A directory in the place of a file that is removed in the same layer, and the other way round.
    let upper = Pack::new().file("g/h", "2").gone(".wh.g").gone(".wh.d").file("d", "2").gone(".wh.e");
    let kept = [("d", "2"), ("g", "dir 755"), ("g/h", "2")];
    assert_eq!(merged(vec![lower(), upper]).unwrap(), listing(&kept));

    // What aufs kept is nobody's. Without layers they are files like others.
    let aufs = || Pack::new().file(".wh..wh.aufs", "x").file(".wh..wh.plnk/1", "x").file(".wh.x", "y");
    assert_eq!(merged(vec![aufs()]).unwrap(), listing(&[]));
    let plain = merged_with(vec![aufs()], false, Limits::default()).unwrap();
    assert_eq!(plain[".wh.x"], "y");
}

#[test]
fn kinds_replace_each_other() {
    let lower = Pack::new().file("a/in", "1").file("b", "1").symlink("c", "a").symlink("d", "a").file("e/in", "1");
    let upper = Pack::new().file("a", "2").dir("b", 0o700).dir("c", 0o700).file("d", "2").symlink("e", "b");
    let expected = [("a", "2"), ("b", "dir 700"), ("c", "dir 700"), ("d", "2"), ("e", "-> b")];
    assert_eq!(merged(vec![lower, upper]).unwrap(), listing(&expected));
}

#[test]
fn hard_links_outlive_the_name_that_they_were_made_from() {
    let lower = Pack::new().file("a", "1").hard_link("b", "a").file("d/x", "9");
    let middle = Pack::new().file("a", "2").hard_link("c", "/b").hard_link("e", "./d/x");
    let upper = Pack::new().gone(".wh.b").gone("d/.wh..wh..opq");
    let expected = [("a", "2"), ("c", "1"), ("d", "dir 755"), ("e", "9")];
    assert_eq!(merged(vec![lower, middle, upper]).unwrap(), listing(&expected));

    let links = Pack::new().symlink("s", "f").hard_link("t", "s").file("f", "1").hard_link("a", "f");
    let expected = [("a", "1"), ("f", "= ./a"), ("s", "-> f"), ("t", "-> f")];
    assert_eq!(merged(vec![links]).unwrap(), listing(&expected));
}

#[test]
fn paths_through_links_stay_within() {
    let lower = Pack::new().symlink("bin", "usr/bin").symlink("usr/lib", "/../etc/lib").symlink("abs", "//usr");
    // As merged-usr images are built upon, and as an attacker would have it: both mean the image's own directories.
    let upper = Pack::new().file("bin/tool", "1").file("abs/share/x", "2").hard_link("bin/twin", "abs/bin/tool");
    let all = merged(vec![lower, upper]).unwrap();
    assert_eq!((all["usr/bin/tool"].as_str(), all["usr/share/x"].as_str()), ("1", "2"));
    assert_eq!((all["usr/bin/twin"].as_str(), all["bin"].as_str()), ("= ./usr/bin/tool", "-> usr/bin"));

    let lower = || Pack::new().symlink("out", "../../host").symlink("d/up", "..").symlink("x", "y").symlink("y", "x");
    // As for a kernel, the root directory is its own parent.
    let all = merged(vec![lower(), Pack::new().file("out/f", "1").hard_link("h", "out/f")]).unwrap();
    assert_eq!((all["h"].as_str(), all["host/f"].as_str()), ("1", "= ./h"));
    let all = merged(vec![lower(), Pack::new().file("host/f", "1"), Pack::new().gone("out/.wh.f")]).unwrap();
    assert!(all.contains_key("host") && !all.contains_key("host/f"), "{all:?}");
    refused(vec![lower(), Pack::new().file("x/f", "")], "too many links");
    let all = merged(vec![lower(), Pack::new().file("d/up/f", "1")]).unwrap();
    assert_eq!(all["f"], "1");
}

/// As engines take them: without their slash, and with `..` carried out.
#[test]
fn names_may_begin_with_a_slash() {
    let lower = Pack::new().dir("/", 0o700).file("/etc/motd", "1").file("//etc/./issue", "1").symlink("/l", "/etc");
    let upper = Pack::new().file("/l/new", "2").gone("/etc/.wh.motd").hard_link("/twin", "/../etc/x/../issue");
    let upper = upper.file("etc/a/../b", "2").file("/../../c", "2");
    let mut expected = listing(&[
        ("c", "2"),
        ("etc", "dir 755"),
        ("etc/b", "2"),
        ("etc/issue", "1"),
        ("etc/new", "2"),
        ("l", "-> /etc"),
        ("twin", "= ./etc/issue"),
    ]);
    expected.insert(String::new(), "dir 700".into());
    assert_eq!(merged(vec![lower, upper]).unwrap(), expected);
    let lower = Pack::new().dir("/d", 0o755).file("/d/x", "1").dir("/dev", 0o755).file("/dev/x", "1");
    let upper = Pack::new().gone("/d/.wh..wh..opq");
    assert_eq!(merged(vec![lower, upper]).unwrap(), listing(&[("d", "dir 755"), ("dev", "dir 755")]));
}

#[test]
fn hostile_entries_are_refused() {
    for path in ["../x", "a/../../x", "..", "a/../.."] {
        refused(vec![Pack::new().file(path, "")], "leads out of the root directory by \"..\"");
    }
    refused(vec![Pack::new().gone("../.wh.x")], "leads out of the root directory by \"..\"");
    refused(vec![Pack::new().file("a", "").hard_link("h", "../a")], "by \"..\"");
    refused(vec![Pack::new().hard_link("h", "nothing")], "a hard link to \"nothing\", which is not there");
    refused(vec![Pack::new().dir("d", 0o755).hard_link("h", "d")], "a hard link to a directory");
    refused(vec![Pack::new().dir("d", 0o755).hard_link("h", "/")], "a hard link to the root directory");
    refused(vec![Pack::new().symlink(".", "/etc")], "takes the place of the root directory");
    refused(vec![Pack::new().file("a", "").file("a/b", "")], "lies in something that is no directory");
    for path in ["a/.wh.", "a/.wh..", "a/.wh..."] {
        refused(vec![Pack::new().file(path, "")], "is a whiteout of no name");
    }
    refused(vec![Pack::new().raw(EntryType::new(b'Z'), "a", "", 0, b"")], "unknown type 'Z'");
    let mut deep = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    deep.append_data(&mut header, "d/".repeat(250) + "f", &b""[..]).unwrap();
    refused(vec![Pack(deep)], "directories deep");
}

#[test]
fn there_are_bounds() {
    let three = || vec![Pack::new().file("a", "").file("a", ""), Pack::new().file("a", "")];
    let limits = Limits { entries: 3, names: 3 };
    merged_with(three(), true, limits).unwrap();
    let error = merged_with(three(), true, Limits { entries: 2, ..limits }).unwrap_err();
    assert!(error.to_string().contains("an image may have 2 entries"), "{error}");
    let error = merged_with(three(), true, Limits { names: 2, ..limits }).unwrap_err();
    assert!(error.to_string().contains("may take 2 bytes"), "{error}");
}

#[test]
fn devices_are_the_kernels() {
    let lower = Pack::new().file("dev/x", "1").file("tty", "1").raw(EntryType::Fifo, "pipe", "", 0o600, b"");
    let upper = Pack::new().raw(EntryType::Char, "tty", "", 0o600, b"").dir("dev", 0o755);
    assert_eq!(merged(vec![lower, upper]).unwrap(), listing(&[("dev", "dir 755"), ("pipe", "Fifo")]));
}

#[test]
fn owners_attributes_and_long_names_are_handed_on() {
    let name = "n".repeat(200) + "/" + &"f".repeat(150);
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions([("SCHILY.xattr.user.a", &b"1"[..]), ("SCHILY.xattr.security.capability", b"2")])
        .unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o4711);
    header.set_uid(3_000_000);
    header.set_gid(7);
    header.set_mtime(1_700_000_000);
    header.set_size(3);
    builder.append_data(&mut header, &name, &b"abc"[..]).unwrap();
    let out = tempfile::NamedTempFile::new().unwrap();
    merge(vec![Pack(builder).layer()], true, Limits::default(), &Owners::default(), out.path(), &mut |_, _| Ok(()))
        .unwrap();

    let mut archive = tar::Archive::new(File::open(out.path()).unwrap());
    let mut entry = archive.entries().unwrap().last().unwrap().unwrap();
    assert_eq!(entry.path_bytes(), format!("./{name}").into_bytes());
    let header = entry.header();
    let fields = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap());
    assert_eq!(fields, (0o4711, 3_000_000, 7, 1_700_000_000));
    let extensions = entry.pax_extensions().unwrap().unwrap().map(Result::unwrap);
    let extensions: Vec<_> = extensions.map(|it| (it.key().unwrap().to_owned(), it.value_bytes().to_vec())).collect();
    assert_eq!(
        extensions,
        [
            ("SCHILY.xattr.user.a".to_owned(), b"1".to_vec()),
            ("SCHILY.xattr.security.capability".to_owned(), b"2".to_vec()),
        ]
    );
}

/// A small file system: a directory holds others, a leaf has a text.
#[derive(Debug, Clone, PartialEq)]
enum Thing {
    Leaf(u8),
    Directory(BTreeMap<u8, Thing>),
}

fn thing() -> impl Strategy<Value = Thing> {
    let leaf = (0..3u8).prop_map(Thing::Leaf);
    leaf.prop_recursive(3, 20, 4, |inner| prop::collection::btree_map(0..4u8, inner, 0..4).prop_map(Thing::Directory))
}

fn root() -> impl Strategy<Value = BTreeMap<u8, Thing>> {
    prop::collection::btree_map(0..4u8, thing(), 0..4)
}

/// The entries of a layer that makes `new` of `old`, as a builder writes them; by `opaque` it clears a directory as a whole.
fn difference(
    at: &str,
    old: &BTreeMap<u8, Thing>,
    new: &BTreeMap<u8, Thing>,
    opaque: bool,
    out: &mut Vec<(String, String)>,
) {
    if opaque {
        out.push((format!("{at}.wh..wh..opq"), String::new()));
    }
    for name in old.keys().filter(|name| !opaque && !new.contains_key(name)) {
        out.push((format!("{at}.wh.{name}"), String::new()));
    }
    let nothing = BTreeMap::new();
    for (name, thing) in new {
        let path = format!("{at}{name}");
        match (thing, old.get(name)) {
            (thing, Some(same)) if thing == same && !opaque => {}
            (Thing::Leaf(text), _) => out.push((path, text.to_string())),
            (Thing::Directory(new), old) => {
                let old = match old {
                    Some(Thing::Directory(old)) if !opaque => Some(old),
                    _ => None,
                };
                out.push((format!("{path}/"), String::new()));
                difference(&format!("{path}/"), old.unwrap_or(&nothing), new, false, out);
            }
        }
    }
}

fn flat(at: &str, tree: &BTreeMap<u8, Thing>, out: &mut Listing) {
    for (name, thing) in tree {
        let path = format!("{at}{name}");
        match thing {
            Thing::Leaf(text) => _ = out.insert(path, text.to_string()),
            Thing::Directory(inner) => {
                flat(&format!("{path}/"), inner, out);
                out.insert(path, "dir 755".into());
            }
        }
    }
}

proptest! {
    /// Layers that lead from one file system to the next give the last one, in whatever order removals and additions stand.
    #[test]
    fn layers_give_the_last_state(states in prop::collection::vec((root(), any::<bool>(), any::<bool>()), 1..5)) {
        let mut packs = Vec::new();
        let mut old = BTreeMap::new();
        for (new, opaque, removals_last) in &states {
            let mut entries = Vec::new();
            difference("", &old, new, *opaque, &mut entries);
            if *removals_last {
                // Stable: parents stay before what is in them.
                entries.sort_by_key(|(path, _)| path.contains(".wh."));
            }
            let pack = entries.iter().fold(Pack::new(), |pack, (path, text)| match path.ends_with('/') {
                true => pack.dir(path, 0o755),
                false => pack.file(path, text),
            });
            packs.push(pack);
            old = new.clone();
        }
        let mut expected = listing(&[]);
        flat("", &old, &mut expected);
        prop_assert_eq!(merged(packs).unwrap(), expected);
    }

    /// Whatever the bytes are, the answer is a result.
    #[test]
    fn garbage_is_a_result(mut bytes in prop::collection::vec(any::<u8>(), 0..3000), valid in any::<bool>()) {
        if valid && bytes.len() >= 512 {
            bytes[124..136].copy_from_slice(b"00000000400\0");
            let sum = bytes[..148].iter().chain(&bytes[156..512]).fold(256u32, |sum, byte| sum + u32::from(*byte));
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let layer = Layer { name: "garbage".into(), archive: Section::whole(file).unwrap() };
        let out = tempfile::NamedTempFile::new().unwrap();
        let _ = merge(vec![layer], true, Limits::default(), &Owners::default(), out.path(), &mut |_, _| Ok(()));
    }
}
