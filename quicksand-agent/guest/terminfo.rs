//! Which kinds of terminals the guest knows: a program that finds a `TERM` without a description draws nothing, or garbage.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Where systems keep descriptions of terminals.
const DIRECTORIES: [&str; 5] =
    ["/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo", "/usr/lib/terminfo", "/usr/local/share/terminfo"];
/// What is taken in place of a kind that the guest does not know: terminals of today understand what these do.
const COMMON: [&str; 6] = ["xterm-256color", "xterm", "linux", "vt100", "ansi", "dumb"];

/// The kind of terminal that the guest knows which is nearest to the one that is wanted, for a user with that home. An empty
/// name stands for the first of the common ones.
pub(crate) fn nearest(wanted: &OsStr, home: &Path) -> OsString {
    nearest_in(wanted, DIRECTORIES.iter().map(PathBuf::from).chain([home.join(".terminfo")]).collect())
}

fn nearest_in(wanted: &OsStr, directories: Vec<PathBuf>) -> OsString {
    let known = |name: &OsStr| directories.iter().any(|directory| describes(directory, name));
    let relatives = shortened(wanted.as_bytes()).map(OsStr::from_bytes);
    let common = COMMON.iter().map(OsStr::new);
    let found = relatives.chain(common.clone()).find(|name| known(name)).map(OsStr::to_owned);
    // Of a guest without any description, programs know some kinds by themselves: these.
    found.unwrap_or_else(|| common.clone().find(|name| *name == wanted).unwrap_or(OsStr::new(COMMON[0])).to_owned())
}

/// A name, and what is left of it without its last words: `foot-extra` is a `foot` with something more. Not so the many that
/// are called `xterm-…` to be taken for one: they know more than the plain `xterm` does.
fn shortened(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = (!name.is_empty()).then_some(name);
    std::iter::successors(whole, |name| {
        let name: &[u8] = name;
        let end = name.iter().rposition(|&byte| byte == b'-')?;
        (end > 0 && &name[..end] != b"xterm").then(|| &name[..end])
    })
}

/// Whether a directory has a description of that name: below its first letter or, as some systems have it, that letter's number.
fn describes(directory: &Path, name: &OsStr) -> bool {
    let Some(&first) = name.as_bytes().first() else { return false };
    if first == b'.' || name.as_bytes().contains(&b'/') {
        return false;
    }
    let letter = OsStr::from_bytes(std::slice::from_ref(&first));
    [letter, OsStr::new(&format!("{first:x}"))].iter().any(|below| directory.join(below).join(name).is_file())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn nearest(wanted: &str, known: &[&str]) -> String {
        let root = tempfile::tempdir().unwrap();
        for path in known {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let directories = vec![root.path().join("missing"), root.path().to_owned()];
        nearest_in(OsStr::new(wanted), directories).into_string().unwrap()
    }

    #[test]
    fn a_kind_that_is_known_is_kept() {
        let known = ["x/xterm-256color", "f/foot", "d/dumb", "74/tmux-256color"];
        for name in ["foot", "dumb", "tmux-256color", "xterm-256color"] {
            assert_eq!(nearest(name, &known), name);
        }
    }

    #[test]
    fn another_is_replaced_by_its_nearest() {
        let known = ["x/xterm", "x/xterm-256color", "f/foot", "s/screen", "d/dumb", "t/tmux", "etc", "x/x"];
        for (name, nearest_one) in [
            ("xterm-kitty", "xterm-256color"),
            ("xterm-ghostty", "xterm-256color"),
            ("alacritty", "xterm-256color"),
            ("foot-extra", "foot"),
            ("screen-256color-bce", "screen"),
            ("tmux-256color", "tmux"),
            ("", "xterm-256color"),
            ("../etc", "xterm-256color"),
            ("x/../etc", "xterm-256color"),
            (".", "xterm-256color"),
            ("-", "xterm-256color"),
        ] {
            assert_eq!(nearest(name, &known), nearest_one, "{name:?}");
        }
        assert_eq!(nearest("xterm-kitty", &["x/xterm", "d/dumb"]), "xterm");
        assert_eq!(nearest("xterm-kitty", &["6c/linux"]), "linux");
    }

    #[test]
    fn where_none_is_described_programs_know_the_common_ones() {
        assert_eq!(nearest("dumb", &[]), "dumb");
        assert_eq!(nearest("linux", &[]), "linux");
        assert_eq!(nearest("foot", &[]), "xterm-256color");
    }
}
