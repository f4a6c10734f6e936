//! A machine of our own that reads what is on other disks: any file system that its kernel knows, with no parser of ours
//! and no root on the host. A hostile file system meets a kernel that is thrown away after.
//!
//! It is a clone of the image `debian` in which no init was started, so that it boots in a few seconds and then clones like any
//! other. The disks are given to it while it runs.

use std::{
    path::Path,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use quicksand_protocol::message::Exec;

use super::{ensure_local, kernel::LARGEST_FILE};
use crate::{
    base::{cache::Cache, progress::Reporter, size::Size},
    host::{Host, admission::Slot},
    image::ImageError,
    launch::{Launched, Order, kernel::Boots, launch, source::Source},
    vm::{Vm, ask, disks::CONTROLLER},
};

/// How long one script may run. The longest reads a large disk, or writes one.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(20 * 60);
/// How much of a script's output is taken.
const LONGEST_OUTPUT: Size = Size::from_mib(256);
/// Readies the guest for disks.
const PREPARE: &str = "modprobe -a virtio_scsi sd_mod && mount -t tmpfs tmpfs /mnt";
/// Waits for the disk of unit $1 and prints its name.
const FIND_DISK: &str = r#"
for try in $(seq 200); do
  for disk in /sys/bus/scsi/devices/*:0:0:"$1"/block/*; do
    [ -b "/dev/${disk##*/}" ] && exec echo "/dev/${disk##*/}"
  done
  sleep 0.05
done
echo "the disk did not appear" >&2
exit 1
"#;

/// A running helper. Dropping it throws it away.
#[derive(Debug)]
pub(crate) struct Helper {
    vm: Vm,
    units: AtomicU8,
    /// After the machine, which is gone before its place is free.
    _slot: Slot,
}

impl Helper {
    /// Starts one. The image `debian` is made where it is not there.
    pub(crate) async fn start(cache: &Cache, reporter: &Reporter) -> Result<Helper, ImageError> {
        let image = ensure_local(cache, reporter).await?.bare();
        let started = async {
            let host = Host::with(cache)?;
            let order = Order {
                extra_arguments: CONTROLLER.map(str::to_owned).to_vec(),
                ..Order::plain(image.name(), Boots::default(), &Reporter::silent())
            };
            launch(&host, &Source::Image(image), &order).await
        };
        let Launched { vm, slot, .. } = started.await.map_err(ImageError::helper("start"))?;
        let helper = Helper { vm, units: AtomicU8::new(0), _slot: slot };
        helper.run(PREPARE, &[]).await?;
        Ok(helper)
    }

    /// Gives it a disk to read and returns what it calls that: `/dev/sda`, whose first partition is then `/dev/sda1`. It is a qcow2
    /// whose header must have been [checked](crate::qemu::qcow2::check).
    pub(crate) async fn add_disk(&self, path: &Path) -> Result<String, ImageError> {
        let unit = self.units.fetch_add(1, Ordering::Relaxed);
        self.vm.add_disk(unit, path).await.map_err(ImageError::helper("give a disk to"))?;
        Ok(self.run(FIND_DISK, &[&unit.to_string()]).await?.trim().to_owned())
    }

    /// Runs a shell script with arguments and returns what it printed. That it fails is an error with what it said.
    pub(crate) async fn run(&self, script: &str, arguments: &[&str]) -> Result<String, ImageError> {
        let argv =
            ["/bin/sh", "-c", script, "sh"].iter().chain(arguments).map(|word| word.as_bytes().to_vec()).collect();
        let exec = Exec { argv, ..Exec::default() };
        let ran =
            ask::run(&self.vm, exec, SCRIPT_PATIENCE, LONGEST_OUTPUT).await.map_err(ImageError::helper("work in"))?;
        if !ran.status.success() {
            return Err(ImageError::HelperScript { said: String::from_utf8_lossy(&ran.stderr).trim().to_owned() });
        }
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    }

    /// The content of a file that it sees.
    pub(crate) async fn read(&self, path: &str) -> Result<Vec<u8>, ImageError> {
        let read = self.vm.read_file(Path::new(path), Size::from_bytes(LARGEST_FILE));
        read.await.map_err(ImageError::helper("read a file of"))
    }
}
