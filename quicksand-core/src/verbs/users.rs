//! The guest's users.

use std::time::Duration;

use nix::libc;
use quicksand_protocol::message::Request;

use crate::{
    error::{Error, Result},
    guest::ChannelError,
    sandbox::Sandbox,
};

/// How long the guest may take: a program of its own may hold the lock on its users for a while.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest name that Linux's own programs take.
const LONGEST_NAME: usize = 32;

impl Sandbox {
    /// Makes a user in the guest, with a group of its own and a home directory from `/etc/skel`, whatever programs the guest has
    /// for it. The user has no password; [`Command::user`](crate::Command::user) needs none.
    ///
    /// # Errors
    ///
    /// [`Error::UserExists`], [`Error::BadUserName`]; [`Error::Guest`] where the guest's files can't be written.
    pub async fn create_user(&self, name: &str) -> Result<()> {
        if !is_name(name) {
            return Err(Error::BadUserName { name: name.to_owned() });
        }
        let vm = self.vm().await?;
        match vm.channel().request(&Request::CreateUser { name: name.to_owned() }, PATIENCE).await {
            Ok(_) => Ok(()),
            Err(ChannelError::Guest { errno: libc::EEXIST, .. }) => Err(Error::UserExists { name: name.to_owned() }),
            Err(error) => Err(vm.explain(error).await),
        }
    }
}

/// Checks what a command's user is called: `user` or `user:group`, each a name or a number that the kernel takes.
pub(crate) fn check(user: &[u8]) -> Result<()> {
    let bad = |why: &str| {
        let user = String::from_utf8_lossy(user);
        let why = format!("{user:?} {why}; name it as in ann, 1000, ann:staff or 1000:1000");
        Err(Error::BadOption { option: "user", why })
    };
    let parts: Vec<_> = user.split(|&byte| byte == b':').collect();
    for part in &parts {
        let digits = part.strip_prefix(b"-").or_else(|| part.strip_prefix(b"+")).unwrap_or(part);
        match digits {
            [] if parts.len() == 1 => return bad("is no user"),
            [] => return bad("lacks the user or the group beside its colon"),
            _ if !digits.iter().all(u8::is_ascii_digit) => {}
            _ if digits.len() < part.len() => return bad("has a number with a sign"),
            // The largest means none to the kernel.
            _ => match std::str::from_utf8(digits).map(str::parse::<u32>) {
                Ok(Ok(number)) if number < u32::MAX => {}
                _ => return bad("has a number beyond 4294967294, the largest"),
            },
        }
    }
    if parts.len() > 2 { bad("has more than one colon") } else { Ok(()) }
}

fn is_name(name: &str) -> bool {
    let begins = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let goes_on = |byte: u8| begins(byte) || byte.is_ascii_digit() || byte == b'-';
    let mut bytes = name.bytes();
    bytes.next().is_some_and(begins) && bytes.all(goes_on) && name.len() <= LONGEST_NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_user_is_a_name_or_a_number_with_or_without_a_group() {
        for user in ["ann", "1000", "0", "ann:staff", "1000:1000", "ann:27", "4294967294:0", "007", "a b", "9a", "-a"] {
            assert!(check(user.as_bytes()).is_ok(), "{user}");
        }
        for (user, why) in [
            ("", "is no user"),
            ("-", "is no user"),
            (":", "lacks the user"),
            (":5", "lacks the user"),
            ("5:", "or the group"),
            ("ann:", "or the group"),
            ("a:b:c", "more than one colon"),
            ("-1", "a sign"),
            ("5:+5", "a sign"),
            ("4294967295", "beyond 4294967294"),
            ("5:99999999999999999999", "beyond 4294967294"),
        ] {
            let error = check(user.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("set user: ") && error.contains(why), "{user}: {error}");
        }
    }

    #[test]
    fn names_are_those_that_linux_takes() {
        for name in ["ann", "_x", "a-b_9", &"x".repeat(32)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "Ann", "9a", "-a", "a b", "a:b", "a\n", "ä", "../a", &"x".repeat(33)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
