//! Changes as text: the same in each run, one line for each, in an order of its own for nothing but paths and names.

use std::{
    fmt::{self, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use super::{Attribute, Changes, FileChange, FileKind, FileState, PackageChange, UnitChange, UnitState};

/// For people and for snapshots: a heading and a line for each, and nothing that changes from run to run.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "nothing has changed");
        }
        let kinds = [("added", (false, true)), ("changed", (true, true)), ("removed", (true, false))];
        for (what, kind) in kinds {
            let of = self.files.iter().filter(|c| (c.before.is_some(), c.after.is_some()) == kind);
            section(f, "files", what, of)?;
        }
        for (what, kind) in kinds {
            let of = self.packages.iter().filter(|c| (c.before.is_some(), c.after.is_some()) == kind);
            section(f, "packages", what, of)?;
        }
        for (what, kind) in kinds {
            let of = self.units.iter().filter(|c| (c.before.is_some(), c.after.is_some()) == kind);
            section(f, "units", what, of)?;
        }
        Ok(())
    }
}

fn section<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    of: &str,
    what: &str,
    changes: impl Iterator<Item = T>,
) -> fmt::Result {
    for (number, change) in changes.enumerate() {
        if number == 0 {
            writeln!(f, "{of} {what}:")?;
        }
        writeln!(f, "  {change}")?;
    }
    Ok(())
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Shown(&self.path))?;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => self.fmt_difference(f, before, after),
            (Some(state), None) | (None, Some(state)) => write!(f, "{state}"),
            (None, None) => Ok(()),
        }
    }
}

impl FileChange {
    fn fmt_difference(&self, f: &mut fmt::Formatter<'_>, before: &FileState, after: &FileState) -> fmt::Result {
        if before.kind.name() != after.kind.name() {
            write!(f, "  {} => {}", before.kind.name(), after.kind.name())?;
            return after.fmt_details(f);
        }
        match (&before.kind, &after.kind) {
            (FileKind::File { size: before }, FileKind::File { size: after }) if before != after => {
                write!(f, "  {before} B => {after} B")?;
            }
            (FileKind::Symlink { target: before }, FileKind::Symlink { target: after }) if before != after => {
                write!(f, " -> {} => {}", Shown(before), Shown(after))?;
            }
            _ if self.content => f.write_str("  other content")?,
            _ => {}
        }
        if before.mode != after.mode {
            write!(f, "  {:04o} => {:04o}", before.mode, after.mode)?;
        }
        if (&before.owner, &before.group) != (&after.owner, &after.group) {
            write!(f, "  {}:{} => {}:{}", before.owner, before.group, after.owner, after.group)?;
        }
        for new in after.attributes.iter().filter(|one| !before.attributes.contains(one)) {
            write!(f, "  {new}")?;
        }
        let gone = |old: &&Attribute| after.attributes.iter().all(|one| one.name != old.name);
        for old in before.attributes.iter().filter(gone) {
            write!(f, "  no {}", Shown(Path::new(&old.name)))?;
        }
        Ok(())
    }
}

/// What follows the path.
impl fmt::Display for FileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(self.kind, FileKind::File { .. } | FileKind::Symlink { .. }) {
            write!(f, "  {}", self.kind.name())?;
        }
        self.fmt_details(f)
    }
}

impl FileState {
    /// All but the kind.
    fn fmt_details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, mode, owner, group, attributes } = self;
        match kind {
            FileKind::Symlink { target } => write!(f, " -> {}  {owner}:{group}", Shown(target)),
            FileKind::File { size } => write!(f, "  {mode:04o} {owner}:{group} {size} B"),
            _ => write!(f, "  {mode:04o} {owner}:{group}"),
        }?;
        attributes.iter().try_for_each(|attribute| write!(f, "  {attribute}"))
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Shown(Path::new(&self.name)), Shown(Path::new(&self.value)))
    }
}

