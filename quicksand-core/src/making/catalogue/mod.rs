//! The images that are known by name: of which distribution, in which version, and where they are from.
//!
//! A name is a distribution's, as in `ubuntu`, or with a version, as in `ubuntu:24.04`. Where the publisher keeps its cloud images is
//! written as a URL in which `*` stands for what is looked up in the listing of its directory: the newest there is.

pub(crate) mod checksums;
pub(crate) mod fetch;
pub(crate) mod signature;

use signature::Signature;

/// A distribution.
#[derive(Debug)]
struct Family {
    name: &'static str,
    /// The version that the name alone means. `*` is the newest that the publisher has.
    newest: &'static str,
    /// Versions that there are, for people: any other is looked for, too.
    versions: &'static [&'static str],
    /// The code names by which the distribution knows its versions. Where there are any, there are no other versions.
    suites: &'static [(&'static str, &'static str)],
    /// Whether this host may build it from packages.
    packages: bool,
    cloud: Cloud<&'static str>,
}

/// Where a publisher has an image. `{version}` and `{suite}` are put in; `*` is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cloud<T> {
    /// The distribution, whose keys sign the list.
    pub(crate) family: &'static str,
    /// Ends with a slash.
    pub(crate) directory: T,
    pub(crate) file: T,
    /// The list of digests in the same directory. `{file}` is the image's own name.
    pub(crate) checksums: T,
    pub(crate) signature: Signature,
}

const FAMILIES: [Family; 6] = [
    Family {
        name: "alpine",
        newest: "*",
        versions: &["3.21", "3.22"],
        suites: &[],
        packages: false,
        cloud: Cloud {
            family: "alpine",
            directory: "https://dl-cdn.alpinelinux.org/alpine/v{version}/releases/cloud/",
            file: "nocloud_alpine-*-x86_64-bios-cloudinit-r*.qcow2",
            checksums: "{file}.sha512",
            // It signs its images, and not the list.
            signature: Signature::None,
        },
    },
    Family {
        name: "debian",
        newest: "12",
        versions: &["11", "12", "13"],
        suites: &[("11", "bullseye"), ("12", "bookworm"), ("13", "trixie")],
        packages: true,
        cloud: Cloud {
            family: "debian",
            directory: "https://cloud.debian.org/images/cloud/{suite}/*/",
            file: "debian-{version}-genericcloud-amd64-*.qcow2",
            checksums: "SHA512SUMS",
            signature: Signature::None,
        },
    },
    Family {
        name: "fedora",
        newest: "*",
        versions: &["42", "43"],
        suites: &[],
        packages: false,
        cloud: Cloud {
            family: "fedora",
            directory: "https://dl.fedoraproject.org/pub/fedora/linux/releases/{version}/Cloud/x86_64/images/",
            file: "Fedora-Cloud-Base-Generic-*.x86_64.qcow2",
            checksums: "Fedora-Cloud-*-x86_64-CHECKSUM",
            signature: Signature::Inside,
        },
    },
    Family {
        name: "opensuse",
        newest: "15.6",
        versions: &["15.6"],
        suites: &[],
        packages: false,
        cloud: Cloud {
            family: "opensuse",
            directory: "https://download.opensuse.org/distribution/leap/{version}/appliances/",
            file: "openSUSE-Leap-{version}-Minimal-VM.x86_64-*-Cloud-Build*.qcow2",
            checksums: "{file}.sha256",
            signature: Signature::Beside(&[".asc"]),
        },
    },
    Family {
        name: "rocky",
        newest: "*",
        versions: &["9", "10"],
        suites: &[],
        packages: false,
        cloud: Cloud {
            family: "rocky",
            directory: "https://dl.rockylinux.org/pub/rocky/{version}/images/x86_64/",
            file: "Rocky-*-GenericCloud-Base-*.x86_64.qcow2",
            checksums: "{file}.CHECKSUM",
            signature: Signature::Beside(&[".asc", ".sig"]),
        },
    },
    Family {
        name: "ubuntu",
        newest: "24.04",
        versions: &["22.04", "24.04"],
        suites: &[],
        packages: false,
        cloud: Cloud {
            family: "ubuntu",
            directory: "https://cloud-images.ubuntu.com/releases/{version}/release-*/",
            file: "ubuntu-{version}-server-cloudimg-amd64.img",
            checksums: "SHA256SUMS",
            signature: Signature::Beside(&[".gpg"]),
        },
    },
];

