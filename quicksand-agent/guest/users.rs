//! The guest's users, from its own files: the C library's look-up needs plug-ins that a static program can't load.

use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt, path::PathBuf};

use quicksand_protocol::message::Failure;

/// How much is told of a name that nobody has.
const LONGEST_MESSAGE: usize = 300;

/// A user of the guest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: OsString,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: PathBuf,
    pub(crate) shell: OsString,
}

impl User {
    /// Whether programs of this user need no other identity than the agent's.
    pub(crate) fn is_plain_root(&self) -> bool {
        (self.uid, self.gid, self.groups.as_slice()) == (0, 0, &[0])
    }

    /// One of whom no file knows: as engines of containers have it, of the group 0 and at home in the root directory.
    fn unknown(uid: u32, home: &str, name: String) -> User {
        let (home, shell) = (home.into(), "/bin/sh".into());
        User { name: name.into(), uid, gid: 0, groups: vec![0], home, shell }
    }
}

/// Finds a user as the host names it: `user` or `user:group`, each by its name, or by its number where no name fits.
pub(crate) fn find(wanted: &[u8]) -> Result<User, Failure> {
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    let group = fs::read("/etc/group").unwrap_or_default();
    lookup(wanted, &passwd, &group)
        .map_err(|message| Failure { errno: 0, message: message.chars().take(LONGEST_MESSAGE).collect() })
}

fn lookup(wanted: &[u8], passwd: &[u8], group: &[u8]) -> Result<User, String> {
    let (name, of_group) = match wanted.iter().position(|&byte| byte == b':') {
        Some(at) => (&wanted[..at], Some(&wanted[at + 1..])),
        None => (wanted, None),
    };
    let unknown = |what: &str, file: &str, name: &[u8]| {
        format!("find {what} {:?} in the guest's {file}", String::from_utf8_lossy(name))
    };
    let user = of_passwd(name, passwd, group).or_else(|| match (name, id(name)) {
        // An image may have no users file at all, but it has a root.
        (b"root", _) | (_, Some(0)) => Some(User::unknown(0, "/root", "root".to_owned())),
        (_, Some(uid)) => Some(User::unknown(uid, "/", uid.to_string())),
        _ => None,
    });
    let user = user.ok_or_else(|| unknown("user", "/etc/passwd", name))?;
    let Some(name) = of_group else { return Ok(user) };
    let entries = || lines(group).filter(|fields| fields.len() >= 3);
    let named = entries().find(|fields| fields[0] == name).and_then(|fields| id(fields[2]));
    let gid = named.or_else(|| id(name)).ok_or_else(|| unknown("group", "/etc/group", name))?;
    // The one that is named and no other, as with engines of containers.
    Ok(User { gid, groups: vec![gid], ..user })
}

fn of_passwd(wanted: &[u8], passwd: &[u8], group: &[u8]) -> Option<User> {
    let text = |field: &[u8]| OsString::from_vec(field.to_vec());
    let or = |field: &[u8], default: &str| if field.is_empty() { default.into() } else { text(field) };
    let entries = || lines(passwd).filter(|fields| fields.len() >= 7);
    let by_number = || id(wanted).and_then(|uid| entries().find(|fields| id(fields[2]) == Some(uid)));
    let fields = entries().find(|fields| fields[0] == wanted).or_else(by_number)?;
    let gid = id(fields[3])?;
    let mut groups = vec![gid];
    for entry in lines(group).filter(|entry| entry.len() >= 4) {
        if entry[3].split(|&b| b == b',').any(|member| member == fields[0]) {
            groups.extend(id(entry[2]).filter(|gid| !groups.contains(gid)));
        }
    }
    Some(User {
        name: text(fields[0]),
        uid: id(fields[2])?,
        gid,
        groups,
        home: or(fields[5], "/").into(),
        shell: or(fields[6], "/bin/sh"),
    })
}

/// The number of a user or group: all but the largest, which the kernel takes for none.
fn id(field: &[u8]) -> Option<u32> {
    number(field).filter(|id| *id != u32::MAX && field.iter().all(u8::is_ascii_digit))
}

pub(crate) fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|&b| b == b'\n').map(|line| line.split(|&b| b == b':').collect())
}

pub(crate) fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000:,,,:/home/ann:\nbroken\n7:x:8:8::/:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nann:x:1000:\nsudo:x:27:bob,ann\nannex:x:28:anna\n";

    #[test]
    fn finds_by_name_and_number_with_groups() {
        let ann = lookup(b"ann", PASSWD, GROUP).unwrap();
        assert_eq!((ann.uid, ann.gid, &ann.groups[..]), (1000, 1000, &[1000, 27][..]));
        assert_eq!((ann.home.to_str(), ann.shell.to_str()), (Some("/home/ann"), Some("/bin/sh")));
        assert_eq!(lookup(b"1000", PASSWD, GROUP).unwrap(), ann);
    }

    #[test]
    fn a_name_goes_before_a_number() {
        assert_eq!(lookup(b"7", PASSWD, GROUP).unwrap().uid, 8);
    }

    #[test]
    fn no_name_is_made_up_but_root() {
        assert_eq!(lookup(b"carl", PASSWD, GROUP).unwrap_err(), "find user \"carl\" in the guest's /etc/passwd");
        for wanted in [&b"-1"[..], b"+5", b"", b"4294967295", b"99999999999", b"5 ", b"5x", b":5", b":"] {
            lookup(wanted, PASSWD, GROUP).unwrap_err();
        }
        for wanted in [&b"root"[..], b"0", b"root:0"] {
            let root = lookup(wanted, b"", b"").unwrap();
            assert!(root.is_plain_root() && root.home.to_str() == Some("/root"), "{root:?}");
        }
    }

    #[test]
    fn a_number_needs_no_entry() {
        let user = lookup(b"12345", PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid, &user.groups[..]), (12345, 0, &[0][..]));
        assert_eq!((user.name.to_str(), user.home.to_str()), (Some("12345"), Some("/")));
        assert_eq!((user.shell.to_str(), user.is_plain_root()), (Some("/bin/sh"), false));
        assert_eq!(lookup(b"4294967294:4294967294", b"", b"").unwrap().gid, u32::MAX - 1);
        assert_eq!(lookup(b"008", PASSWD, GROUP).unwrap().uid, 8);
    }

    #[test]
    fn a_group_that_is_named_is_the_only_one() {
        for (wanted, expected) in
            [(&b"ann:sudo"[..], (1000, 27)), (b"1000:5", (1000, 5)), (b"77:sudo", (77, 27)), (b"0:5", (0, 5))]
        {
            let user = lookup(wanted, PASSWD, GROUP).unwrap();
            assert_eq!((user.uid, user.gid, &user.groups[..]), (expected.0, expected.1, &[expected.1][..]));
            assert!(!user.is_plain_root());
        }
        let error = lookup(b"ann:wheel", PASSWD, GROUP).unwrap_err();
        assert_eq!(error, "find group \"wheel\" in the guest's /etc/group");
        for wanted in [&b"ann:"[..], b"ann:a:b", b"ann:-1", b"ann:4294967295"] {
            lookup(wanted, PASSWD, GROUP).unwrap_err();
        }
    }

    #[test]
    fn what_an_entry_leaves_out_is_filled_in() {
        let user = lookup(b"bare", b"bare:x:5:5:::\n", b"").unwrap();
        assert_eq!((user.home.to_str(), user.shell.to_str()), (Some("/"), Some("/bin/sh")));
    }
}
