//! Disks that a running machine is given beside its own. Its own are part of what is frozen; these are not.

use std::path::Path;

use serde_json::{Value, json};

use super::Vm;
use crate::error::Error;

/// QEMU's arguments for the controller that such disks hang on. The machine's own bus takes nothing while it runs.
pub(crate) const CONTROLLER: [&str; 2] = ["-device", "virtio-scsi-pci,id=disks,addr=0x8"];

impl Vm {
    /// Gives a machine that has the [`CONTROLLER`] a disk that it can only read, as the logical unit of that number. It is a qcow2 whose
    /// header must have been [checked](crate::qemu::qcow2::check).
    pub(crate) async fn add_disk(&self, unit: u8, path: &Path) -> Result<(), Error> {
        let name = format!("disk{unit}");
        self.qmp.execute("blockdev-add", node(&name, path)).await?;
        let device = json!({ "driver": "scsi-hd", "id": name, "bus": "disks.0", "lun": unit, "drive": name });
        self.qmp.execute("device_add", device).await?;
        Ok(())
    }
}

fn node(name: &str, path: &Path) -> Value {
    let file = json!({ "driver": "file", "filename": path.to_string_lossy(), "read-only": true });
    // No name of another file that stands in it is followed.
    json!({ "driver": "qcow2", "node-name": name, "read-only": true, "backing": null, "file": file })
}
