//! Disks that a running machine is given beside its own. Its own are part of what is frozen; these are not.

use std::path::Path;

use serde_json::{Value, json};

use super::Vm;
use crate::Error;

/// QEMU's arguments for the controller that such disks hang on. The machine's own bus takes nothing while it runs.
pub(crate) const CONTROLLER: [&str; 2] = ["-device", "virtio-scsi-pci,id=disks,addr=0x8"];

/// What is in a disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    #[allow(dead_code, reason = "for disks that the helper writes")]
    /// The disk's bytes, one after the other.
    Raw,
    /// A qcow2. Its header must have been [checked](crate::qcow2::check).
    Qcow2,
}

/// What a guest may do with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read it. QEMU opens the file for reading only.
    ReadOnly,
    #[allow(dead_code, reason = "for disks that the helper writes")]
    /// Write it, too.
    ReadWrite,
}

impl Vm {
    /// Gives a machine that has the [`CONTROLLER`] a disk, as the logical unit of that number.
    pub(crate) async fn add_disk(&self, unit: u8, path: &Path, format: Format, access: Access) -> Result<(), Error> {
        let name = format!("disk{unit}");
        self.qmp.execute("blockdev-add", node(&name, path, format, access)).await?;
        let device = json!({ "driver": "scsi-hd", "id": name, "bus": "disks.0", "lun": unit, "drive": name });
        self.qmp.execute("device_add", device).await?;
        Ok(())
    }

    #[allow(dead_code, reason = "for disks that the helper writes")]
    /// Takes a disk away again, so that its file is closed.
    pub(crate) async fn remove_disk(&self, unit: u8) -> Result<(), Error> {
        let name = format!("disk{unit}");
        self.qmp.execute("device_del", json!({ "id": name })).await?;
        self.qmp.execute("blockdev-del", json!({ "node-name": name })).await?;
        Ok(())
    }
}

fn node(name: &str, path: &Path, format: Format, access: Access) -> Value {
    let read_only = access == Access::ReadOnly;
    let file = json!({ "driver": "file", "filename": path.to_string_lossy(), "read-only": read_only });
    match format {
        Format::Raw => {
            json!({ "driver": "raw", "node-name": name, "read-only": read_only, "discard": "unmap", "file": file })
        }
        // No name of another file that stands in it is followed.
        Format::Qcow2 => json!({
            "driver": "qcow2", "node-name": name, "read-only": read_only, "discard": "unmap", "backing": null, "file": file,
        }),
    }
}