/// An image that is known by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The one name of several that locks and the cache know it by.
    pub(crate) name: String,
    /// The suite of packages that this host may build it from.
    pub(crate) suite: Option<&'static str>,
    /// Where its publisher has it.
    pub(crate) cloud: Cloud<String>,
}

/// What a name stands for. `None` for names that are not in the catalogue.
pub(crate) fn find(name: &str) -> Option<Entry> {
    let (family, version) = name.split_once(':').map_or((name, None), |(family, version)| (family, Some(version)));
    let family = FAMILIES.iter().find(|it| it.name == family)?;
    let version = version.unwrap_or(family.newest);
    let plain = version.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if !plain && version != family.newest {
        return None;
    }
    let suite = family.suites.iter().find(|(number, _)| *number == version).map(|(_, suite)| *suite);
    if suite.is_none() && !family.suites.is_empty() {
        return None;
    }
    let fill = |text: &str| text.replace("{version}", version).replace("{suite}", suite.unwrap_or_default());
    let name = match (family.name, version) {
        // The one that was there before there were versions.
        ("debian", "12") => "debian".to_owned(),
        (name, "*") => name.to_owned(),
        (name, version) => format!("{name}:{version}"),
    };
    Some(Entry {
        name,
        suite: suite.filter(|_| family.packages),
        cloud: Cloud {
            family: family.name,
            directory: fill(family.cloud.directory),
            file: fill(family.cloud.file),
            checksums: fill(family.cloud.checksums),
            signature: family.cloud.signature,
        },
    })
}

/// Names that there are, for people.
pub(crate) fn names() -> Vec<String> {
    let of = |family: &Family| {
        let versions = family.versions.iter().map(|version| format!("{}:{version}", family.name));
        std::iter::once(family.name.to_owned()).chain(versions).collect::<Vec<_>>()
    };
    FAMILIES.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_publishers() {
        let ubuntu = find("ubuntu").unwrap();
        assert_eq!(find("ubuntu:24.04").unwrap(), ubuntu);
        assert_eq!(ubuntu.name, "ubuntu:24.04");
        assert_eq!(ubuntu.cloud.directory, "https://cloud-images.ubuntu.com/releases/24.04/release-*/");
        assert_eq!(ubuntu.cloud.file, "ubuntu-24.04-server-cloudimg-amd64.img");
        assert_eq!(ubuntu.suite, None);
        let debian = find("debian:13").unwrap();
        assert_eq!((debian.name.as_str(), debian.suite), ("debian:13", Some("trixie")));
        assert_eq!(debian.cloud.directory, "https://cloud.debian.org/images/cloud/trixie/*/");
        assert_eq!(find("debian"), find("debian:12"));
        assert_eq!(find("fedora").unwrap().name, "fedora");
        assert!(find("fedora").unwrap().cloud.directory.contains("/releases/*/"));
        assert!(find("fedora:41").unwrap().cloud.directory.contains("/releases/41/"));
        for unknown in ["plan9", "debian:99", "debian:../..", "ubuntu:", "ubuntu:24.", "ubuntu:a", "fedora:*x", "", ":"]
        {
            assert_eq!(find(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn every_name_that_is_told_is_known() {
        let names = names();
        assert!(names.len() > 12 && names.iter().all(|name| find(name).is_some()), "{names:?}");
    }
}
