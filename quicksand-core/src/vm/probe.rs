//! Probing an accelerator: whether a kernel runs under it as far as our init.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    Vm,
    cards::Cards,
    files::{empty_memory, with_overlay},
    launch::{end_of, launch},
    run_dir::RunDir,
};
use crate::{
    error::{
        Error,
        start::{Stage, StartCause, StartError},
    },
    host::Host,
    qemu::machine::{Begin, Machine, Plug},
};

/// What our init prints on the console when it is run as a probe; see `quicksand-agent/guest/init.rs`.
const PROBE_WORD: &str = "quicksand: probe";

/// The size of a probe's empty disk, in bytes.
const DISK: u64 = 1 << 20;

/// What a probe of an accelerator runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
}

impl Vm {
    /// Boots a kernel as far as our init, which then switches the machine off.
    pub(crate) async fn probe(
        host: &Host,
        machine: &Machine,
        probe: Probe<'_>,
        patience: Duration,
    ) -> Result<(), Error> {
        let run_dir = Arc::new(RunDir::create(&host.cache)?);
        let memory_file = empty_memory(&run_dir, machine)?;
        let disk = with_overlay(host, &run_dir, vec![], DISK)?;
        let command_line = "console=ttyS0 panic=-1 quicksand.probe";
        let begin = Begin::Boot { kernel: probe.kernel, initramfs: probe.initramfs, command_line };
        let deadline = Instant::now() + patience;
        let launched =
            launch(host, machine, run_dir, memory_file, (disk, DISK), (Plug::Nowhere, Cards::new(&[], 0)?), begin)
                .await?;
        let ended = launched.body.process.ended();
        let status = timeout(deadline.saturating_duration_since(Instant::now()), ended).await;
        match status {
            // The word of our init, not QEMU's status: a kernel that resets the machine ends QEMU as well.
            Ok(_) if launched.body.console.text().contains(PROBE_WORD) => Ok(()),
            status => {
                let cause = match status {
                    Ok(status) => end_of(status, Some(&launched.qmp)).await,
                    Err(_) => StartCause::AgentSilent(patience),
                };
                Err(StartError::gather(Stage::Boot, cause, &launched.body.run_dir.qemu_log(), &launched.body.console)
                    .into())
            }
        }
    }
}
