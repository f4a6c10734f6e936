//! What a sandbox starts from: an image or a save, and the warm state that belongs to it.

use std::{path::PathBuf, time::Duration};

use sha2::{Digest, Sha256};

use super::kernel::{Boots, Kernel};
use crate::{
    base::{
        cache::{CacheError, Unfinished, discard, touch},
        digest::short_key,
        progress::Reporter,
        random::hex,
    },
    error::Error,
    host::Host,
    image::{
        Image,
        state::{self, Across, Description, State},
    },
    qemu::machine::{Accelerator, Machine},
    vm::{Boot, DiskAlone, Probe, Rest, Vm},
};

/// How long another process may take to boot the state that we wait for.
const OTHERS_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What would wait for a network while the machine boots, where there is none yet. Kernels and other inits pass over these words.
const MASKED: [&str; 3] =
    ["NetworkManager-wait-online.service", "systemd-networkd-wait-online.service", "wicked.service"];

/// What a sandbox starts from.
#[derive(Debug)]
pub(crate) enum Source {
    Image(Image),
    Save(Box<State>),
}

impl Source {
    pub(crate) fn image(&self) -> Image {
        match self {
            Source::Image(image) => image.clone(),
            Source::Save(state) => state.image().clone(),
        }
    }

    /// The machine of a save.
    pub(crate) fn machine(&self) -> Option<&Machine> {
        match self {
            Source::Save(state) => Some(&state.manifest.machine),
            Source::Image(_) => None,
        }
    }

    /// Tells it from every other image and save.
    pub(crate) fn id(&self) -> String {
        match self {
            Source::Image(image) => format!("image {}", image.identity()),
            Source::Save(state) => format!("save {}", state.manifest.id),
        }
    }

    /// The disk's size in bytes.
    pub(crate) fn disk_size(&self) -> u64 {
        match self {
            Source::Image(image) => image.disk_size(),
            Source::Save(state) => state.disk_size(),
        }
    }

    /// The disk's files, none of which is ever written.
    fn disk(&self) -> Vec<PathBuf> {
        match self {
            Source::Image(image) => vec![image.disk()],
            Source::Save(state) => state.disk(),
        }
    }
}

/// A warm state, and whether it had to be booted.
#[derive(Debug)]
pub(crate) struct Warm {
    pub(crate) state: State,
    pub(crate) booted: bool,
}

/// The warm state of a source for that machine, from the cache; booted and kept where it is not there.
pub(crate) async fn warm_state(
    host: &Host,
    source: &Source,
    machine: &Machine,
    boots: Boots,
    reporter: &Reporter,
) -> Result<Warm, Error> {
    let (machine_key, image) = (machine.key(host.version), source.image());
    let key = warm_key(host, source, machine, boots.kernel);
    let directory = host.cache.states().join(&key);
    // A damaged one is made again: it is only a cache.
    let look = || State::read(&directory).unwrap_or_default();
    if let Some(state) = look() {
        return Ok(Warm { state, booted: false });
    }
    let _lock = host.cache.lock(&format!("state-{key}"), OTHERS_PATIENCE).await?;
    if let Some(state) = look() {
        return Ok(Warm { state, booted: false });
    }

    reporter.report("boot", 0, 1);
    let boot = boot(host, &image, machine.accelerator, boots)?;
    let vm = Vm::boot(host, machine, (source.disk(), source.disk_size()), &boot).await?;
    reporter.report("boot", 1, 1);

    reporter.report("freeze", 0, 1);
    let unfinished = Unfinished::beside(&directory)?;
    let frozen = vm.freeze(host, unfinished.path(), DiskAlone::Whole, Rest::Long).await?;
    let description = Description {
        machine: machine.clone(),
        machine_key,
        disk_size: frozen.disk_size,
        user_network: vm.user_network(),
        cards: vm.cards(),
        in_frame: frozen.in_frame,
        recipe: None,
        kernel_fault: vm.kernel_fault(),
    };
    state::write(unfinished.path(), &image, &frozen.layers, Across::Copy, description)?;
    vm.process().kill().await.map_err(Error::io("end the machine of", &directory))?;
    drop(vm);
    // A cache of what can be made again is not worth waiting for the disk. Where the host crashes, its files may be empty, which
    // a restore notices.
    unfinished.finish_unsynced()?;
    reporter.report("freeze", 1, 1);
    let state = look().ok_or_else(|| CacheError::io("read back", &directory)(std::io::ErrorKind::NotFound.into()))?;
    Ok(Warm { state, booted: true })
}

