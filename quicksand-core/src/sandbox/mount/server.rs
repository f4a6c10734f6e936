//! The process that serves one mount, and the socket that leads to it.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    libc,
    sys::memfd::{MFdFlags, memfd_create},
};

use super::Mount;
use crate::{
    error::{Error, Result},
    qemu::Process,
};

/// Starts the server of a mount. Returns it with the other end of its socket; what it says, should it fail, is in `log`.
/// `owner` are the numbers of the mount's owner.
pub(crate) async fn start(mount: &Mount, owner: Option<(u32, u32)>, log: &Path) -> Result<(Process, OwnedFd)> {
    let source = |source| Error::MountSource { path: mount.host.clone(), source };
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let directory = File::options().read(true).custom_flags(flags).open(&mount.host).map_err(source)?;
    let program = program().map_err(source)?;
    let (ours, theirs) = UnixStream::pair().map_err(source)?;

    let mut arguments = vec![theirs.as_raw_fd().to_string(), directory.as_raw_fd().to_string()];
    arguments.extend(mount.read_only.then(|| "read-only".to_owned()));
    arguments.extend(mount.cached.then(|| "cached".to_owned()));
    arguments.extend(owner.map(|(user, group)| format!("owner={user}:{group}")));
    let arguments = arguments.into_iter().map(Into::into).collect();
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    let inherit = vec![theirs.into(), directory.into()];
    let process = Process::launch(Path::new(&path), arguments, inherit, log).await?;
    Ok((process, ours.into()))
}

/// The server program, in a file that has no name and goes with its last user.
fn program() -> io::Result<File> {
    let mut file = File::from(memfd_create(c"quicksand-mount", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.write_all(quicksand_mounts::BYTES)?;
    let sealed = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(sealed))?;
    Ok(file)
}
