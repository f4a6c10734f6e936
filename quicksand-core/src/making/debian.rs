//! How the images `debian` and `debian:VERSION` are made: the distribution's packages, by mmdebstrap.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use super::{
    Parts, boot, disk, import,
    tool::{Tool, require, unique},
};
use crate::{
    base::{blocking::blocking, progress::Reporter},
    image::{
        error::ImageError,
        metadata::{Defaults, Root},
    },
};

/// The image's name.
pub(crate) const NAME: &str = "debian";
/// The disk as the guest sees it, in bytes.
pub(crate) const DISK_SIZE: u64 = 4 << 30;

/// The suite of that image.
pub(crate) const SUITE: &str = "bookworm";
/// Besides the kernel and what the variant `minbase` brings: an init, a network, and what tests take for granted.
const PACKAGES: &str = "systemd-sysv,udev,dbus,iproute2,ca-certificates,curl,procps,e2fsprogs,netbase";
/// The host's own network settings are in the new system so far: mmdebstrap copies them for its own use.
const CUSTOMIZE: &str = r#"umask 022; cd "$1/etc" && rm -f hostname hosts resolv.conf && echo debian >hostname &&
printf '127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost ip6-loopback\n' >hosts"#;
/// Runs mmdebstrap with a directory for temporary files, $1, that is removed however it ends; asked to end, it leaves
/// some itself. In a namespace of its own it is another user, who has to get to that directory. Of an ordinary user's,
/// some files belong to users of that namespace.
///
/// As root it mounts the host's `/proc`, `/sys` and a writable `/dev/shm` below that directory, in the host's own mount
/// namespace, and leaves them there when it is ended. So it gets a mount namespace, with which they go; where none can
/// be had, as in a container without the right to mount, it can't mount them either. What removes the directory still
/// never enters a mount.
const INSTALL: &str = r#"
export TMPDIR="$1"
shift
if [ "$(id -u)" -ne 0 ]; then
  in_mounts() { "$@"; }
  as_root() { unshare --map-auto --map-root-user "$@"; }
else
  as_root() { "$@"; }
  if unshare --mount --propagation private true 2>/dev/null; then
    in_mounts() { unshare --mount --propagation private "$@"; }
  else
    in_mounts() { "$@"; }
  fi
fi
remove() { as_root rm -rf --one-file-system -- "$TMPDIR"; }
trap 'remove || { sleep 1; remove; }' EXIT
trap 'exit 143' HUP INT TERM
trap : PIPE
mkdir -m 711 -- "$TMPDIR" && in_mounts mmdebstrap "$@"
"#;
/// The root file system, in the image's directory while that is made.
const ARCHIVE: &str = "root.tar";

/// Makes the disk of a suite and takes the kernel and its modules, all in `directory`.
pub(crate) async fn make(directory: &Path, suite: &str, reporter: &Reporter) -> Result<Parts, ImageError> {
    let kernel_package = kernel_package(env::consts::ARCH)?;
    check(directory).await?;
    let temporary = env::temp_dir();
    let archive = directory.join(ARCHIVE);
    install(&archive, temporary, (suite, kernel_package), reporter).await?;
    let (from, into) = (archive.clone(), directory.to_owned());
    let (boot, entries) = blocking(move || boot::extract(&from, &into)).await?;
    disk::make(directory, ARCHIVE, entries, DISK_SIZE, reporter).await?;
    let origin = Some(import::origin(format!("packages of {suite}"), None));
    let (file_system, root, defaults) = (crate::image::FILE_SYSTEM.into(), Root::default(), Defaults::default());
    Ok(Parts { disk_size: DISK_SIZE, file_system, root, origin, defaults, boot })
}

/// Checks what [`make`] needs of this host.
pub(crate) async fn check(directory: &Path) -> Result<(), ImageError> {
    require(&[("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux")])?;
    // mmdebstrap asks for no more owners than this.
    disk::check(directory).await?;
    disk::check_space(&env::temp_dir(), 1 << 30)
}

