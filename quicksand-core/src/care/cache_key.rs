//! What images, warm states and saves that were kept elsewhere must have been made with, to be of use here; as a key for the caches of
//! hosted CI.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::{
    base::{accel::Accel, random::hex, tree},
    error::{Error, Result},
    host::Host,
    image::project::Project,
    launch::accel::kvm_opens,
    qemu::machine::host_processor,
};

/// The files of a project that say which images are meant.
const OF_PROJECT: [&str; 2] = ["quicksand.lock", "quicksand.toml"];

/// A short key that is another one where what was kept under it would not be used here: with another quicksand, another QEMU, another
/// accelerator or, under KVM, another kind of processor; and with other images, by the `quicksand.lock` and `quicksand.toml` of the
/// project, or other `inputs`, files and directories with all that is in them but pipes, sockets and devices.
///
/// Nothing wrong comes of a key that tells too little: whatever is kept has a key of its own that tells all, and is made again where
/// that differs. KVM counts as working where it opens, so that the key is known before there is an image to try it with.
///
/// # Errors
///
/// [`Error::Qemu`] where there is no QEMU; [`Error::Io`] where a file can't be read.
pub fn cache_key(inputs: &[PathBuf]) -> Result<String> {
    let host = Host::discover()?;
    let mut hash = Sha256::new();
    hash.update(format!("{} {}\n", env!("CARGO_PKG_VERSION"), quicksand_agent::ID));
    hash.update(format!("QEMU {}\n", host.version));
    match host.accel {
        Accel::Auto | Accel::Kvm if kvm_opens().is_ok() => hash.update(format!("kvm on {}\n", host_processor())),
        Accel::Auto | Accel::Kvm | Accel::Tcg => hash.update("tcg\n"),
        other => hash.update(format!("{other:?}\n")),
    }
    let project = Project::find();
    let own = OF_PROJECT.iter().filter_map(|name| Some(project.as_ref()?.root().join(name)));
    for path in own.filter(|path| path.exists()).chain(inputs.iter().cloned()) {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let digest = tree::digest(&path).map_err(|(path, source)| Error::Io { what: "read", path, source })?;
        hash.update(format!("{name:?} {digest}\n"));
    }
    Ok(hex(&hash.finalize()[..16]))
}
