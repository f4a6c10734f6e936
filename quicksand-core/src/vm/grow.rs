//! A larger disk for a running machine.

use std::time::Duration;

use quicksand_protocol::message::Request;
use serde_json::json;

use super::{Vm, freeze::top_node};
use crate::{base::size::Size, error::Error};

/// How long the guest may take to use the new part of its disk, and for each GiB of it: a small file system has small parts, of
/// which it makes more.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_A_GIB: Duration = Duration::from_millis(500);

impl Vm {
    /// Makes the disk larger, and the guest's root file system with it.
    pub(crate) async fn grow_disk(&self, size: u64) -> Result<(), Error> {
        let mut disk = self.disk.lock().await;
        if size == disk.size {
            return Ok(());
        }
        let node = top_node(disk.put_aside);
        self.qmp.execute("block_resize", json!({ "node-name": node, "size": size })).await?;
        let more = u32::try_from(size.saturating_sub(disk.size) >> 30).unwrap_or(u32::MAX);
        disk.size = size;
        let patience = PATIENCE + PATIENCE_A_GIB.saturating_mul(more);
        let grown = self.channel.request(&Request::GrowRoot { size }, patience).await;
        grown.map(drop).map_err(|source| Error::DiskGrowth { size: Size::from_bytes(size), source })
    }
}
