//! What the file of a Linux kernel for PCs says of itself; see the kernel's `Documentation/arch/x86/boot.rst`.

use std::cmp::Ordering;

/// So much of the beginning of a kernel's file holds what is read here, in bytes.
pub const HEAD: usize = 0x1_0000 + 0x200 + LONGEST_BANNER;

/// The most that is read of a kernel's own words, in bytes.
const LONGEST_BANNER: usize = 512;

/// What tells a kernel from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banner {
    /// As `uname -r` says it.
    pub release: String,
    /// As `uname -v` says it, which differs between two builds of a release.
    pub build: String,
}

/// What the kernel that begins with these bytes says of itself. `None` where they are no kernel's.
pub fn banner(head: &[u8]) -> Option<Banner> {
    if head.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = usize::from(u16::from_le_bytes(head.get(0x20e..0x210)?.try_into().ok()?)) + 0x200;
    let text = head.get(at..)?.iter().take(LONGEST_BANNER).take_while(|byte| **byte != 0).copied().collect();
    let text = String::from_utf8(text).ok()?;
    // RELEASE (BUILDER) BUILD
    let (release, rest) = text.split_once(' ').unwrap_or((&text, ""));
    let build = rest.split_once(") ").map_or(rest, |(_, build)| build);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+~".contains(&byte);
    let fits = !release.is_empty() && release.len() < 128 && release.bytes().all(plain) && !release.starts_with('.');
    fits.then(|| Banner { release: release.to_owned(), build: build.to_owned() })
}

/// How many bytes the file of a kernel that begins with these bytes has at least, by what its header says. 0 where it does not say.
pub fn least_size(head: &[u8]) -> u64 {
    let Some(&setup_sectors) = head.get(0x1f1) else { return 0 };
    let Some(system) = head.get(0x1f4..0x1f8).and_then(|bytes| bytes.try_into().ok()) else { return 0 };
    let setup_sectors = if setup_sectors == 0 { 4 } else { u64::from(setup_sectors) };
    match u64::from(u32::from_le_bytes(system)) * 16 {
        0 => 0,
        system => (setup_sectors + 1) * 512 + system,
    }
}

/// The release of the kernel that begins with these bytes.
pub fn release_of(head: &[u8]) -> Option<String> {
    banner(head).map(|banner| banner.release)
}

/// Orders releases of kernels, and other names with a version, as boot loaders do, the newest last: by their numbers and words from left to right, `6.9` before `6.10`, and
/// `6.2-rc1` before `6.2`.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (parts(left), parts(right));
    for (left, right) in left.iter().zip(&right) {
        let order = match (number(left), number(right)) {
            (Some(left), Some(right)) => left.len().cmp(&right.len()).then_with(|| left.cmp(right)),
            (Some(_), None) => Ordering::Greater,
            (None, Some(_)) => Ordering::Less,
            (None, None) => left.cmp(right),
        };
        if order.is_ne() {
            return order;
        }
    }
    let (left_rest, right_rest) = (left.get(right.len()), right.get(left.len()));
    match (left_rest, right_rest) {
        (Some(more), _) if is_before_release(more) => Ordering::Less,
        (_, Some(more)) if is_before_release(more) => Ordering::Greater,
        _ => left.len().cmp(&right.len()),
    }
}

fn is_before_release(part: &str) -> bool {
    matches!(part, "rc" | "pre" | "alpha" | "beta")
}

/// A part's digits, where it is a number.
fn number(part: &str) -> Option<&str> {
    part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.trim_start_matches('0'))
}

/// Its runs of digits and of letters.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let mut rest = word;
        while let Some(first) = rest.bytes().next() {
            let same = |byte: &u8| byte.is_ascii_digit() == first.is_ascii_digit();
            let (part, more) = rest.split_at(rest.bytes().take_while(same).count());
            parts.push(part);
            rest = more;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(words: &[u8]) -> Vec<u8> {
        let mut kernel = vec![0; 0x800];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20e..0x210].copy_from_slice(&0x400u16.to_le_bytes());
        kernel[0x600..0x600 + words.len()].copy_from_slice(words);
        kernel
    }

    #[test]
    fn a_kernel_tells_its_release_and_its_build() {
        let mut debian =
            kernel(b"6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP Debian 6.1.192-2 (2026-11-16)");
        let read = banner(&debian).unwrap();
        assert_eq!(read.release, "6.1.0-56-cloud-amd64");
        assert_eq!(read.build, "#1 SMP Debian 6.1.192-2 (2026-11-16)");
        assert_eq!(release_of(&kernel(b"6.1")).as_deref(), Some("6.1"));
        debian[0x20e..0x210].copy_from_slice(&0xffffu16.to_le_bytes());
        assert_eq!(banner(&debian), None);
        for bad in [&b"../../x (a) b"[..], b"", b" x", b"\xff\xfe", b"a/b"] {
            assert_eq!(banner(&kernel(bad)), None);
        }
        assert_eq!(banner(b"\x7fELF"), None);
    }

    #[test]
    fn a_kernel_tells_how_long_it_is() {
        let mut debian = kernel(b"6.1");
        assert_eq!((least_size(&debian), least_size(b"")), (0, 0));
        debian[0x1f1] = 39;
        debian[0x1f4..0x1f8].copy_from_slice(&0x7_5000u32.to_le_bytes());
        assert_eq!(least_size(&debian), 40 * 512 + 0x75_0000);
        debian[0x1f1..0x1f8].copy_from_slice(&[0xff; 7]);
        assert_eq!(least_size(&debian), 256 * 512 + 0xf_ffff_fff0);
    }

    #[test]
    fn releases_are_ordered_as_boot_loaders_do() {
        let ordered = [
            "2.6.32-754.el6",
            "6.1.0-9-amd64",
            "6.1.0-56-amd64",
            "6.1.0-56-cloud-amd64",
            "6.2-rc1",
            "6.2",
            "6.2.1",
            "6.9.0-1-generic",
            "6.10.0-1-generic",
            "20250519-30",
            "20250519-2117",
            "12345678901234567890123.0",
        ];
        for pair in ordered.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        let mut names = vec!["v3.9", "10.0", "v3.22", "latest", "9", "10", "9.5"];
        names.sort_by(|one, other| compare(one, other));
        assert_eq!(names, ["latest", "v3.9", "v3.22", "9", "9.5", "10", "10.0"]);
        assert_eq!(compare("6.1", "6.1"), Ordering::Equal);
    }
}
