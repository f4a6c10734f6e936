//! What a running machine is given after each of its starts: a start, a reboot, a return to a checkpoint, a fork.

use super::{Links, Running};
use crate::Result;

/// Gives the machine by which `running` runs now all that its sandbox has outside of it.
pub(super) async fn attach(running: &Running) -> Result<()> {
    running.vm().describe(&running.outside.source);
    Links::attach(running).await?;
    #[cfg(feature = "mounts")]
    running.put_mounts_on_anew().await?;
    Ok(())
}
