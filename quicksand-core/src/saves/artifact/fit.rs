//! Whether a frozen memory fits this host, and what there is between them.

use super::format::Maker;
use crate::{host::Host, image::state::Manifest, launch::accel::kvm_opens, qemu::machine::Accelerator};

impl Maker {
    /// This host and this quicksand.
    pub(crate) fn here(host: &Host) -> Maker {
        Maker {
            quicksand: env!("CARGO_PKG_VERSION").to_owned(),
            agent: quicksand_agent::ID.to_owned(),
            qemu: host.version.to_string(),
        }
    }
}

/// Why a machine's memory can't be used here, if it can't. `maker` is whoever froze it, where that is known.
pub(crate) fn fault(host: &Host, manifest: &Manifest, maker: Option<&Maker>) -> Option<String> {
    let own = Maker::here(host);
    let accelerator = manifest.machine.accelerator;
    if let (Accelerator::Kvm, Err(why)) = (accelerator, kvm_opens()) {
        return Some(format!("it was frozen under {accelerator}, and here {why}"));
    }
    if manifest.machine_key == manifest.machine.key(host.version) {
        return None;
    }
    Some(match maker {
        Some(Maker { qemu, .. }) if *qemu != own.qemu => {
            format!("it was frozen by QEMU {qemu}, and this host has {}", own.qemu)
        }
        Some(Maker { agent, quicksand, .. }) if *agent != own.agent => {
            format!("it was frozen by another build of quicksand ({quicksand}, this is {})", own.quicksand)
        }
        _ if accelerator != Accelerator::Tcg => {
            format!("it was frozen under {accelerator} on another kind of processor than this host has")
        }
        _ => "it was frozen by another QEMU or another build of quicksand".to_owned(),
    })
}
