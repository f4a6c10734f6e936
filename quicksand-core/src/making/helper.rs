//! A machine of our own that reads what is on other disks: any file system that its kernel knows, with no parser of ours
//! and no root on the host. A hostile file system meets a kernel that is thrown away after.
//!
//! It is a clone of the image `debian` in which no init was started, so that it boots in a few seconds and then clones like any
//! other. The disks are given to it while it runs.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use super::ensure_local;
use crate::{
    base::{cache::Cache, progress::Reporter},
    image::error::ImageError,
    sandbox::Sandbox,
    vm::disks::CONTROLLER,
};

/// How long one script may run. The longest reads a large disk, or writes one.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(20 * 60);
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
    sandbox: Sandbox,
    units: AtomicU8,
}

impl Helper {
    /// Starts one. The image `debian` is made where it is not there.
    // Boxed, since starting a sandbox may make an image, which may take a helper.
    pub(crate) fn start<'a>(
        cache: &'a Cache,
        reporter: &'a Reporter,
    ) -> Pin<Box<dyn Future<Output = Result<Helper, ImageError>> + Send + 'a>> {
        Box::pin(async move {
            let image = ensure_local(cache, reporter).await?.bare();
            let builder = Sandbox::of_image(image).extra_qemu_args(CONTROLLER);
            let sandbox = builder.start().await.map_err(ImageError::helper("start"))?;
            let helper = Helper { sandbox, units: AtomicU8::new(0) };
            helper.run(PREPARE, &[]).await?;
            Ok(helper)
        })
    }

    /// Gives it a disk to read and returns what it calls that: `/dev/sda`, whose first partition is then `/dev/sda1`. It is a qcow2
    /// whose header must have been [checked](crate::qemu::qcow2::check).
    pub(crate) async fn add_disk(&self, path: &Path) -> Result<String, ImageError> {
        let unit = self.units.fetch_add(1, Ordering::Relaxed);
        let failed = || ImageError::helper("give a disk to");
        let vm = self.sandbox.vm().await.map_err(failed())?;
        vm.add_disk(unit, path).await.map_err(failed())?;
        Ok(self.run(FIND_DISK, &[&unit.to_string()]).await?.trim().to_owned())
    }

    /// Runs a shell script with arguments and returns what it printed. That it fails is an error with what it said.
    pub(crate) async fn run(&self, script: &str, arguments: &[&str]) -> Result<String, ImageError> {
        let command = self.sandbox.command("/bin/sh").args(["-c", script, "sh"]).args(arguments);
        let output = command.timeout(SCRIPT_PATIENCE).output().await.map_err(ImageError::helper("work in"))?;
        if !output.success() {
            return Err(ImageError::HelperScript { said: output.stderr.trim().to_owned() });
        }
        Ok(output.stdout)
    }

    /// The content of a file that it sees.
    pub(crate) async fn read(&self, path: &str) -> Result<Vec<u8>, ImageError> {
        self.sandbox.read_file(path).await.map_err(ImageError::helper("read a file of"))
    }
}
