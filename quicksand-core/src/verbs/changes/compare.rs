//! The files of two surveys beside each other.

use std::cmp::Ordering;

use super::{
    files::{File, OwnKind},
    survey::Survey,
};

/// A file in which two surveys differ, or may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Difference<'a> {
    pub(crate) before: Option<&'a File>,
    pub(crate) after: Option<&'a File>,
    pub(crate) content: Content,
    /// Whether something was done to what was there before and still is: its attributes may differ.
    pub(crate) touched: bool,
}

/// Whether a regular file has other content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Same,
    /// It is as long as before, and something was done to it.
    Unknown,
    Other,
}

impl<'a> Difference<'a> {
    pub(crate) fn file(&self) -> &'a File {
        self.after.or(self.before).expect("a difference is of a file that is there or was")
    }

    /// Whether anything but the content differs.
    pub(crate) fn differs_outside(&self) -> bool {
        match (self.before, self.after) {
            (Some(before), Some(after)) => differs_outside(before, after),
            _ => true,
        }
    }
}

/// What differs, or may, and is not ignored, in the order of paths.
pub(crate) fn differences<'a>(
    before: &'a Survey,
    after: &'a Survey,
    ignored: impl Fn(&[u8]) -> bool,
) -> Vec<Difference<'a>> {
    // What lies under a mount can't be seen, and so has neither come nor gone.
    let mounts: Vec<&[u8]> = [before, after]
        .into_iter()
        .flat_map(|survey| survey.files.iter())
        .filter(|file| file.kind == OwnKind::Mount)
        .map(|file| &*file.path)
        .collect();
    let mounted = |path: &[u8]| {
        mounts.iter().any(|mount| path.strip_prefix(*mount).is_some_and(|rest| rest.is_empty() || rest[0] == b'/'))
    };
    let mut differences = Vec::new();
    let (mut befores, mut afters) = (before.files.iter().peekable(), after.files.iter().peekable());
    loop {
        let order = match (befores.peek(), afters.peek()) {
            (Some(before), Some(after)) => before.path.cmp(&after.path),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let before = if order.is_le() { befores.next() } else { None };
        let after = if order.is_ge() { afters.next() } else { None };
        let content = match (before, after) {
            (Some(before), Some(after)) => content(before, after),
            _ => Content::Same,
        };
        let touched = match (before, after) {
            (Some(before), Some(after)) => before.changed_ns != after.changed_ns,
            _ => false,
        };
        let difference = Difference { before, after, content, touched };
        if content == Content::Same && !touched && !difference.differs_outside() {
            continue;
        }
        let path = &difference.file().path;
        if !mounted(path) && !ignored(path) {
            differences.push(difference);
        }
    }
    differences.sort_by(|one, other| one.file().path().cmp(other.file().path()));
    differences
}

fn content(before: &File, after: &File) -> Content {
    match (&before.kind, &after.kind) {
        (OwnKind::File(one), OwnKind::File(other)) if one != other => Content::Other,
        // The kernel notes every change here, of the content as of all else, and no program can turn it back.
        (OwnKind::File(_), OwnKind::File(_)) if before.changed_ns != after.changed_ns => Content::Unknown,
        _ => Content::Same,
    }
}

/// Whether kinds, owners or modes differ. A symbolic link has no mode.
fn differs_outside(before: &File, after: &File) -> bool {
    let kinds_differ = match (&before.kind, &after.kind) {
        (OwnKind::File(_), OwnKind::File(_)) => false,
        (before, after) => before != after,
    };
    let modes_differ = before.mode != after.mode && !matches!(after.kind, OwnKind::Symlink(_));
    kinds_differ || modes_differ || (before.uid, before.gid) != (after.uid, after.gid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::changes::{files::tests::files, survey::Facts};

    fn survey(entries: &[(&str, i64)]) -> Survey {
        Survey { files: files(entries), facts: Facts::default(), index: Vec::new() }
    }

    fn shown(before: &Survey, after: &Survey) -> Vec<String> {
        let ignored = |path: &[u8]| path.starts_with(b"/var/log");
        let line = |difference: &Difference<'_>| {
            let sign = match (difference.before, difference.after) {
                (None, _) => '+',
                (_, None) => '-',
                _ => '~',
            };
            format!("{sign} {} {:?}", difference.file().path().display(), difference.content)
        };
        let all = differences(before, after, ignored);
        let told = |difference: &&Difference<'_>| difference.content != Content::Same || difference.differs_outside();
        all.iter().filter(told).map(line).collect()
    }

    #[test]
    fn what_came_and_went_is_told_in_the_order_of_paths() {
        let before = survey(&[("/a", 1), ("/b/", 1), ("/b/x", 1), ("/l -> a", 1), ("/var/log/x", 1), ("/d/", 1)]);
        let after =
            survey(&[("/a", 1), ("/b/x", 2), ("/b/", 2), ("/b-/", 1), ("/l -> b", 2), ("/var/log/y", 1), ("/d", 1)]);
        assert_eq!(shown(&before, &after), ["~ /b/x Unknown", "+ /b- Same", "~ /d Same", "~ /l Same"]);
        assert_eq!(shown(&after, &before)[1], "- /b- Same");
        assert!(shown(&before, &before).is_empty());
        let after = survey(&[("/a", 1), ("/b/", 2)]);
        let all = differences(&before, &after, |_| false);
        let touched: Vec<_> = all.iter().filter(|one| one.touched).map(|one| one.file().path()).collect();
        assert_eq!(touched, [std::path::Path::new("/b")]);
    }

    #[test]
    fn what_is_under_a_mount_has_not_gone() {
        let before = survey(&[("/m/", 1), ("/m/x", 1), ("/mx", 1)]);
        let mut after = survey(&[("/m/", 2)]);
        assert_eq!(shown(&before, &after), ["- /m/x Same", "- /mx Same"]);
        after.files = {
            use quicksand_protocol::index::{Encoder, Entry, Kind};
            let entry = Entry { path: b"/m", kind: Kind::Mount, mode: 0o755, uid: 0, gid: 0, changed_ns: 0 };
            crate::verbs::changes::files::Files::decode(&Encoder::default().encode(&entry, Vec::new())).unwrap()
        };
        assert_eq!(shown(&before, &after), ["- /mx Same"]);
    }
}
