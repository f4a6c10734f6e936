//! Which accelerator works here.
//!
//! That `/dev/kvm` opens, even that QEMU makes a machine with it, says little: there are hosts where a kernel then never gets past
//! its first instructions. So the image's own kernel is run for a moment, once for each boot of the host.

use std::{fs, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    base::{accel::Accel, cache::Cache, size::Size},
    error::{Error, start::StartError},
    host::Host,
    qemu::machine::{Accelerator, Machine},
    vm::{Probe, Vm},
};

/// How long a kernel may take under hardware virtualization until its init runs. It takes less than a second where it works.
const PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// How the reason begins where KVM is closed to us or not there.
pub(crate) const DOES_NOT_OPEN: &str = "/dev/kvm does not open";

/// What will carry out the guest's instructions, and why nothing faster does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) accelerator: Accelerator,
    pub(crate) why_not_better: Option<String>,
}

/// What was found out about KVM since the host booted.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    boot_id: String,
    qemu: String,
    kvm: Result<(), String>,
}

/// Chooses the accelerator.
pub(crate) async fn choose(host: &Host, wanted: Accel, probe: Probe<'_>) -> Result<Choice, Error> {
    let wanted = if wanted == Accel::Auto { host.accel } else { wanted };
    let choice = |accelerator| Ok(Choice { accelerator, why_not_better: None });
    match wanted {
        Accel::Tcg => choice(Accelerator::Tcg),
        Accel::Hvf if cfg!(target_os = "macos") => choice(Accelerator::Hvf),
        Accel::Whpx if cfg!(windows) => choice(Accelerator::Whpx),
        Accel::Hvf | Accel::Whpx => {
            let why = format!("this is {}, which has none", std::env::consts::OS);
            Err(Error::Accelerator { wanted, why })
        }
        Accel::Auto if cfg!(target_os = "macos") => choice(Accelerator::Hvf),
        Accel::Auto if cfg!(windows) => choice(Accelerator::Whpx),
        Accel::Kvm | Accel::Auto => match (kvm(host, probe).await?, wanted) {
            (Ok(()), _) => choice(Accelerator::Kvm),
            (Err(why), Accel::Kvm) => Err(Error::Accelerator { wanted, why }),
            (Err(why), _) => Ok(Choice { accelerator: Accelerator::Tcg, why_not_better: Some(why) }),
        },
    }
}

/// Whether KVM's device is there for us, or why not. Cheap, and mended by the user at any moment, so it is not remembered.
pub(crate) fn kvm_opens() -> Result<(), String> {
    let opened = fs::OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_CLOEXEC).open("/dev/kvm");
    opened.map(drop).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "; join the group kvm, or give /dev/kvm the mode 0666",
            std::io::ErrorKind::NotFound => "; the processor's virtualization is off or not handed on to this machine",
            _ => "",
        };
        format!("{DOES_NOT_OPEN}: {error}{hint}")
    })
}

/// Whether KVM runs a kernel here, or why not.
pub(crate) async fn kvm(host: &Host, probe: Probe<'_>) -> Result<Result<(), String>, Error> {
    if let Err(why) = kvm_opens() {
        return Ok(Err(why));
    }
    if let Some(known) = recall(host) {
        return Ok(known);
    }
    let _lock = host.cache.lock("accelerator", LOCK_PATIENCE).await?;
    if let Some(known) = recall(host) {
        return Ok(known);
    }
    let machine = Machine {
        memory: Size::from_mib(256).bytes(),
        cpus: 1,
        accelerator: Accelerator::Kvm,
        display: false,
        extra_arguments: Vec::new(),
    };
    let found = match Vm::probe(host, &machine, probe, PATIENCE).await {
        Ok(()) => Ok(()),
        Err(Error::Start(error)) => Err(format!("a kernel does not run under KVM here: {}", in_short(&error))),
        Err(error) => return Err(error),
    };
    if let Err(why) = &found {
        tracing::warn!(why, "falling back to software emulation, which is slow");
    }
    remember(host, &found)?;
    Ok(found)
}

/// What happened, and the last of QEMU's own words.
fn in_short(error: &StartError) -> String {
    let text = error.to_string();
    let what = text.lines().next().unwrap_or_default();
    match error.qemu_said.lines().last() {
        Some(words) => format!("{what} ({words})"),
        None => what.to_owned(),
    }
}

fn boot_id() -> String {
    fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default().trim().to_owned()
}

fn file(cache: &Cache) -> std::path::PathBuf {
    cache.root().join("accelerator.json")
}

fn recall(host: &Host) -> Option<Result<(), String>> {
    let known: Known = serde_json::from_slice(&fs::read(file(&host.cache)).ok()?).ok()?;
    (known.boot_id == boot_id() && known.qemu == host.version.to_string()).then_some(known.kvm)
}

fn remember(host: &Host, kvm: &Result<(), String>) -> Result<(), Error> {
    let known = Known { boot_id: boot_id(), qemu: host.version.to_string(), kvm: kvm.clone() };
    Ok(host.cache.publish(&file(&host.cache), &serde_json::to_vec(&known).unwrap_or_default())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::admission::Limits;
    use crate::qemu::Version;

    #[test]
    fn what_was_found_is_kept_until_the_host_or_qemu_changes() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        let mut host = Host {
            cache,
            qemu: "qemu".into(),
            passt: "passt".into(),
            version: Version { major: 8, minor: 0, micro: 0 },
            accel: Accel::Auto,
            limits: Limits::default(),
        };
        assert_eq!(recall(&host), None);
        remember(&host, &Err("no".into())).unwrap();
        assert_eq!(recall(&host), Some(Err("no".into())));
        host.version.micro = 1;
        assert_eq!(recall(&host), None);
    }
}
