//! Packages of dpkg and apk, from the lists that these keep.

use std::path::Path;

use quicksand_protocol::facts::{Answer, Package};

use super::{LIST_LIMIT, NAMES, read, text};

/// A package manager whose list of packages is a text: paragraphs of fields.
struct Manager {
    name: &'static str,
    /// Where its list may be.
    lists: &'static [&'static str],
    package: &'static str,
    version: &'static str,
    architecture: &'static str,
    /// The field of a package's state, where it is not by being listed that a package is installed.
    state: Option<&'static str>,
}

const MANAGERS: [Manager; 2] = [
    Manager {
        name: "dpkg",
        lists: &["var/lib/dpkg/status"],
        package: "Package",
        version: "Version",
        architecture: "Architecture",
        state: Some("Status"),
    },
    Manager {
        name: "apk",
        // Where `/lib` is a link into `/usr`, it is the second that apk itself writes.
        lists: &["lib/apk/db/installed", "usr/lib/apk/db/installed"],
        package: "P",
        version: "V",
        architecture: "A",
        state: None,
    },
];
/// What dpkg says of a package that is there and whole. It may be on hold.
const INSTALLED: &str = " ok installed";

/// The package as the first manager has it that knows it. `None` where there may be more in rpm's database.
pub(super) fn look(name: &str, root: &Path) -> Option<Answer> {
    let mut unknown = Package::default();
    for manager in &MANAGERS {
        for list in manager.lists {
            let path = root.join(list);
            let content = match read(&path, LIST_LIMIT) {
                Ok(content) => content,
                Err(_) if !path.exists() => continue,
                Err(error) => return Some(Answer::Failed(format!("read {}: {error}", path.display()))),
            };
            let package = manager.find(name, &content);
            if !package.state.is_empty() {
                return Some(Answer::Package(package));
            }
            if unknown.manager.is_none() {
                unknown = package;
            }
        }
    }
    (!super::rpm::has_database(root)).then_some(Answer::Package(unknown))
}

impl Manager {
    fn find(&self, name: &str, list: &[u8]) -> Package {
        let (wanted, wanted_architecture) = match (self.name, name.split_once(':')) {
            ("dpkg", Some((name, architecture))) => (name, Some(architecture)),
            _ => (name, None),
        };
        let mut found = Package { manager: Some(self.name.to_owned()), ..Package::default() };
        let mut similar = Vec::new();
        for paragraph in paragraphs(list) {
            let field = |wanted: &str| {
                let mut lines = paragraph.split(|byte| *byte == b'\n');
                lines.find_map(|line| line.strip_prefix(wanted.as_bytes())?.strip_prefix(b":")).map(<[u8]>::trim_ascii)
            };
            let Some(package) = field(self.package) else { continue };
            if package != wanted.as_bytes() {
                if similar.len() < NAMES && contains(package, wanted.as_bytes()) && self.is_installed(field) {
                    similar.push(text(package));
                }
                continue;
            }
            let architecture = field(self.architecture).map(text);
            if wanted_architecture.is_some_and(|wanted| architecture.as_deref() != Some(wanted)) {
                continue;
            }
            let installed = self.is_installed(field);
            // Of several architectures the first that is installed counts.
            if found.state.is_empty() || (installed && !found.installed) {
                let state = self
                    .state
                    .map_or_else(|| "installed".to_owned(), |name| field(name).map_or_else(String::new, text));
                found = Package {
                    installed,
                    state: if state.is_empty() { "unknown".to_owned() } else { state },
                    version: field(self.version).map(text),
                    architecture,
                    ..found
                };
            }
        }
        if found.state.is_empty() {
            found.similar = similar;
        }
        found
    }

    fn is_installed<'a>(&self, field: impl Fn(&str) -> Option<&'a [u8]>) -> bool {
        self.state.is_none_or(|state| field(state).is_some_and(|value| value.ends_with(INSTALLED.as_bytes())))
    }
}

/// What stands between empty lines.
fn paragraphs(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.windows(2).position(|pair| pair == b"\n\n").map_or(rest.len(), |at| at + 1);
        let (paragraph, after) = rest.split_at(end);
        rest = after.strip_prefix(b"\n").unwrap_or(after);
        Some(paragraph)
    })
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && whole.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::facts::tests::root;

    const DPKG: &str = "Package: git\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.39.5-0+deb12u2\n\
        Description: fast\n Package: not this\n\nPackage: git-man\nStatus: install ok installed\nVersion: 1\n\n\
        Package: nginx\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1.22\n\n\
        Package: libc6\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 2.36\n\n\
        Package: libc6\nStatus: install ok half-configured\nArchitecture: i386\nVersion: 2.35\n";
    const APK: &str =
        "C:Q1abc=\nP:busybox\nV:1.37.0-r12\nA:x86_64\nS:1\n\nC:Q1=\nP:ssl_client\nV:1.37.0-r12\nA:x86_64\n";

    fn package(name: &str, root: &Path) -> Package {
        match look(name, root) {
            Some(Answer::Package(package)) => package,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn dpkg_knows_states_and_architectures() {
        let root = root(&[("var/lib/dpkg/status", DPKG)]);
        let git = package("git", &root);
        assert!(git.installed);
        assert_eq!(git.version.as_deref(), Some("1:2.39.5-0+deb12u2"));
        let nginx = package("nginx", &root);
        assert_eq!((nginx.installed, &*nginx.state), (false, "deinstall ok config-files"));
        assert_eq!(package("libc6", &root).version.as_deref(), Some("2.36"));
        let other = package("libc6:i386", &root);
        assert_eq!((other.installed, other.version.as_deref()), (false, Some("2.35")));
        let none = package("gi", &root);
        assert_eq!((none.manager.as_deref(), none.state.as_str()), (Some("dpkg"), ""));
        assert_eq!(none.similar, ["git", "git-man"]);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn apk_has_its_list_in_one_of_two_places() {
        for place in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
            let root = root(&[(place, APK)]);
            let busybox = package("busybox", &root);
            assert_eq!((busybox.manager.as_deref(), busybox.installed), (Some("apk"), true));
            assert_eq!(
                (busybox.version.as_deref(), busybox.architecture.as_deref()),
                (Some("1.37.0-r12"), Some("x86_64"))
            );
            assert_eq!(package("ssl", &root).similar, ["ssl_client"]);
            fs::remove_dir_all(root).unwrap();
        }
    }

    #[test]
    fn rpm_is_asked_where_no_list_has_it() {
        let root = root(&[("var/lib/dpkg/status", DPKG), ("usr/lib/sysimage/rpm/rpmdb.sqlite", "x")]);
        assert!(package("git", &root).installed);
        assert_eq!(look("bash", &root), None);
        fs::remove_dir_all(root).unwrap();
    }
}