/// Debian's kernel for virtual machines, by Rust's name of the architecture.
fn kernel_package(architecture: &'static str) -> Result<&'static str, ImageError> {
    match architecture {
        "x86_64" => Ok("linux-image-cloud-amd64"),
        "aarch64" => Ok("linux-image-cloud-arm64"),
        _ => Err(ImageError::Architecture { name: NAME.to_owned(), architecture }),
    }
}

async fn install(
    archive: &Path,
    temporary: PathBuf,
    (suite, kernel_package): (&str, &str),
    reporter: &Reporter,
) -> Result<(), ImageError> {
    // mmdebstrap may run as other users in a namespace, for whom our directories are closed. So it writes to a file
    // that we have opened, and runs where everybody may be.
    let output = File::create(archive).map_err(ImageError::io("create", archive))?;
    let mode = if geteuid().is_root() { "--mode=root" } else { "--mode=unshare" };
    let include = format!("--include={PACKAGES},{kernel_package}");
    let customize = format!("--customize-hook={CUSTOMIZE}");
    let arguments = [mode, "--format=tar", "--verbose", "--variant=minbase", &include, &customize, suite, "-"];
    let own_temporary = temporary.join(unique("quicksand-")?);
    let mmdebstrap = Tool::script("mmdebstrap", Path::new("/"), INSTALL).args([own_temporary]).args(arguments);
    let mut installation = Installation::default();
    reporter.report(installation.stage(), 0, 0);
    let show = |line: &str| {
        if let Some((stage, current, total)) = installation.read(line) {
            reporter.report(stage, current, total);
        }
    };
    mmdebstrap.output(output).fills(temporary).run(show).await
}

/// Follows apt's and dpkg's words. There are two rounds, of the packages that make packages work and of all others; apt
/// says at the start of each how many it has.
#[derive(Debug, Default)]
struct Installation {
    round: usize,
    current: u64,
    total: u64,
}

impl Installation {
    fn stage(&self) -> &'static str {
        match self.round {
            0 => "fetch package lists",
            1 => "install base packages",
            _ => "install packages",
        }
    }

    /// What to report after that line, if anything.
    fn read(&mut self, line: &str) -> Option<(&'static str, u64, u64)> {
        if let Some(count) = newly_installed(line) {
            *self = Installation { round: self.round + 1, current: 0, total: count };
        } else if self.round > 0 && line.starts_with("Setting up ") {
            self.current += 1;
            // A count that proves wrong is worse than none.
            if self.current > self.total {
                self.total = 0;
            }
        } else {
            return None;
        }
        Some((self.stage(), self.current, self.total))
    }
}

/// The number in apt's `0 upgraded, 69 newly installed, 0 to remove and 0 not upgraded.`, unless it is 0.
fn newly_installed(line: &str) -> Option<u64> {
    let (before, _) = line.split_once(" newly installed,")?;
    before.rsplit(' ').next()?.parse().ok().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_packages_by_round() {
        let lines = "\
            I: running apt-get update...\n\
            0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.\n\
            Get:1 somewhere bookworm/main amd64 dash\n\
            Setting up dash (0.5) ...\n\
            Setting up libc6:amd64 (2.36) ...\n\
            0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n\
            0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.\n\
            Setting up curl (7) ...\n\
            Setting up unexpected (7) ...\n";
        let mut installation = Installation::default();
        let reports: Vec<_> = lines.lines().filter_map(|line| installation.read(line)).collect();
        let (base, rest) = ("install base packages", "install packages");
        assert_eq!(reports, [(base, 0, 2), (base, 1, 2), (base, 2, 2), (rest, 0, 1), (rest, 1, 1), (rest, 2, 0)]);
    }

    #[test]
    fn the_kernel_depends_on_the_architecture() {
        assert_eq!(kernel_package("x86_64").unwrap(), "linux-image-cloud-amd64");
        assert_eq!(kernel_package("aarch64").unwrap(), "linux-image-cloud-arm64");
        assert!(matches!(kernel_package("sparc"), Err(ImageError::Architecture { architecture: "sparc", .. })));
    }
}
