//! Notices that the agent has ended while its machine runs on. Its socket stays open then: QEMU tells of the guest's end of a port by
//! an event.

use std::time::Duration;

use tokio::{sync::broadcast::error::RecvError, task::JoinHandle, time::timeout};

use crate::{
    guest::{Channel, ChannelError},
    machine::AGENT_PORT,
    qemu::{Process, qmp::Qmp},
};

/// How long a machine may take to end after its agent has: a guest that goes down or is reset closes its ports a moment before.
const WAY_DOWN: Duration = Duration::from_secs(3);

/// Ends a session whose agent has gone. Dropping it stops the watch.
#[derive(Debug)]
pub(super) struct AgentWatch(JoinHandle<()>);

impl AgentWatch {
    pub(super) fn over(process: &Process, qmp: &Qmp, channel: &Channel) -> AgentWatch {
        let (mut events, ended, end) = (qmp.events(), process.ended(), channel.ender());
        AgentWatch(tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) if event.name == "VSERPORT_CHANGE" && event.data["id"] == AGENT_PORT => {
                        if event.data["open"] == false {
                            break;
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

impl Drop for AgentWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
