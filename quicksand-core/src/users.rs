//! The guest's users.

use std::time::Duration;

use nix::libc;
use quicksand_protocol::message::Request;

use crate::{Error, Result, Sandbox, guest::ChannelError};

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
    fn names_are_those_that_linux_takes() {
        for name in ["ann", "_x", "a-b_9", &"x".repeat(32)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "Ann", "9a", "-a", "a b", "a:b", "a\n", "ä", "../a", &"x".repeat(33)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
