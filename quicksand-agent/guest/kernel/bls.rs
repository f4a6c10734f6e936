//! Entries of the Boot Loader Specification, a file each in `loader/entries`, as GRUB on Fedora and systemd-boot read them.

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
};

use quicksand_protocol::kernel::compare;

use super::{
    choose::{named, names},
    grub, text,
};

/// Where there may be entries.
const PLACES: [&str; 4] = ["boot", "efi", "boot/efi", "boot/EFI"];
/// Most entries that are read.
const MOST_ENTRIES: usize = 200;

#[derive(Debug, Default)]
struct Entry {
    /// Its file's name without its ending.
    id: String,
    title: String,
    sort_key: String,
    machine: String,
    version: String,
    kernel: Option<String>,
}

impl Entry {
    fn parse(id: &str, text: &str) -> Entry {
        let mut entry = Entry { id: id.to_owned(), ..Entry::default() };
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once([' ', '\t']) else { continue };
            let value = value.trim().to_owned();
            match key {
                "title" => entry.title = value,
                "sort-key" => entry.sort_key = value,
                "machine-id" => entry.machine = value,
                "version" => entry.version = value,
                "linux" => entry.kernel = Some(value),
                _ => {}
            }
        }
        entry
    }
}

/// The entries below a directory.
fn entries(directory: &Path) -> Vec<Entry> {
    let place = directory.join("loader/entries");
    let files = names(&place).into_iter().filter_map(|name| Some(name.strip_suffix(".conf")?.to_owned()));
    let files = files.take(MOST_ENTRIES);
    files.filter_map(|id| Some(Entry::parse(&id, &text(&place.join(format!("{id}.conf"))).ok()?))).collect()
}

/// Those of `/boot`, as GRUB puts them into its menu: the newest first, by their names.
pub(super) fn for_grub(root: &Path) -> Vec<grub::Entry> {
    let mut entries = entries(&root.join("boot"));
    entries.sort_by(|a, b| compare(&b.id, &a.id));
    let into =
        |entry: Entry| grub::Entry { title: entry.title, id: entry.id, kernel: entry.kernel, entries: Vec::new() };
    entries.into_iter().map(into).collect()
}

/// The kernel that systemd-boot would boot: of the entry that its `loader.conf` names, else of the first.
pub(super) fn systemd_boot(root: &Path) -> Option<PathBuf> {
    let places = PLACES.map(|place| root.join(place)).into_iter();
    let (directory, mut entries) =
        places.map(|place| (place.clone(), entries(&place))).find(|(_, entries)| !entries.is_empty())?;
    entries.sort_by(order);
    let settings = text(&directory.join("loader/loader.conf")).unwrap_or_default();
    let lines = settings.lines().filter_map(|line| line.trim().split_once([' ', '\t']));
    let wanted = lines.filter(|(key, _)| *key == "default").map(|(_, value)| value.trim()).next_back();
    let fits = |entry: &&Entry| {
        let wanted = wanted.unwrap_or_default();
        matches(wanted.as_bytes(), entry.id.as_bytes())
            || matches(wanted.as_bytes(), format!("{}.conf", entry.id).as_bytes())
    };
    let bootable = || entries.iter().filter(|entry| entry.kernel.is_some());
    let kernel = bootable().find(fits).or_else(|| bootable().next())?.kernel.clone()?;
    named(root, &directory, &kernel)
}

/// The order of systemd-boot's menu.
fn order(a: &Entry, b: &Entry) -> Ordering {
    match (a.sort_key.is_empty(), b.sort_key.is_empty()) {
        (false, false) => {
            (&a.sort_key, &a.machine).cmp(&(&b.sort_key, &b.machine)).then(compare(&b.version, &a.version))
        }
        (keyless, other) => keyless.cmp(&other),
    }
    .then_with(|| compare(&b.id, &a.id))
}

/// Whether a name fits a pattern with `*` and `?`. Takes no longer than the product of their lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut name_at, mut star) = (0, 0, None);
    while name_at < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, name_at));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[name_at] => (at, name_at) = (at + 1, name_at + 1),
            _ => {
                let Some((star_at, tried)) = star else { return false };
                star = Some((star_at, tried + 1));
                (at, name_at) = (star_at + 1, tried + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}
