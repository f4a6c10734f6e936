//! What the process of a server gives up before it reads the guest's first byte.

use std::{io, os::fd::AsFd};

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope,
};
use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigHandler, Signal, signal},
    },
    unistd::chdir,
};

use super::known::{Limits, MOST_DESCRIPTORS};

/// What root needs to reach all files of a directory, and to keep their times. Everything else goes: device nodes, set-id bits that
/// stay when a file is written, other users' files made.
const KEPT: [Capability; 3] = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH, Capability::CAP_FOWNER];

/// The newest Landlock that is asked for. Of it an older kernel enforces what it can.
const LANDLOCK: ABI = ABI::V6;

/// Sets limits and leaves the working directory. Returns what a guest may hold.
pub(super) fn prepare() -> io::Result<Limits> {
    chdir("/")?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let descriptors = hard.min(MOST_DESCRIPTORS);
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    ignore_file_size_signal()?;
    Ok(Limits::of(descriptors))
}

/// A write past a limit of the user's is then an error of that write, and not the end of the server.
#[allow(unsafe_code)]
pub(super) fn ignore_file_size_signal() -> io::Result<()> {
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    Ok(())
}

/// Leaves the process nothing but the directory, and that only for reading where it is read-only. After this no new privileges are
/// gained by any means.
///
/// Kernels without Landlock (before 5.13, or where it is turned off) enforce less: the checks of each request stand alone there.
pub(super) fn confine(directory: &impl AsFd, read_only: bool) -> io::Result<()> {
    prctl::set_no_new_privs()?;
    drop_capabilities()?;
    restrict(directory, read_only).map_err(io::Error::other)
}

fn drop_capabilities() -> io::Result<()> {
    let kept: CapsHashSet = KEPT.into_iter().collect();
    let have = caps::read(None, CapSet::Permitted).map_err(io::Error::other)?;
    let kept: CapsHashSet = kept.intersection(&have).copied().collect();
    for (set, keep) in
        [(CapSet::Inheritable, &CapsHashSet::new()), (CapSet::Effective, &kept), (CapSet::Permitted, &kept)]
    {
        caps::set(None, set, keep).map_err(io::Error::other)?;
    }
    Ok(())
}

fn restrict(directory: &impl AsFd, read_only: bool) -> Result<(), landlock::RulesetError> {
    let wanted = if read_only { AccessFs::from_read(LANDLOCK) } else { AccessFs::from_all(LANDLOCK) };
    // Nothing is ever run, and no device or socket of another program is ever spoken to.
    let allowed = wanted & !(AccessFs::Execute | AccessFs::IoctlDev | AccessFs::MakeChar | AccessFs::MakeBlock);
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rule(PathBeneath::new(directory, allowed))?
        .restrict_self()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc;
    use std::{fs, fs::File, thread};

    /// Landlock binds a thread. That it is there at all is the kernel's affair, so a kernel without it is no failure.
    #[test]
    fn nothing_but_the_directory_is_left() {
        let outside = tempfile::NamedTempFile::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("f"), "x").unwrap();
        for read_only in [false, true] {
            let (inside, outside) = (directory.path().join("f"), outside.path().to_owned());
            let root = File::open(directory.path()).unwrap();
            let checked = thread::spawn(move || {
                prctl::set_no_new_privs().unwrap();
                restrict(&root, read_only).unwrap();
                if !landlock_is_there() {
                    return;
                }
                let denied = |e: io::Error| e.raw_os_error() == Some(libc::EACCES);
                assert!(File::open(&outside).is_err_and(denied));
                assert!(File::open("/etc/passwd").is_err_and(denied));
                File::open(&inside).unwrap();
                assert_eq!(File::options().write(true).open(&inside).is_err_and(denied), read_only);
                assert_eq!(File::create(inside.with_file_name("new")).is_err_and(denied), read_only);
                assert!(std::net::TcpStream::connect(("127.0.0.1", 1)).is_err_and(denied));
            });
            checked.join().unwrap();
        }
    }

    #[allow(unsafe_code)]
    fn landlock_is_there() -> bool {
        const VERSION: libc::c_int = 1;
        // SAFETY: with this flag the call only tells the version that there is.
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION) >= 4 }
    }
}
