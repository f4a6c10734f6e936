//! Notices what keeps a guest from answering while its QEMU runs on and its socket stays open: its agent has ended, or its disk can't
//! be written on the host. QEMU tells of both by events.

use std::time::Duration;

use serde_json::Value;
use tokio::{sync::broadcast::error::RecvError, task::JoinHandle, time::timeout};

use crate::{
    guest::{Channel, ChannelError},
    machine::AGENT_PORT,
    qemu::{Process, qmp::Qmp},
};

/// How long a machine may take to end after its agent has: a guest that goes down or is reset closes its ports a moment before.
const WAY_DOWN: Duration = Duration::from_secs(3);

/// Ends a session whose guest does not answer any more. Dropping it stops the watch.
#[derive(Debug)]
pub(super) struct GuestWatch(JoinHandle<()>);

impl GuestWatch {
    pub(super) fn over(process: &Process, qmp: &Qmp, channel: &Channel) -> GuestWatch {
        let (mut events, ended, end) = (qmp.events(), process.ended(), channel.ender());
        GuestWatch(tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) if event.name == "VSERPORT_CHANGE" && event.data["id"] == AGENT_PORT => {
                        if event.data["open"] == false {
                            break;
                        }
                    }
                    Ok(event) if event.name == "BLOCK_IO_ERROR" => {
                        if let Some(why) = disk_failure(&event.data) {
                            return end(ChannelError::DiskStopped(why));
                        }
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
            if timeout(WAY_DOWN, ended).await.is_err() {
                end(ChannelError::AgentGone);
            }
        }))
    }
}

impl Drop for GuestWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why the host could not read or write the guest's disk, if the guest stands still for it, as QEMU has it do where there is no room.
/// Else the guest was told of it.
fn disk_failure(event: &Value) -> Option<String> {
    (event["action"] == "stop").then(|| event["reason"].as_str().unwrap_or("QEMU does not say why").to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_stops_the_guest_is_a_failure_of_its_disk() {
        let event = |action: &str| json!({ "action": action, "reason": "No space left on device", "nospace": true });
        assert_eq!(disk_failure(&event("stop")).as_deref(), Some("No space left on device"));
        assert_eq!(disk_failure(&event("report")), None);
        assert_eq!(disk_failure(&json!({ "action": "stop" })).as_deref(), Some("QEMU does not say why"));
        assert_eq!(disk_failure(&json!(null)), None);
    }
}