impl FileKind {
    fn name(&self) -> &'static str {
        match self {
            FileKind::File { .. } => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink { .. } => "link",
            FileKind::Fifo => "pipe",
            FileKind::Socket => "socket",
            FileKind::BlockDevice => "block device",
            FileKind::CharacterDevice => "character device",
        }
    }
}

impl fmt::Display for PackageChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Shown(Path::new(&self.name));
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{name}  {} => {}", Shown(before.as_ref()), Shown(after.as_ref())),
            (version, None) | (None, version) => {
                write!(f, "{name}  {}", Shown(version.as_deref().unwrap_or("").as_ref()))
            }
        }
    }
}

impl fmt::Display for UnitChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Shown(Path::new(&self.name));
        match (self.before, self.after) {
            (Some(before), Some(after)) => write!(f, "{name}  {before} => {after}"),
            (Some(state), None) | (None, Some(state)) => write!(f, "{name}  {state}"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for UnitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UnitState::NotEnabled => "not enabled",
            UnitState::Enabled => "enabled",
            UnitState::Masked => "masked",
        })
    }
}

/// A guest's words on one line: what is not text, or would do something to a terminal, is escaped.
struct Shown<'a>(&'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.as_os_str().as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?
                } else {
                    f.write_char(character)?
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, path::PathBuf};

    use super::*;

    fn state(kind: FileKind, mode: u32, owner: &str) -> Option<FileState> {
        Some(FileState { kind, mode, owner: owner.into(), group: "root".into(), attributes: Vec::new() })
    }

    fn change(path: &str, before: Option<FileState>, after: Option<FileState>, content: bool) -> FileChange {
        FileChange { path: PathBuf::from(path), before, after, content }
    }

    #[test]
    fn each_change_has_a_line() {
        let file = |size, mode, owner| state(FileKind::File { size }, mode, owner);
        let link = |target: &str| state(FileKind::Symlink { target: target.into() }, 0o777, "root");
        let package = |name: &str, before: Option<&str>, after: Option<&str>| PackageChange {
            name: name.into(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        let unit = |name: &str, before, after| UnitChange { name: name.into(), before, after };
        let changes = Changes {
            files: vec![
                change("/etc/a", None, file(3, 0o600, "ann"), false),
                change("/etc/b", file(3, 0o644, "root"), file(4, 0o644, "root"), true),
                change("/etc/c", file(3, 0o644, "root"), file(3, 0o4755, "ann"), true),
                change("/etc/d", file(3, 0o644, "root"), link("/b"), false),
                change("/etc/e", link("a"), link("b"), false),
                change("/etc/f", None, state(FileKind::Directory, 0o1777, "root"), false),
                change("/etc/g", link("a"), None, false),
            ],
            packages: vec![package("jq", None, Some("1.6")), package("vim", Some("1"), Some("2"))],
            units: vec![
                unit("a.service", None, Some(UnitState::Enabled)),
                unit("b.service", Some(UnitState::Masked), Some(UnitState::NotEnabled)),
            ],
            image: "debian".into(),
        };
        let wanted = "files added:
  /etc/a  0600 ann:root 3 B
  /etc/f  directory  1777 root:root
files changed:
  /etc/b  3 B => 4 B
  /etc/c  other content  0644 => 4755  root:root => ann:root
  /etc/d  file => link -> /b  root:root
  /etc/e -> a => b
files removed:
  /etc/g -> a  root:root
packages added:
  jq  1.6
packages changed:
  vim  1 => 2
units added:
  a.service  enabled
units changed:
  b.service  masked => not enabled
";
        assert_eq!(changes.to_string(), wanted);
        let none = Changes { files: vec![], packages: vec![], units: vec![], image: String::new() };
        assert_eq!(none.to_string(), "nothing has changed\n");
    }

    #[test]
    fn what_a_guest_names_stays_on_its_line() {
        let path = Path::new(OsStr::from_bytes(b"/a\nb\x1b[2J\xffc/\xc3\xa9"));
        assert_eq!(Shown(path).to_string(), "/a\\nb\\u{1b}[2J\\xffc/é");
    }
}
