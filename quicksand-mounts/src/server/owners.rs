//! Whose the guest sees a file to be. On the host all that a guest makes is the server's user's; who of the guest made it, or was given
//! it by `chown`, is kept here for as long as the server runs.

use std::collections::HashMap;

use fuse_backend_rs::api::filesystem::SetattrValid;
use nix::{
    errno::Errno,
    libc::stat64,
    unistd::{getegid, geteuid},
};

/// Of how many files an owner is kept: a guest could otherwise fill the host's memory.
const MOST: usize = 262_144;
/// Shown for the host's root, where that is not who serves.
const NOBODY: u32 = 65_534;

/// A user and a group, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
}

const ROOT: Owner = Owner { user: 0, group: 0 };

/// The owners of one mount's files.
#[derive(Debug)]
pub(super) struct Owners {
    /// Who runs the server.
    own: Owner,
    /// Who has asked for what is being done.
    caller: Owner,
    /// Whose files are that the guest has not made. Whoever asks, where it is not said.
    rest: Option<Owner>,
    kept: HashMap<(u64, u64), Owner>,
}

impl Owners {
    /// With `cached` attributes are remembered for whoever asks next: then what nobody was given is root's.
    pub(super) fn new(rest: Option<Owner>, cached: bool) -> Owners {
        let own = Owner { user: geteuid().as_raw(), group: getegid().as_raw() };
        let rest = rest.or(cached.then_some(ROOT));
        Owners { own, caller: ROOT, rest, kept: HashMap::new() }
    }

    pub(super) fn set_caller(&mut self, caller: Owner) {
        self.caller = caller;
    }

    /// The file as the guest is to see it.
    pub(super) fn shown(&self, mut file: stat64) -> stat64 {
        let Owner { user, group } = self.of(&file);
        (file.st_uid, file.st_gid) = (user, group);
        file
    }

    /// Whether another user would see another owner.
    pub(super) fn depends_on_caller(&self, file: &stat64) -> bool {
        self.rest.is_none() && !self.kept.contains_key(&key(file))
    }

    fn of(&self, file: &stat64) -> Owner {
        if let Some(kept) = self.kept.get(&key(file)) {
            return *kept;
        }
        let rest = self.rest.unwrap_or(self.caller);
        let user = match file.st_uid {
            user if user == self.own.user => rest.user,
            0 => NOBODY,
            other => other,
        };
        let group = match file.st_gid {
            group if group == self.own.group => rest.group,
            0 => NOBODY,
            other => other,
        };
        Owner { user, group }
    }

    /// Takes note of a file that the caller has just made.
    pub(super) fn made(&mut self, file: &stat64) {
        // One too many is like a file of the host's.
        let _ = self.keep(file, self.caller);
    }

    /// Changes the owner of a file, where the caller may. Groups beside the caller's own are not known here.
    pub(super) fn change(&mut self, file: &stat64, to: &stat64, valid: SetattrValid) -> Result<(), Errno> {
        let (before, mut owner) = (self.of(file), self.of(file));
        if valid.contains(SetattrValid::UID) {
            owner.user = to.st_uid;
        }
        if valid.contains(SetattrValid::GID) {
            owner.group = to.st_gid;
        }
        let is_own = before.user == self.caller.user && owner.user == before.user;
        let may = self.caller.user == 0 || is_own && [before.group, self.caller.group].contains(&owner.group);
        if !may {
            return Err(Errno::EPERM);
        }
        self.keep(file, owner)
    }

    fn keep(&mut self, file: &stat64, owner: Owner) -> Result<(), Errno> {
        if self.kept.len() >= MOST && !self.kept.contains_key(&key(file)) {
            return Err(Errno::ENOSPC);
        }
        self.kept.insert(key(file), owner);
        Ok(())
    }

    /// Forgets a file that has lost its last name: its number may become another's.
    pub(super) fn forget(&mut self, file: &stat64) {
        self.kept.remove(&key(file));
    }
}

fn key(file: &stat64) -> (u64, u64) {
    (file.st_dev, file.st_ino)
}
