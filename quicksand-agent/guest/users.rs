//! The guest's users, from its own files: the C library's look-up needs plug-ins that a static program can't load.

use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt, path::PathBuf};

use quicksand_protocol::message::Failure;

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

/// Finds a user by name, or by number where no name fits.
pub(crate) fn find(wanted: &[u8]) -> Result<User, Failure> {
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    let group = fs::read("/etc/group").unwrap_or_default();
    lookup(wanted, &passwd, &group).ok_or_else(|| Failure {
        errno: 0,
        message: format!("find user {:?} in the guest's /etc/passwd", String::from_utf8_lossy(wanted)),
    })
}

fn lookup(wanted: &[u8], passwd: &[u8], group: &[u8]) -> Option<User> {
    let text = |field: &[u8]| OsString::from_vec(field.to_vec());
    let entries = || lines(passwd).filter(|fields| fields.len() >= 7);
    let found = entries().find(|fields| fields[0] == wanted).or_else(|| entries().find(|fields| fields[2] == wanted));
    let Some(fields) = found else {
        // An image may have no users file at all, but it has a root.
        return (wanted == b"root" || wanted == b"0").then(|| User {
            name: "root".into(),
            uid: 0,
            gid: 0,
            groups: vec![0],
            home: "/root".into(),
            shell: "/bin/sh".into(),
        });
    };
    let gid = number(fields[3])?;
    let mut groups = vec![gid];
    for entry in lines(group).filter(|entry| entry.len() >= 4) {
        if entry[3].split(|&b| b == b',').any(|member| member == fields[0]) {
            groups.extend(number(entry[2]).filter(|gid| !groups.contains(gid)));
        }
    }
    Some(User {
        name: text(fields[0]),
        uid: number(fields[2])?,
        gid,
        groups,
        home: text(fields[5]).into(),
        shell: if fields[6].is_empty() { "/bin/sh".into() } else { text(fields[6]) },
    })
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
    fn nobody_is_made_up_but_root() {
        assert_eq!(lookup(b"carl", PASSWD, GROUP), None);
        assert_eq!(lookup(b"root", b"", b"").unwrap().uid, 0);
    }
}
