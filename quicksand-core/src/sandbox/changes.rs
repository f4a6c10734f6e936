//! What has changed in a sandbox since it started.

use super::Sandbox;
use crate::{
    error::{Error, Result},
    verbs::changes::{FindChanges, Subject},
};

impl Sandbox {
    /// What has changed in the guest since the sandbox started: files, directories and links that were added, changed or removed;
    /// packages; units. Compared with the state that it started from: that of the image, or the save; also after a
    /// [reboot](Sandbox::reboot) and a [return](Sandbox::revert) to a checkpoint. A [twin](Sandbox::fork) is compared with the state that
    /// the sandbox started from of which it is one.
    ///
    /// Files are those of the guest's disks, on whichever file systems: what is in memory alone, as in `/run`, and what is mounted
    /// from the host is left out, and so are [`DEFAULT_IGNORED`](crate::verbs::changes::DEFAULT_IGNORED) logs and caches. A file that was touched, or
    /// written again with what was in it, has not changed.
    ///
    /// It costs nothing until it is asked for. The first time that it is asked for a state, that state is cloned and its files are
    /// listed, once for all sandboxes that start from it.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`]; [`Error::Guest`] where the guest does not answer; [`Error::HostileIndex`] where what it sends is no
    /// list of files, or one of more than a million; [`Error::Packages`]; and what keeps a machine from being cloned.
    pub fn changes(&self) -> FindChanges<'_> {
        FindChanges::new(self)
    }

    /// What is to be compared.
    pub(crate) async fn subject(&self) -> Result<Subject> {
        let running = self.running()?;
        let vm = running.ready().await?;
        let begun = running.begun.clone().ok_or(Error::NotRunning)?;
        Ok(Subject { vm, host: running.host.clone(), begun, network: running.outside.network })
    }
}
