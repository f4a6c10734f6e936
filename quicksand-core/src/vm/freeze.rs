//! Writing down a running machine: memory, devices, disk. See docs/design.md for how and why.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use quicksand_protocol::message::Request;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{Vm, files::empty_overlay, video};
use crate::{
    base::blocking::blocking,
    error::Error,
    guest::ChannelError,
    host::Host,
    image::state::{devices_path, memory_path, video_path},
    qemu::{
        machine::{ROOT_NODE, overlay_node},
        memory::{MemoryError, copy_private_pages, copy_sparse},
    },
};

/// How long the guest may take to write its caches to its disk.
const SYNC_PATIENCE: Duration = Duration::from_secs(60);

/// How long a guest that answered may take to fall still, and how often it is looked at.
const STILL_PATIENCE: Duration = Duration::from_millis(100);
const STILL_STEP: Duration = Duration::from_millis(10);
/// A guest counts as still when its QEMU has run for less than this in a step, in nanoseconds: its main loop wakes at times.
const STILL: u64 = 100_000;

/// How long a guest is left alone before it is frozen. What its kernel does a moment after it was busy, as to free what programs
/// had and to let its clock's tick rest, each clone would else do before anything else: a third of what waking takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Not at all.
    None,
    /// Until most of that is done.
    Short,
    /// Until all of it is done, also what a boot leaves.
    Long,
}

impl Rest {
    fn duration(self) -> Duration {
        match self {
            Rest::None => Duration::ZERO,
            Rest::Short => Duration::from_millis(200),
            Rest::Long => Duration::from_secs(2),
        }
    }
}

/// What the frozen disk is to be without the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskAlone {
    /// All that the guest has written, for whoever boots from it.
    Whole,
    /// Of no use: what the guest holds in its caches is left there.
    Useless,
    /// Of no use, and the guest is asked for nothing: it stands still from the first moment on, and may be past answering.
    AsItStands,
}

/// What a freeze left.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// The disk's files above the image, from the bottom up. None of them will be written again.
    pub(crate) layers: Vec<PathBuf>,
    /// The disk's size in bytes.
    pub(crate) disk_size: u64,
    /// Whether the agent may hold a part of a frame.
    pub(crate) in_frame: bool,
    /// How long the guest stood still.
    pub(crate) pause: Duration,
}

impl Vm {
    /// Writes the machine's memory and devices into `directory`, and puts its disk aside. The machine runs on. To be run to its end,
    /// for it stops the machine in between.
    pub(crate) async fn freeze(
        &self,
        host: &Host,
        directory: &Path,
        disk_alone: DiskAlone,
        rest: Rest,
    ) -> Result<Frozen, Error> {
        let mut disk = self.disk.lock().await;
        let (below, name) = (top_node(disk.put_aside), top_node(disk.put_aside + 1));
        if disk_alone == DiskAlone::AsItStands {
            self.qmp.execute("stop", json!({})).await?;
        }
        let prepared = async {
            let (parent, copy) = (self.memory_file.clone(), memory_path(directory));
            blocking(move || copy_sparse(&parent, &copy)).await?;
            let settled = match disk_alone {
                DiskAlone::Whole => Some(self.settle(&Request::ExpectFreeze { sync: true }).await?),
                // The frozen memory holds what the guest has yet to write to its disk.
                DiskAlone::Useless => Some(self.settle(&Request::ExpectFreeze { sync: false }).await?),
                DiskAlone::AsItStands => None,
            };
            let settled = self.rest(rest, settled).await?;
            let overlay = self.run_dir.next_overlay();
            empty_overlay(&host.cache, disk.size, &overlay)?;
            self.qmp.execute("blockdev-add", overlay_node(name.clone(), &overlay)).await?;
            Ok::<_, Error>((settled, overlay))
        };
        let (settled, overlay) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => {
                if disk_alone == DiskAlone::AsItStands {
                    let _ = self.qmp.execute("cont", json!({})).await;
                }
                return Err(error);
            }
        };

        let begun = Instant::now();
        let written = self.stand_still(directory, &below, &name).await;
        let in_frame = settled != Some(self.channel.frames_sent());
        // Whatever came of it, the guest goes on.
        self.qmp.execute("cont", json!({})).await?;
        let pause = begun.elapsed();
        if written.is_err() {
            // The next freeze has a node of the same name.
            let _ = self.qmp.execute("blockdev-del", json!({ "node-name": name })).await;
            let _ = fs::remove_file(&overlay);
        }
        written?;
        let layers = disk.files[1..].to_vec();
        disk.put_aside += 1;
        disk.files.push(overlay);
        tracing::debug!(target: "quicksand::freeze", ?pause, "frozen");
        Ok(Frozen { layers, disk_size: disk.size, in_frame, pause })
    }

    /// Has the guest carry out a request. Returns how many frames had been sent by then, of none of which it holds a part.
    async fn settle(&self, request: &Request) -> Result<u64, Error> {
        let mut settled = self.channel.start(request)?;
        // The end of its input is a frame as well, and would else be sent when it is dropped.
        drop(settled.stdin.take());
        let sent = self.channel.frames_sent();
        timeout(SYNC_PATIENCE, settled.reply()).await.map_err(|_| ChannelError::NoAnswer(SYNC_PATIENCE))??;
        Ok(sent)
    }

    /// Leaves the guest alone, and then has it do what it put off until it would be awake anyway, as some of its kernel's timers
    /// allow: each clone would else do that first. Returns how many frames had been sent by then, where any was answered.
    async fn rest(&self, rest: Rest, settled: Option<u64>) -> Result<Option<u64>, Error> {
        if rest == Rest::None || settled.is_none() {
            return Ok(settled);
        }
        sleep(rest.duration()).await;
        let settled = self.settle(&Request::Ping).await?;
        let deadline = Instant::now() + STILL_PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            sleep(STILL_STEP).await;
            let now = self.process.rests_after();
            if let (Some(last), Some(now)) = (last, now)
                && now.saturating_sub(last) < STILL
            {
                break;
            }
            last = now;
        }
        Ok(Some(settled))
    }

    async fn stand_still(&self, directory: &Path, below: &str, above: &str) -> Result<(), Error> {
        let (memory, devices) = (memory_path(directory), devices_path(directory));
        self.qmp.execute("stop", json!({})).await?;
        self.qmp.execute("xen-save-devices-state", json!({ "filename": devices.to_string_lossy() })).await?;
        let target = File::options().write(true).open(&memory);
        let target = target.map_err(|source| MemoryError::Io { what: "open", path: memory, source })?;
        let (pid, file) = (self.process.pid(), self.memory_file.clone());
        blocking(move || copy_private_pages(pid, &file, &target)).await?;
        if self.machine.display {
            video::save(&self.qmp, pid, video_path(directory)).await?;
        }
        self.qmp.execute("blockdev-snapshot", json!({ "node": below, "overlay": above })).await?;
        Ok(())
    }
}

/// The name of the disk's topmost node after so many freezes.
pub(super) fn top_node(number: usize) -> String {
    if number == 0 { ROOT_NODE.to_owned() } else { format!("{ROOT_NODE}{number}") }
}
