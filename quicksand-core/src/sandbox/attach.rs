//! What a running machine is given after each of its starts: a start, a reboot, a return to a checkpoint, a fork.

use super::{Links, Running, vnc::Listener};
use crate::error::Result;

/// Gives the machine by which `running` runs now all that its sandbox has outside of it.
pub(super) async fn attach(running: &Running) -> Result<()> {
    let vm = running.vm();
    Links::attach(running).await?;
    #[cfg(feature = "mounts")]
    running.put_mounts_on_anew().await?;
    if let Some(vnc) = &running.viewers {
        let listener = match running.vnc.get() {
            Some(listener) => listener,
            None => {
                let listener = Listener::open(vnc)?;
                running.vnc.get_or_init(|| listener)
            }
        };
        listener.give_to(&vm).await?;
    }
    Ok(())
}
