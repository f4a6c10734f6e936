//! What machines need of this host, each thing looked at for real, with the way to mend what is missing.

use std::{env, fs, path::Path};

use crate::{
    base::{accel::Accel, cache::Cache, environment::Environment, size::Size},
    error::Error,
    host::{Host, admission, on_path},
    image::Image,
    launch::{accel, source},
    making,
    vm::Probe,
};

/// The least free space for an image, its warm state and a few saves.
const ROOM: Size = Size::from_mib(4096);
/// The least memory for a machine or two beside what else runs.
const MEMORY: Size = Size::from_mib(1024);

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub what: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do about it: a command, where there is one.
    pub mend: Option<String>,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Machines run without it, but slower, or not all of them.
    Poor,
    /// No machine runs so.
    Bad,
}

impl Finding {
    fn good(what: &'static str, detail: impl Into<String>) -> Finding {
        Finding { what, verdict: Verdict::Good, detail: detail.into(), mend: None }
    }

    fn poor(what: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { what, verdict: Verdict::Poor, detail: detail.into(), mend: Some(mend.into()) }
    }

    fn bad(what: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Bad, ..Finding::poor(what, detail, mend) }
    }
}

/// Looks at all that machines need of this host. Takes seconds where an accelerator is probed for the first time since the host
/// booted, and else a moment.
pub async fn examine() -> Vec<Finding> {
    let mut findings = Vec::new();
    let host = Host::discover();
    match &host {
        Ok(host) => findings.push(Finding::good("QEMU", format!("{} {}", host.qemu.display(), host.version))),
        // Not QEMU's fault, and told below.
        Err(Error::Environment(_) | Error::Cache(_)) => {}
        Err(error) => {
            let mend = "apt-get install qemu-system-x86, or dnf install qemu-kvm";
            findings.push(Finding::bad("QEMU", told(error), mend));
        }
    }
    findings.push(match on_path(Path::new("qemu-img")).is_some() {
        true => Finding::good("qemu-img", "found"),
        false => Finding::bad("qemu-img", "not found", "apt-get install qemu-utils, or dnf install qemu-img"),
    });
    if let Ok(host) = &host {
        findings.push(accelerator(host).await);
    }
    let passt = Environment::read().ok().and_then(|read| read.passt).unwrap_or_else(|| "passt".into());
    findings.push(match on_path(&passt).is_some() {
        true => Finding::good("passt", "found: the network `full` leads to the internet and not to this host"),
        false => Finding::poor(
            "passt",
            "not found: with the network `full` a guest reaches this host's loopback",
            "apt-get install passt",
        ),
    });
    findings.push(memory());
    match Environment::read().map_err(Error::from).and_then(|read| Ok(Cache::chosen(read.cache_dir)?)) {
        Ok(cache) => {
            findings.push(disk(&cache));
            findings.push(match making::check_tools(&cache).await {
                Ok(()) => Finding::good("making images", "mmdebstrap and what it needs are there"),
                Err(error) => {
                    Finding::poor("making images", told(&error), "apt-get install mmdebstrap e2fsprogs uidmap")
                }
            });
        }
        Err(error @ Error::Environment(_)) => {
            findings.push(Finding::bad("environment", told(&error), "set the variable to such a value, or unset it"));
        }
        Err(error) => findings.push(Finding::bad(
            "cache directory",
            told(&error),
            "set QUICKSAND_CACHE_DIR to a directory that you may write to",
        )),
    }
    findings
}

async fn accelerator(host: &Host) -> Finding {
    let what = "accelerator";
    // A probe runs a kernel, so it takes an image. Any will do.
    let images = fs::read_dir(host.cache.images()).into_iter().flatten().flatten();
    let image = images.filter_map(|entry| Image::find(&host.cache, entry.file_name().to_str()?).ok().flatten()).next();
    let Some(image) = image else {
        return match fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            Ok(_) => Finding::poor(what, "KVM opens; whether it runs a kernel is found out with the first image", PULL),
            Err(error) => {
                Finding::poor(what, format!("software emulation: /dev/kvm does not open: {error}"), mend_kvm())
            }
        };
    };
    let choice = match source::probe_files(host, &image) {
        Ok(files) => accel::choose(host, Accel::Auto, Probe::of(&files)).await,
        Err(error) => Err(error),
    };
    match choice {
        Ok(accel::Choice { accelerator, why_not_better: None }) => {
            Finding::good(what, format!("{accelerator} runs a kernel"))
        }
        Ok(accel::Choice { accelerator, why_not_better: Some(why) }) => {
            let mend = if why.starts_with(accel::DOES_NOT_OPEN) { mend_kvm() } else { BROKEN_KVM.to_owned() };
            Finding::poor(what, format!("{accelerator}, which is slow: {why}"), mend)
        }
        Err(error) => Finding::bad(what, told(&error), mend_kvm()),
    }
}

const PULL: &str = "quicksand images pull debian";

const BROKEN_KVM: &str = "none on this host: ask whoever runs it for one whose KVM runs guests";

/// Opens KVM to all users, as runners of hosted CI, which have it, do not.
const OPEN_KVM: &str = concat!(
    r#"echo 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"' | "#,
    "sudo tee /etc/udev/rules.d/99-kvm4all.rules && sudo udevadm control --reload-rules && ",
    "sudo udevadm trigger --name-match=kvm",
);

fn mend_kvm() -> String {
    if env::var_os("GITHUB_ACTIONS").is_some() {
        return OPEN_KVM.to_owned();
    }
    match Path::new("/dev/kvm").exists() {
        true => "sudo usermod --append --groups kvm $USER, and log in again".to_owned(),
        false => "switch on virtualization in the firmware, or nested virtualization for this machine".to_owned(),
    }
}

fn memory() -> Finding {
    match admission::memory_of_host() {
        Some((total, available)) => {
            let detail = format!("{} of {} available", rounded(available), rounded(total));
            match available < MEMORY {
                true => Finding::poor("memory", detail, "end something, or give the machines less with memory(..)"),
                false => Finding::good("memory", detail),
            }
        }
        None => Finding::poor("memory", "the host does not tell", "mount /proc"),
    }
}

fn disk(cache: &Cache) -> Finding {
    let path = cache.root().display();
    match nix::sys::statvfs::statvfs(cache.root()) {
        Ok(stat) => {
            let free = Size::from_bytes(stat.blocks_available() * stat.fragment_size());
            let detail = format!("{} free at {path}", rounded(free));
            match free < ROOM {
                true => Finding::poor("disk", detail, "quicksand prune, or set QUICKSAND_CACHE_DIR"),
                false => Finding::good("disk", detail),
            }
        }
        Err(error) => Finding::bad("disk", format!("{path}: {error}"), "set QUICKSAND_CACHE_DIR"),
    }
}

/// A size for people: in MiB or GiB, whichever is shorter.
fn rounded(size: Size) -> String {
    match size.bytes() >> 20 {
        mib @ 0..10_240 => format!("{mib} MiB"),
        mib => format!("{} GiB", mib >> 10),
    }
}

fn told(error: &dyn std::error::Error) -> String {
    let mut text = format!("failed to {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
