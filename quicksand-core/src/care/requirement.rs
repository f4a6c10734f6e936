//! What this host has, for tests that can't do without it.

use std::path::Path;

use crate::{
    base::{accel::Accel, environment::Environment, progress::Reporter, size::Size},
    error::Result,
    host::{Host, admission},
    launch::{accel, source},
    sandbox::resolve::resolve,
    vm::Probe,
};

/// Why guests don't run under KVM here, if they don't. It is tried with the kernel of the image or save `source`, once for each boot
/// of the host.
///
/// # Errors
///
/// Whatever keeps it from being tried.
pub async fn kvm_fault(source: &str, saves: &Path, reporter: &Reporter) -> Result<Option<String>> {
    let host = Host::discover()?;
    if !matches!(host.accel, Accel::Auto | Accel::Kvm) {
        return Ok(Some(format!("QUICKSAND_ACCEL chooses {:?}", host.accel)));
    }
    if let Err(why) = accel::kvm_opens() {
        return Ok(Some(why));
    }
    let image = resolve(&host, source, saves, reporter).await?.image();
    let files = source::probe_files(&host, &image)?;
    Ok(accel::kvm(&host, Probe::of(&files)).await?.err())
}

/// All the memory that there is for machines: what the user allows, else what the host has. `None` where it doesn't tell.
///
/// # Errors
///
/// [`Error::Environment`](crate::Error::Environment).
pub fn memory_for_machines() -> Result<Option<Size>> {
    Ok(Environment::read()?.memory_budget.or_else(|| admission::memory().map(|(total, _)| total)))
}
