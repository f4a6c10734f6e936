//! Notices what keeps a guest from answering while its QEMU runs on and its socket stays open: its agent has ended or is stopped, its
//! kernel has given up, it has halted or sleeps, or its disk can't be written on the host. QEMU tells of most by events.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{console::Console, silence::Silence};
use crate::{
    guest::{Channel, ChannelError},
    qemu::{
        Process,
        machine::AGENT_PORT,
        qmp::{Event, Qmp},
    },
};

/// How long a machine may take to end after its agent has: a guest that goes down or is reset closes its ports a moment before.
const WAY_DOWN: Duration = Duration::from_secs(3);
/// How long a guest may sleep with its processors running before it is woken, as by a key. The alarm of its clock does not do that:
/// QEMU passes it on to a guest only from the deeper sleep.
const SLEEP: Duration = Duration::from_secs(5);
/// How long one that was woken may take to be back.
const GET_UP: Duration = Duration::from_secs(30);

/// Where QEMU has the device that the agent's port is on.
const PORTS_PATH: &str = "/machine/peripheral/ports/virtio-backend";
/// What Linux says before it halts, and before it starts another kernel.
const HALTED: &str = "reboot: System halted";
const OTHER_KERNEL: &str = "Starting new kernel";

/// Ends a session whose guest does not answer any more. Dropping it stops the watch.
#[derive(Debug)]
pub(super) struct GuestWatch(JoinHandle<()>);

impl GuestWatch {
    pub(super) fn over(process: &Process, qmp: &Arc<Qmp>, channel: &Channel, console: &Console) -> GuestWatch {
        let (ended, pulse) = (process.ended(), channel.pulse());
        let mut guest = Guest {
            events: qmp.events(),
            qmp: Arc::downgrade(qmp),
            console: console.clone(),
            silence: Silence::of(process, qmp, pulse.clone(), console.clone()),
        };
        GuestWatch(tokio::spawn(async move {
            tokio::select! {
                why = guest.stands_still() => {
                    if let Some(why) = why {
                        pulse.end(why);
                    }
                }
                // The session notices that by itself.
                _ = ended => {}
            }
        }))
    }
}

/// What a guest does, as QEMU tells it.
#[derive(Debug)]
struct Guest {
    events: Receiver<Event>,
    qmp: Weak<Qmp>,
    console: Console,
    silence: Silence,
}

impl Guest {
    /// Waits until the guest does not answer any more, and says why. `None` where QEMU tells nothing any more.
    async fn stands_still(&mut self) -> Option<ChannelError> {
        loop {
            let told = tokio::select! {
                told = self.events.recv() => told,
                why = self.silence.is_for_good() => return Some(why),
            };
            match told {
                Ok(event) => match News::of(&event) {
                    Some(News::Stopped(why)) => return Some(why),
                    Some(News::Port(false)) => {
                        if let Some(why) = self.is_gone().await {
                            return Some(why);
                        }
                    }
                    _ => {}
                },
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Why the port is closed. `None` where it is open again.
    async fn is_gone(&mut self) -> Option<ChannelError> {
        let closed = Instant::now();
        if let Some(back) = self.is_back(closed + WAY_DOWN).await {
            return back.err();
        }
        let console = self.console.text();
        if console.contains(HALTED) {
            return Some(ChannelError::Halted);
        }
        if console.contains(OTHER_KERNEL) {
            return Some(ChannelError::OtherKernel);
        }
        if !self.has_put_ports_away().await {
            return Some(ChannelError::AgentGone);
        }
        if let Some(back) = self.is_back(closed + SLEEP).await {
            return back.err();
        }
        // To a guest that sleeps it is no more than a key.
        if let Some(qmp) = self.qmp.upgrade() {
            let _ = qmp.execute("system_powerdown", json!({})).await;
        }
        self.is_back(Instant::now() + GET_UP).await.map_or(Some(ChannelError::Suspended), Result::err)
    }

    /// Waits for the port to be open again. `None` where it is not until then.
    async fn is_back(&mut self, until: Instant) -> Option<Result<(), ChannelError>> {
        loop {
            match timeout_at(until, self.events.recv()).await {
                Ok(Ok(event)) => match News::of(&event) {
                    Some(News::Stopped(why)) => return Some(Err(why)),
                    Some(News::Port(true)) => return Some(Ok(())),
                    _ => {}
                },
                Ok(Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => return None,
            }
        }
    }

    /// Whether the guest's kernel uses the device of the ports no more, as when it sleeps. An agent that has ended changes nothing of
    /// that.
    async fn has_put_ports_away(&self) -> bool {
        let Some(qmp) = self.qmp.upgrade() else { return false };
        let told = qmp.execute("x-query-virtio-status", json!({ "path": PORTS_PATH })).await;
        told.is_ok_and(|told| told["status"]["statuses"].as_array().is_some_and(Vec::is_empty))
    }
}

/// An event that says something of the guest.
#[derive(Debug)]
enum News {
    /// The agent's port was opened or closed in the guest.
    Port(bool),
    /// The guest goes on no more.
    Stopped(ChannelError),
}

impl News {
    fn of(event: &Event) -> Option<News> {
        match &*event.name {
            "VSERPORT_CHANGE" if event.data["id"] == AGENT_PORT => event.data["open"].as_bool().map(News::Port),
            "BLOCK_IO_ERROR" => disk_failure(&event.data).map(|why| News::Stopped(ChannelError::DiskStopped(why))),
            // Asleep on its disk, it is off: QEMU ends, as at any power-off.
            "SUSPEND" => Some(News::Stopped(ChannelError::Suspended)),
            _ => None,
        }
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