/// What a machine with that image boots.
pub(crate) fn boot(host: &Host, image: &Image, accelerator: Accelerator, boots: Boots) -> Result<Boot, Error> {
    let initramfs = initramfs_file(host, image)?;
    let (kernel, command_line) = (image.kernel(), command_line(image, accelerator));
    let guests_choice = asks(image, boots.kernel);
    Ok(Boot { kernel, initramfs, command_line, timeout: boots.timeout, guests_choice })
}

/// What tells a warm state from all others.
pub(crate) fn warm_key(host: &Host, source: &Source, machine: &Machine, kernel: Kernel) -> String {
    let image = source.image();
    let (command_line, asks) = (command_line(&image, machine.accelerator), asks(&image, kernel));
    warm_key_of(&source.id(), &machine.key(host.version), &command_line, asks)
}

fn warm_key_of(source: &str, machine_key: &str, command_line: &str, asks: bool) -> String {
    short_key(&format!("{source}\n{machine_key}\n{command_line}\n{asks}"))
}

/// The warm state of a source for that machine, where the cache has it.
pub(crate) fn known_warm_state(host: &Host, source: &Source, machine: &Machine, kernel: Kernel) -> Option<State> {
    // Damaged is absent: it is only a cache.
    State::read(&host.cache.states().join(warm_key(host, source, machine, kernel))).ok().flatten()
}

/// Removes a warm state that turned out not to work, so that it is made again.
pub(crate) fn quarantine(host: &Host, state: &State) {
    // Only the cache's own: a save is the user's.
    if state.directory().starts_with(host.cache.states()) {
        let _ = discard(state.directory());
    }
}

/// What a probe of an accelerator runs: the image's kernel with our initramfs.
pub(crate) fn probe_files(host: &Host, image: &Image) -> Result<(PathBuf, PathBuf), Error> {
    Ok((image.kernel(), initramfs_file(host, image)?))
}

impl<'a> Probe<'a> {
    pub(crate) fn of(files: &'a (PathBuf, PathBuf)) -> Probe<'a> {
        Probe { kernel: &files.0, initramfs: &files.1 }
    }
}

/// The image's initramfs with our agent, from the cache.
fn initramfs_file(host: &Host, image: &Image) -> Result<PathBuf, Error> {
    let key = &hex(&Sha256::digest(format!("{} {}", image.identity(), quicksand_agent::ID)))[..32];
    let path = host.cache.initramfs().join(key);
    if touch(&path).is_err() {
        host.cache.publish(&path, &crate::image::initramfs::initramfs(image)?)?;
    }
    Ok(path)
}

/// Whether a guest is asked which kernel it would boot.
fn asks(image: &Image, kernel: Kernel) -> bool {
    kernel == Kernel::Guest && image.has_own_kernel() && !image.is_bare()
}

fn command_line(image: &Image, accelerator: Accelerator) -> String {
    let mut words = vec![
        "console=ttyS0".to_owned(),
        "quiet".to_owned(),
        // A panic ends QEMU, which is noticed at once.
        "panic=-1".to_owned(),
        format!("quicksand.root={}", image.root_device()),
        format!("quicksand.fstype={}", image.file_system()),
        // Cloud images would look for somebody who tells them their name, for minutes.
        "cloud-init=disabled".to_owned(),
        // A distribution that enforces SELinux has no rules for a program that was there before it.
        "enforcing=0".to_owned(),
    ];
    if !image.root_flags().is_empty() {
        words.push(format!("quicksand.rootflags={}", image.root_flags()));
    }
    if image.is_bare() {
        words.push("quicksand.init=none".to_owned());
    }
    if accelerator == Accelerator::Tcg {
        // A program that lies elsewhere each time has QEMU translate it anew each time: more than half of what it costs to run
        // one. A guest that is to test just this turns it on again: sysctl kernel.randomize_va_space=2.
        words.push("norandmaps".to_owned());
        // Linux tries whether its timer ticks, and gives up where the host is too busy to emulate a few ticks in time. Under KVM it
        // does not try either.
        words.push("no_timer_check".to_owned());
    }
    words.extend(MASKED.map(|unit| format!("systemd.mask={unit}")));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::versioned::assert_pinned;

    #[test]
    fn the_key_of_a_warm_state_is_pinned() {
        let now = warm_key_of("source", "machine", "console=ttyS0", true);
        let to_do = "say in CHANGELOG.md that warm states are made again";
        assert_pinned("the key of a warm state", to_do, "b7e6199bfd8cbfb5f3d61221ccf652d4", &now);
    }
}
