//! Files of any kind.

use std::{
    ffi::OsString,
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use quicksand_protocol::facts::{CONTENT_LIMIT, File as Answer, Kind as KindTold, Question};

use super::{Query, assert_fact, listed, shown, shown_bytes};

/// How much of a file's content a failure shows, in lines and in characters of each.
const LINES: usize = 20;
const LINE: usize = 200;

/// Asks what is at an absolute path.
pub fn file(path: impl AsRef<Path>) -> Query<File> {
    let path = path.as_ref();
    if !path.is_absolute() || path.as_os_str().len() > 4096 {
        return Query::refused("file", path.display().to_string(), "use an absolute path of at most 4096 bytes");
    }
    Query::of(Question::File { path: path.as_os_str().as_bytes().to_vec() })
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A device that is read and written in blocks.
    BlockDevice,
    /// A device that is read and written in characters.
    CharacterDevice,
}

impl From<KindTold> for Kind {
    fn from(kind: KindTold) -> Kind {
        match kind {
            KindTold::File => Kind::File,
            KindTold::Directory => Kind::Directory,
            KindTold::Link => Kind::Link,
            KindTold::Pipe => Kind::Pipe,
            KindTold::Socket => Kind::Socket,
            KindTold::BlockDevice => Kind::BlockDevice,
            KindTold::CharacterDevice => Kind::CharacterDevice,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Link => "symbolic link",
            Kind::Pipe => "named pipe",
            Kind::Socket => "socket",
            Kind::BlockDevice => "block device",
            Kind::CharacterDevice => "character device",
        })
    }
}

/// What is at a path of the guest. `to_string()` tells all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct File {
    /// The path.
    pub path: PathBuf,
    /// What is there. `None` where there is nothing.
    pub entry: Option<Entry>,
    nearest: Option<(Vec<u8>, Vec<Vec<u8>>)>,
}

/// A file of any kind: a link is told as such, and not as what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Which kind.
    pub kind: Kind,
    /// Permission bits, with set-id bits and the sticky bit: `0o644`, `0o4755`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The owner's name, where `/etc/passwd` has it.
    pub owner: Option<String>,
    /// The group's name, where `/etc/group` has it.
    pub group: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// When it was changed last.
    pub modified: SystemTime,
    /// Where a symbolic link leads, as it is written there.
    pub target: Option<PathBuf>,
    /// Whether a symbolic link leads to nothing.
    pub dangling: bool,
    /// What is in a regular file of at most 256 KiB, or in such a file that a link leads to. See
    /// [`Sandbox::read_file`](crate::Sandbox::read_file) for longer ones.
    pub content: Option<Vec<u8>>,
}

impl File {
    pub(crate) fn new(path: &[u8], answer: Answer) -> File {
        let os = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
        let entry = answer.entry.map(|entry| Entry {
            kind: entry.kind.into(),
            mode: entry.mode & 0o7777,
            uid: entry.uid,
            gid: entry.gid,
            owner: entry.owner,
            group: entry.group,
            size: entry.size,
            modified: time(entry.modified),
            target: entry.target.map(os),
            dangling: entry.dangling,
            content: entry.content,
        });
        File { path: os(path.to_vec()), entry, nearest: answer.nearest }
    }

    /// Whether there is anything, if only a link that leads nowhere.
    pub fn exists(&self) -> bool {
        self.entry.is_some()
    }

    /// Panics unless there is anything.
    #[track_caller]
    pub fn assert_exists(&self) -> &File {
        assert_fact(self, self.exists(), format_args!("{} exists", self.path.display()));
        self
    }

    /// Panics if there is anything.
    #[track_caller]
    pub fn assert_absent(&self) -> &File {
        assert_fact(self, !self.exists(), format_args!("{} does not exist", self.path.display()));
        self
    }

