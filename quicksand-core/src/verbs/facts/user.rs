//! Users.

use std::{
    ffi::OsString,
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use quicksand_protocol::facts::{Question, User as Answer};

use super::{Query, assert_fact, listed, shown, shown_bytes};

/// Asks about a user, by name. What `/etc/passwd` does not have, as users of a directory on the network, is not found.
pub fn user(name: impl Into<String>) -> Query<User> {
    let name = name.into();
    if name.is_empty() || name.len() > 255 || name.contains([':', ',', '\n', '\0']) {
        return Query::refused("user", name, "use a name without ':' and ','");
    }
    Query::of(Question::User { name })
}

/// A user of the guest, there or not. `to_string()` tells all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The name.
    pub name: String,
    /// The account. `None` where there is no such user.
    pub account: Option<Account>,
    others: Vec<String>,
}

/// A user's account.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The number of the user's own group.
    pub gid: u32,
    /// The names of all groups, the user's own first; a number where one has no name.
    pub groups: Vec<String>,
    /// What the account says of the person.
    pub comment: String,
    /// Home directory.
    pub home: PathBuf,
    /// Shell.
    pub shell: PathBuf,
}

impl User {
    pub(crate) fn new(name: &str, answer: Answer) -> User {
        let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
        let account = answer.account.map(|account| Account {
            uid: account.uid,
            gid: account.gid,
            groups: account.groups,
            comment: account.comment,
            home: path(account.home),
            shell: path(account.shell),
        });
        User { name: name.to_owned(), account, others: answer.others }
    }

    /// Whether there is such a user.
    pub fn exists(&self) -> bool {
        self.account.is_some()
    }

    /// Panics unless there is such a user.
    #[track_caller]
    pub fn assert_exists(&self) -> &User {
        assert_fact(self, self.exists(), format_args!("there is a user {}", self.name));
        self
    }

    /// Panics if there is such a user.
    #[track_caller]
    pub fn assert_absent(&self) -> &User {
        assert_fact(self, !self.exists(), format_args!("there is no user {}", self.name));
        self
    }

    /// Panics unless the user has this number.
    #[track_caller]
    pub fn assert_uid(&self, uid: u32) -> &User {
        self.assert_account(|account| account.uid == uid, format_args!("has the number {uid}"))
    }

    /// Panics unless the user's own group has this name, or this number.
    #[track_caller]
    pub fn assert_group(&self, group: &str) -> &User {
        let own = |account: &Account| {
            account.groups.first().is_some_and(|own| own == group) || group.parse() == Ok(account.gid)
        };
        self.assert_account(own, format_args!("has the group {group}"))
    }

    /// Panics unless the user is in the group of this name.
    #[track_caller]
    pub fn assert_in_group(&self, group: &str) -> &User {
        let member = |account: &Account| account.groups.iter().any(|name| name == group);
        self.assert_account(member, format_args!("is in the group {group}"))
    }

    /// Panics unless the user has this home directory.
    #[track_caller]
    pub fn assert_home(&self, home: impl AsRef<Path>) -> &User {
        let home = home.as_ref();
        self.assert_account(|account| account.home == home, format_args!("has the home directory {}", home.display()))
    }

    /// Panics unless the user has this shell.
    #[track_caller]
    pub fn assert_shell(&self, shell: impl AsRef<Path>) -> &User {
        let shell = shell.as_ref();
        self.assert_account(|account| account.shell == shell, format_args!("has the shell {}", shell.display()))
    }

    #[track_caller]
    fn assert_account(&self, holds: impl FnOnce(&Account) -> bool, expected: fmt::Arguments<'_>) -> &User {
        let holds = self.account.as_ref().is_some_and(holds);
        assert_fact(self, holds, format_args!("the user {} {expected}", self.name));
        self
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(account) = &self.account else {
            return write!(f, "user {}: there is none; there is {}", self.name, listed(&self.others));
        };
        let path = |path: &Path| shown_bytes(path.as_os_str().as_bytes());
        let Account { uid, gid, groups, comment, home, shell } = account;
        write!(f, "user {}: number {uid}, groups {} (own: {gid}), ", self.name, listed(groups))?;
        write!(f, "home {}, shell {}, comment {:?}", path(home), path(shell), shown(comment))
    }
}

#[cfg(test)]
mod tests {
    use quicksand_protocol::facts as protocol;

    use super::super::tests::said;
    use super::*;

    #[test]
    fn a_failure_shows_the_account_or_the_others() {
        let account = protocol::Account {
            uid: 1000,
            gid: 1000,
            groups: vec!["ann".into(), "sudo".into()],
            comment: "Ann".into(),
            home: b"/home/ann".to_vec(),
            shell: b"/bin/sh".to_vec(),
        };
        let ann = User::new("ann", Answer { account: Some(account), others: vec![] });
        ann.assert_exists().assert_uid(1000).assert_group("ann").assert_group("1000").assert_in_group("sudo");
        ann.assert_home("/home/ann").assert_shell("/bin/sh");
        assert_eq!(
            said(|| ann.assert_in_group("wheel")),
            "expected: the user ann is in the group wheel\n   \
             found: user ann: number 1000, groups ann, sudo (own: 1000), home /home/ann, shell /bin/sh, comment \"Ann\""
        );
        let none = User::new("bob", Answer { account: None, others: vec!["root".into(), "ann".into()] });
        none.assert_absent();
        assert!(said(|| none.assert_uid(1)).ends_with("user bob: there is none; there is root, ann"));
    }
}
