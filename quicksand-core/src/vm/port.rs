//! Ports that a running machine gets and loses: further ways between host and guest, each with a name of its own.
//!
//! They are added after a start and taken away before a freeze, so that a frozen state knows of none.

use std::{os::fd::BorrowedFd, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Vm;
use crate::qemu::qmp::QmpError;

/// How long QEMU may take to let go of a port's socket after the port has gone: some milliseconds, unless the host is very busy.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);
const RELEASE_STEP: Duration = Duration::from_millis(2);

impl Vm {
    /// Adds a port whose end on the host is `socket`. The guest finds it by `name`, which must be fit for an id of QEMU's.
    pub(crate) async fn add_port(&self, name: &str, socket: BorrowedFd<'_>) -> Result<(), QmpError> {
        self.qmp.give_fd(name, socket).await?;
        let address = json!({ "type": "fd", "data": { "str": name } });
        let backend = json!({ "type": "socket", "data": { "addr": address, "server": false } });
        self.qmp.execute("chardev-add", json!({ "id": name, "backend": backend })).await?;
        let device = json!({ "driver": "virtserialport", "bus": "ports.0", "id": name, "chardev": name, "name": name });
        let added = self.qmp.execute("device_add", device).await;
        if added.is_err() {
            let _ = self.qmp.execute("chardev-remove", json!({ "id": name })).await;
        }
        added.map(drop)
    }

    /// Takes a port away. The guest's programs that have it open see its end, and so does the host's end.
    pub(crate) async fn remove_port(&self, name: &str) -> Result<(), QmpError> {
        self.qmp.execute("device_del", json!({ "id": name })).await?;
        let deadline = Instant::now() + RELEASE_PATIENCE;
        loop {
            match self.qmp.execute("chardev-remove", json!({ "id": name })).await {
                // QEMU lets go of it only once none of its threads can still be at the device, and does not say when that is.
                Err(QmpError::Refused { .. }) if Instant::now() < deadline => sleep(RELEASE_STEP).await,
                removed => return removed.map(drop),
            }
        }
    }
}