    /// Panics unless it is of this kind.
    #[track_caller]
    pub fn assert_kind(&self, kind: Kind) -> &File {
        self.assert_entry(|entry| entry.kind == kind, format_args!("is a {kind}"))
    }

    /// Panics unless it has exactly these permission bits, set-id bits and the sticky bit among them.
    #[track_caller]
    pub fn assert_mode(&self, mode: u32) -> &File {
        self.assert_entry(|entry| entry.mode == mode, format_args!("has the mode {mode:04o}"))
    }

    /// Panics unless its owner has this name, or this number.
    #[track_caller]
    pub fn assert_owner(&self, owner: &str) -> &File {
        self.assert_entry(|entry| is(owner, &entry.owner, entry.uid), format_args!("is owned by {owner}"))
    }

    /// Panics unless its group has this name, or this number.
    #[track_caller]
    pub fn assert_group(&self, group: &str) -> &File {
        self.assert_entry(|entry| is(group, &entry.group, entry.gid), format_args!("has the group {group}"))
    }

    /// Panics unless it has this size in bytes.
    #[track_caller]
    pub fn assert_size(&self, size: u64) -> &File {
        self.assert_entry(|entry| entry.size == size, format_args!("has {size} bytes"))
    }

    /// Panics unless it is a symbolic link that leads there, as it is written in it.
    #[track_caller]
    pub fn assert_target(&self, target: impl AsRef<Path>) -> &File {
        let target = target.as_ref();
        let leads_there = |entry: &Entry| entry.target.as_deref() == Some(target);
        self.assert_entry(leads_there, format_args!("is a symbolic link to {}", target.display()))
    }

    /// Panics unless exactly this is in it, or in the file that a link leads to. Of files of at most 256 KiB.
    #[track_caller]
    pub fn assert_content(&self, content: impl AsRef<[u8]>) -> &File {
        let content = content.as_ref();
        let expected = format!("has this content:{}", indented(content));
        self.assert_content_is(|found| found == content, format_args!("{expected}"))
    }

    /// Panics unless this is somewhere in it, or in the file that a link leads to. Of files of at most 256 KiB.
    #[track_caller]
    pub fn assert_contains(&self, part: impl AsRef<[u8]>) -> &File {
        let part = part.as_ref();
        let holds = |found: &[u8]| part.is_empty() || found.windows(part.len()).any(|window| window == part);
        self.assert_content_is(holds, format_args!("contains {:?}", String::from_utf8_lossy(part)))
    }

    #[track_caller]
    fn assert_entry(&self, holds: impl FnOnce(&Entry) -> bool, expected: fmt::Arguments<'_>) -> &File {
        let holds = self.entry.as_ref().is_some_and(holds);
        assert_fact(self, holds, format_args!("{} {expected}", self.path.display()));
        self
    }

    #[track_caller]
    fn assert_content_is(&self, holds: impl FnOnce(&[u8]) -> bool, expected: fmt::Arguments<'_>) -> &File {
        let content = self.entry.as_ref().and_then(|entry| entry.content.as_deref());
        if !content.is_some_and(holds) {
            let found = match (&self.entry, content) {
                (Some(_), Some(content)) => format!("{self}{}", indented(content)),
                (Some(_), None) => format!("{self}\nwhich is no regular file of at most {CONTENT_LIMIT} bytes"),
                (None, _) => self.to_string(),
            };
            assert_fact(&found, false, format_args!("{} {expected}", self.path.display()));
        }
        self
    }
}

fn is(wanted: &str, name: &Option<String>, number: u32) -> bool {
    name.as_deref() == Some(wanted) || wanted.parse() == Ok(number)
}

