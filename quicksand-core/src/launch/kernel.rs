//! Which kernel a machine boots, where there is a choice.

use std::time::Duration;

/// Which kernel a machine boots at a reboot, or where it starts from a disk alone. A machine that goes on from a frozen state, as a
/// warm start, a fork or a return to a checkpoint, has the kernel that ran then, whichever is asked for.
///
/// Machines whose image has no kernel on its disk, as those from container images, always boot the one that they are lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Kernel {
    /// The one that the guest's disk asks for, as on any machine, so that a kernel that was installed is in use after a reboot: the
    /// default entry of its GRUB, systemd-boot, extlinux or syslinux; without a boot loader the one that `/vmlinuz` leads to or that
    /// came to `/boot` since and is newer; without either the newest. Where that can't be booted, the image's kernel is, and
    /// [`Sandbox::warnings`](crate::Sandbox::warnings) says why.
    #[default]
    Guest,
    /// The one that belongs to the image, whatever is installed.
    Image,
}

/// How long a boot may take unless it is told otherwise. Software emulation on a busy host takes a minute or two.
pub const DEFAULT_BOOT_TIMEOUT: Duration = Duration::from_secs(300);

/// How the machines of a sandbox are booted, where that is needed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Boots {
    /// How long it may take.
    pub(crate) timeout: Duration,
    pub(crate) kernel: Kernel,
}

impl Default for Boots {
    fn default() -> Boots {
        Boots { timeout: DEFAULT_BOOT_TIMEOUT, kernel: Kernel::default() }
    }
}
