//! Users and groups, from `/etc/passwd` and `/etc/group`.

use std::path::Path;

use quicksand_protocol::facts::{Account, User};

use super::{LIST_LIMIT, read, text};
use crate::users::{lines, number};

/// How many users are told of where there is none of that name.
const OTHERS: usize = 100;

/// A user and what is known of it.
pub(super) fn look(name: &str, root: &Path) -> User {
    let (passwd, group) = (list(root, "passwd"), list(root, "group"));
    let entries = || lines(&passwd).filter(|fields| fields.len() >= 7);
    let Some(fields) = entries().find(|fields| fields[0] == name.as_bytes()) else {
        return User { account: None, others: entries().take(OTHERS).map(|fields| text(fields[0])).collect() };
    };
    let (Some(uid), Some(gid)) = (number(fields[2]), number(fields[3])) else { return User::default() };
    let own = name_of(&group, gid).unwrap_or_else(|| gid.to_string());
    let is_member =
        |entry: &Vec<&[u8]>| entry.len() >= 4 && entry[3].split(|byte| *byte == b',').any(|user| user == fields[0]);
    let others = lines(&group).filter(is_member).map(|entry| text(entry[0])).filter(|name| *name != own);
    let mut groups = vec![own.clone()];
    groups.extend(others);
    let account =
        Account { uid, gid, groups, comment: text(fields[4]), home: fields[5].to_vec(), shell: fields[6].to_vec() };
    User { account: Some(account), others: Vec::new() }
}

/// The names of an owner and of a group, where they have some.
pub(super) fn names(uid: u32, gid: u32, root: &Path) -> (Option<String>, Option<String>) {
    (name_of(&list(root, "passwd"), uid), name_of(&list(root, "group"), gid))
}

fn list(root: &Path, file: &str) -> Vec<u8> {
    // An image of a container may have none.
    read(&root.join("etc").join(file), LIST_LIMIT).unwrap_or_default()
}

fn name_of(list: &[u8], wanted: u32) -> Option<String> {
    lines(list).find(|fields| fields.len() >= 4 && number(fields[2]) == Some(wanted)).map(|fields| text(fields[0]))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::facts::tests::root;

    #[test]
    fn a_user_has_groups_and_a_missing_one_has_others() {
        let root = root(&[
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann,,,:/home/ann:/bin/ash\nbad:x::y\n"),
            ("etc/group", "root:x:0:\nwheel:x:10:root,ann\nann:x:1000:ann\nannex:x:5:anna\n"),
        ]);
        let ann = look("ann", &root).account.unwrap();
        assert_eq!((ann.uid, &ann.groups[..]), (1000, &["ann".to_owned(), "wheel".to_owned()][..]));
        assert_eq!((&*ann.comment, &*ann.home, &*ann.shell), ("Ann,,,", &b"/home/ann"[..], &b"/bin/ash"[..]));
        assert_eq!(look("bob", &root), User { account: None, others: vec!["root".into(), "ann".into()] });
        assert_eq!(names(1000, 10, &root), (Some("ann".into()), Some("wheel".into())));
        assert_eq!(names(7, 7, &root), (None, None));
        fs::remove_dir_all(root).unwrap();
    }
}