/// The guest's clock may say anything.
fn time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(distance),
        false => SystemTime::UNIX_EPOCH.checked_add(distance),
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The beginning of a file's content, each line on one of its own.
fn indented(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    let line = |line: &str| format!("\n    {}", shown(line).chars().take(LINE).collect::<String>());
    let mut shown: String = text.lines().take(LINES).map(line).collect();
    match text.lines().count() {
        0 => shown.push_str("\n    (it is empty)"),
        count if count > LINES => shown.push_str(&format!("\n    (and {} lines more)", count - LINES)),
        _ => {}
    }
    shown
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        let Some(entry) = &self.entry else {
            f.write_str("there is nothing")?;
            let Some((directory, names)) = &self.nearest else { return Ok(()) };
            let names = names.iter().map(|name| shown_bytes(name));
            return write!(f, "; in {} there is {}", shown_bytes(directory), listed(names));
        };
        let Entry { kind, mode, uid, gid, owner, group, size, target, dangling, .. } = entry;
        let named = |name: &Option<String>| name.as_deref().map(|name| format!("{} ", shown(name))).unwrap_or_default();
        write!(f, "{kind}, mode {mode:04o}, owner {}({uid}), group {}({gid})", named(owner), named(group))?;
        match (kind, target) {
            (Kind::File, _) => write!(f, ", {size} bytes"),
            (_, Some(target)) => {
                write!(f, ", to {}", shown_bytes(target.as_os_str().as_bytes()))?;
                if *dangling { f.write_str(", which is not there") } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use quicksand_protocol::facts as protocol;

    use super::super::tests::said;
    use super::*;

    fn entry() -> protocol::Entry {
        protocol::Entry {
            kind: protocol::Kind::File,
            mode: 0o100600,
            uid: 0,
            gid: 42,
            owner: Some("root".into()),
            group: None,
            size: 6,
            modified: i64::MIN,
            target: None,
            dangling: false,
            content: Some(b"one\ntwo\x1b[2J\n".to_vec()),
        }
    }

    #[test]
    fn a_failure_shows_what_there_is() {
        let file = File::new(b"/etc/x", Answer { entry: Some(entry()), nearest: None });
        file.assert_exists().assert_kind(Kind::File).assert_owner("root").assert_owner("0").assert_group("42");
        file.assert_mode(0o600).assert_size(6).assert_contains("two").assert_content("one\ntwo\x1b[2J\n");
        assert_eq!(
            said(|| file.assert_mode(0o644)),
            "expected: /etc/x has the mode 0644\n   \
             found: /etc/x: file, mode 0600, owner root (0), group (42), 6 bytes"
        );
        assert_eq!(
            said(|| file.assert_contains("three")),
            "expected: /etc/x contains \"three\"\n   \
             found: /etc/x: file, mode 0600, owner root (0), group (42), 6 bytes\n              one\n              two"
        );
        assert!(said(|| file.assert_content("")).starts_with("expected: /etc/x has this content:\n    (it is empty)"));
        assert!(said(|| file.assert_absent()).starts_with("expected: /etc/x does not exist"));
    }

    #[test]
    fn what_is_not_there_shows_its_neighbours() {
        let nearest = Some((b"/etc".to_vec(), vec![b"xdg".to_vec(), b"y\n".to_vec()]));
        let file = File::new(b"/etc/x", Answer { entry: None, nearest });
        file.assert_absent();
        let expected =
            "expected: /etc/x has the mode 0644\n   found: /etc/x: there is nothing; in /etc there is xdg, y";
        assert_eq!(said(|| file.assert_mode(0o644)), expected);
        assert!(said(|| file.assert_contains("x")).ends_with("xdg, y"));
    }

    #[test]
    fn a_link_is_a_link() {
        let link = protocol::Entry {
            kind: protocol::Kind::Link,
            target: Some(b"nowhere".to_vec()),
            dangling: true,
            content: None,
            ..entry()
        };
        let file = File::new(b"/x", Answer { entry: Some(link), nearest: None });
        file.assert_target("nowhere");
        let told = said(|| file.assert_content("x"));
        assert!(told.contains("symbolic link") && told.contains("to nowhere, which is not there"), "{told}");
    }
}
