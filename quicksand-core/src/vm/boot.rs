//! Booting a machine until its init has started everything.

use std::{path::PathBuf, sync::Arc, time::Duration};

use quicksand_protocol::message::{Network, Settle};
use tokio::time::Instant;

use super::{
    Outside, Vm,
    files::with_overlay,
    launch::watch,
    own_kernel::boot_disk,
    restarts::Restarts,
    run_dir::RunDir,
    settle::{fall_idle, guest_network, name_jobs},
    wake::Identity,
};
use crate::{
    error::{Error, start::Stage},
    host::Host,
    network::passt::{GUEST_ADDRESS, PREFIX},
    qemu::machine::{Machine, NetworkMode},
};

/// What a machine boots.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    pub(crate) command_line: String,
    pub(crate) timeout: Duration,
    /// Whether the guest may ask for another kernel.
    pub(crate) guests_choice: bool,
}

impl Vm {
    /// Boots a machine without network until its init has started everything and it is idle. Of `disk`, its files from the image up,
    /// none is written. One that reboots before that is booted again.
    pub(crate) async fn boot(
        host: &Host,
        machine: &Machine,
        (disk, disk_size): (Vec<PathBuf>, u64),
        boot: &Boot,
    ) -> Result<Vm, Error> {
        let of_image = disk.len() == 1;
        let run_dir = Arc::new(RunDir::create(&host.cache)?);
        let disk = with_overlay(host, &run_dir, disk, disk_size)?;
        // Its card gets its address here, so that clones find it done.
        let network = Network::Static { address: GUEST_ADDRESS, prefix: PREFIX, of_image };
        let (deadline, mut restarts) = (Instant::now() + boot.timeout, Restarts::default());
        loop {
            let (disk, run_dir) = ((disk.clone(), disk_size), Arc::clone(&run_dir));
            let (boot, settle) = (boot.until(deadline), Settle { after_reboot: restarts.count() > 0 });
            match Vm::boot_once(host, machine, run_dir, disk, &boot, (network.clone(), settle)).await {
                Err(error) => restarts.go_on_after(error)?,
                booted => return booted,
            }
        }
    }

    async fn boot_once(
        host: &Host,
        machine: &Machine,
        run_dir: Arc<RunDir>,
        disk: (Vec<PathBuf>, u64),
        boot: &Boot,
        (network, settle): (Network, Settle),
    ) -> Result<Vm, Error> {
        let deadline = Instant::now() + boot.timeout;
        let vm = boot_disk(host, machine, run_dir, disk, boot, &Outside::default()).await?;
        let settled = watch(&vm.process, Some(&vm.qmp), (&vm.run_dir, &vm.console), Stage::Settle, deadline, async {
            vm.wake_again(network, Identity::New).await?;
            vm.come_up(settle).await?;
            fall_idle(&vm).await
        });
        match settled.await {
            Ok(()) => Ok(vm),
            Err(error) => Err(name_jobs(&vm, error).await),
        }
    }

    /// Boots a machine that has ended from the disk that it left, until its init has started everything. One whose init does not get
    /// that far is still of use, and comes with what kept it. One that reboots before that is booted again, which is counted.
    pub(crate) async fn boot_again(
        host: &Host,
        ended: &Vm,
        boot: &Boot,
        outside: &Outside,
        restarts: &mut Restarts,
    ) -> Result<(Vm, Option<Error>), Error> {
        let deadline = Instant::now() + boot.timeout;
        loop {
            match Vm::boot_again_once(host, ended, &boot.until(deadline), outside).await {
                Err(error) => restarts.go_on_after(error)?,
                booted => return booted,
            }
        }
    }

    async fn boot_again_once(
        host: &Host,
        ended: &Vm,
        boot: &Boot,
        outside: &Outside,
    ) -> Result<(Vm, Option<Error>), Error> {
        let deadline = Instant::now() + boot.timeout;
        let (disk, size) = {
            let disk = ended.disk.lock().await;
            (disk.files.clone(), disk.size)
        };
        let run_dir = Arc::clone(&ended.run_dir);
        let mut vm = boot_disk(host, &ended.machine, run_dir, (disk, size), boot, outside).await?;
        vm.origin = ended.origin.clone();
        let address = Network::Static { address: GUEST_ADDRESS, prefix: PREFIX, of_image: false };
        let settled = watch(&vm.process, Some(&vm.qmp), (&vm.run_dir, &vm.console), Stage::Settle, deadline, async {
            vm.wake_again(address, Identity::Same).await?;
            let network = guest_network(outside.network);
            // What starts while it boots may need it.
            vm.wake_again(network.clone(), Identity::Same).await?;
            vm.come_up(Settle { after_reboot: true }).await?;
            if outside.network == NetworkMode::Full {
                // A resolver that came up with the boot has written its file.
                vm.warnings.forget();
                vm.wake_again(network, Identity::Same).await?;
            }
            Ok(())
        });
        let unsettled = match settled.await {
            Ok(()) => None,
            Err(error) if vm.process.is_running() => Some(name_jobs(&vm, error).await),
            Err(error) => return Err(error),
        };
        Ok((vm, unsettled))
    }
}

impl Boot {
    /// The same as a boot that follows another, and has the rest of its time.
    fn until(&self, deadline: Instant) -> Boot {
        Boot { timeout: deadline.saturating_duration_since(Instant::now()), ..self.clone() }
    }
}
