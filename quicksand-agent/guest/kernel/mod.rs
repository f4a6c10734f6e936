//! The kernel that the guest would boot by itself, which the host can't see: it lies on the guest's disk.
//!
//! Looked for by process 1 once the root file system is in its place. Where it is another than the one that runs, the host is
//! offered it, with the modules that it needs, and boots the machine once more.

mod bls;
mod boot_partition;
mod choose;
mod grub;
mod offer;
mod syslinux;

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use nix::sys::utsname::uname;
use quicksand_protocol::{
    kernel::{Banner, HEAD, banner, least_size},
    message::LARGEST_OFFER,
    modules::needed,
};

/// The most of a text that is read, in bytes: a boot loader's configuration, or what `depmod` writes.
const LARGEST_TEXT: u64 = 16 << 20;
/// By so many bytes a kernel may be shorter than its header says: it counts in paragraphs, and what is padding may be left out.
const SLACK: u64 = 4096;

/// A kernel that can be offered.
#[derive(Debug)]
struct Found {
    release: String,
    kernel: PathBuf,
    /// In the order to load them.
    modules: Vec<PathBuf>,
}

/// Offers the host the kernel that the guest would boot by itself, where it is not the one that runs, and returns only if there is
/// nothing to offer: with what is wrong, where something is. `file_system` is the kind of the root.
pub(crate) fn look(file_system: &str) -> Option<String> {
    let root = Path::new("/");
    let boot = boot_partition::mount(root);
    let found = find(root, file_system);
    let fault = match &found {
        Ok(None) => without_modules(root),
        Ok(Some(found)) => {
            let error = offer::offer(found, boot.as_ref());
            Some(not_booted(&format!("Linux {} can't be handed over: {error}", found.release)))
        }
        Err(why) => Some(not_booted(why)),
    };
    if let Some(boot) = boot {
        boot.unmount();
    }
    // The agent gets it as a variable of its environment, and people read it: names of files may have anything in them.
    fault.map(|fault| fault.replace(char::is_control, "?"))
}

fn not_booted(why: &str) -> String {
    format!("the image's kernel was booted, and not the one that the disk asks for: {why}")
}

/// What is wrong where the kernel that runs is the right one, or the only one, but its modules were removed.
fn without_modules(root: &Path) -> Option<String> {
    let release = uname().ok()?.release().to_str()?.to_owned();
    let has_some = fs::read("/proc/modules").is_ok_and(|modules| !modules.is_empty());
    (has_some && modules_of(root, &release).is_none()).then(|| {
        format!("no module can be loaded: Linux {release} runs, and there is no /lib/modules/{release}/modules.dep")
    })
}

fn find(root: &Path, file_system: &str) -> Result<Option<Found>, String> {
    let Some(kernel) = choose::choose(root) else { return Ok(None) };
    let shown = kernel.display().to_string();
    let Some((banner, least)) = head_of(&kernel).and_then(|head| Some((banner(&head)?, least_size(&head)))) else {
        return Err(format!("{shown} is no Linux kernel that can be booted directly"));
    };
    if runs(&banner) {
        return Ok(None);
    }
    let size = fs::metadata(&kernel).map_or(0, |metadata| metadata.len());
    if size + SLACK < least {
        return Err(format!("{shown} is cut off: it has {size} bytes, and its header tells of {least}"));
    }
    let release = &banner.release;
    let Some(directory) = modules_of(root, release) else {
        return Err(format!("{shown} is Linux {release}, of which there is no /lib/modules/{release}/modules.dep"));
    };
    let text =
        |name: &str| text(&directory.join(name)).map_err(|error| format!("read {name} of Linux {release}: {error}"));
    let paths = needed(&text("modules.dep")?, &text("modules.builtin")?, file_system);
    let paths = paths.map_err(|missing| format!("{shown} is Linux {release}, and to boot it here: {missing}"))?;
    let modules: Vec<_> = paths.iter().map(|path| directory.join(path)).collect();
    let mut total = 0;
    for file in [&kernel].into_iter().chain(&modules) {
        match fs::metadata(file) {
            Ok(metadata) if metadata.is_file() => total += metadata.len(),
            _ => return Err(format!("{shown} is Linux {release}, whose file {} is missing", file.display())),
        }
    }
    if total > LARGEST_OFFER {
        return Err(format!("{shown} and its modules have {total} bytes, the limit is {LARGEST_OFFER}"));
    }
    Ok(Some(Found { release: release.clone(), kernel, modules }))
}

/// Whether it is the kernel that runs.
fn runs(banner: &Banner) -> bool {
    uname().is_ok_and(|it| it.release() == &*banner.release && it.version() == &*banner.build)
}

/// What the kernel in a file says of itself. `None` where it is none.
fn banner_of(path: &Path) -> Option<Banner> {
    banner(&head_of(path)?)
}

fn head_of(path: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    // What is no plain file may never end, or begin.
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    File::open(path).ok()?.take(HEAD as u64).read_to_end(&mut head).ok()?;
    Some(head)
}

/// The directory of the modules of a release, where it is there.
fn modules_of(root: &Path, release: &str) -> Option<PathBuf> {
    let places = ["lib/modules", "usr/lib/modules"].map(|place| root.join(place).join(release));
    places.into_iter().find(|directory| directory.join("modules.dep").is_file())
}

/// A text file that is not too long.
fn text(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > LARGEST_TEXT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file of a sane length"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_TEXT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
