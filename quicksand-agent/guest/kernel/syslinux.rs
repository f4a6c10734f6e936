//! The choice of SYSLINUX and EXTLINUX, as Alpine has them.

use std::path::{Path, PathBuf};

use super::{choose::named, text};

/// Where its configuration may be.
const PLACES: [&str; 6] = [
    "boot/extlinux.conf",
    "boot/extlinux/extlinux.conf",
    "extlinux.conf",
    "boot/syslinux/syslinux.cfg",
    "boot/syslinux.cfg",
    "syslinux.cfg",
];

#[derive(Debug, Default)]
struct Label {
    name: String,
    kernel: Option<String>,
    is_default: bool,
}

/// The kernel of the default label.
pub(super) fn choose(root: &Path) -> Option<PathBuf> {
    let file = PLACES.map(|place| root.join(place)).into_iter().find(|file| file.is_file())?;
    let kernel = kernel(&text(&file).ok()?)?;
    named(root, file.parent()?, &kernel)
}

fn kernel(text: &str) -> Option<String> {
    let (mut labels, mut wanted) = (Vec::<Label>::new(), Vec::new());
    for line in text.lines().take(10_000) {
        let mut words = line.split_whitespace();
        let word = words.next().unwrap_or_default().to_ascii_lowercase();
        let rest = words.collect::<Vec<_>>().join(" ");
        match (word.as_str(), labels.last_mut()) {
            // What is asked for first counts first; a menu's own program is no label.
            ("default", _) => wanted.insert(0, rest),
            ("ontimeout", _) => wanted.push(rest),
            ("label", _) => labels.push(Label { name: rest, ..Label::default() }),
            ("kernel" | "linux", Some(label)) => label.kernel = rest.split(' ').next().map(str::to_owned),
            ("menu", Some(label)) if rest.eq_ignore_ascii_case("default") => label.is_default = true,
            _ => {}
        }
    }
    let by_name = wanted.iter().find_map(|name| labels.iter().find(|label| label.name == *name));
    let chosen = by_name.or_else(|| labels.iter().find(|label| label.is_default)).or(labels.first())?;
    chosen.kernel.clone()
}
