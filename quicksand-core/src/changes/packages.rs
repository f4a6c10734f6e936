//! The packages of a guest, as the database of its package manager has them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    PackageChange,
    files::{File, Files},
};

/// Most packages that are taken of a guest: several times what a distribution has.
const MOST: usize = 500_000;

/// What `rpm` is to print: a line for each package.
pub(super) const RPM: [&str; 4] = ["rpm", "-qa", "--queryformat", "%{NAME}\\t%{VERSION}-%{RELEASE}\\t%{ARCH}\\n"];

/// A package that is installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
}

/// Where a guest's packages are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Database {
    /// In this file of dpkg's.
    Dpkg(&'static str),
    /// In this file of apk's.
    Apk(&'static str),
    /// By the program `rpm`, out of this directory.
    Rpm(&'static str),
}

impl Database {
    /// Those that the guest has. More than one is rare and yet possible.
    pub(super) fn all_of(files: &Files) -> Vec<Database> {
        let file = |path: &&str| files.get(path).is_some_and(|file| file.size().is_some());
        let dpkg = ["/var/lib/dpkg/status"].into_iter().find(file).map(Database::Dpkg);
        let apk = ["/usr/lib/apk/db/installed", "/lib/apk/db/installed"].into_iter().find(file).map(Database::Apk);
        let has_rpm = ["/usr/bin/rpm", "/bin/rpm"].iter().any(|path| files.get(path).is_some());
        let directories = ["/usr/lib/sysimage/rpm", "/var/lib/rpm", "/usr/share/rpm"];
        let rpm = directories.into_iter().find(|path| has_rpm && !files.below(path).is_empty()).map(Database::Rpm);
        [dpkg, apk, rpm].into_iter().flatten().collect()
    }

    /// The files that it consists of.
    pub(super) fn files<'a>(&self, files: &'a Files) -> &'a [File] {
        match self {
            Database::Dpkg(path) | Database::Apk(path) => files.get(path).map_or(&[], std::slice::from_ref),
            Database::Rpm(directory) => files.below(directory),
        }
    }

    /// The packages in its text.
    pub(super) fn parse(&self, text: &str) -> Vec<Package> {
        let mut packages = match self {
            Database::Dpkg(_) => stanzas(text, dpkg),
            Database::Apk(_) => stanzas(text, apk),
            Database::Rpm(_) => text.lines().filter_map(rpm).take(MOST).collect(),
        };
        packages.sort();
        packages.dedup();
        packages
    }
}

/// The packages of a text with a paragraph for each.
fn stanzas(text: &str, package: fn(&str) -> Option<Package>) -> Vec<Package> {
    text.split("\n\n").filter_map(package).take(MOST).collect()
}

fn dpkg(stanza: &str) -> Option<Package> {
    let field =
        |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    let installed = field("Status:")?.ends_with(" installed");
    let architecture = field("Architecture:").unwrap_or_default();
    installed.then_some(Package { name: field("Package:")?, version: field("Version:")?, architecture })
}

fn apk(stanza: &str) -> Option<Package> {
    let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    Some(Package { name: field("P:")?, version: field("V:")?, architecture: field("A:").unwrap_or_default() })
}

fn rpm(line: &str) -> Option<Package> {
    let mut words = line.split('\t').map(str::to_owned);
    Some(Package { name: words.next()?, version: words.next()?, architecture: words.next()? })
}

/// The packages that differ.
pub(super) fn compare(before: &[Package], after: &[Package]) -> Vec<PackageChange> {
    let (mut before, mut after) = (versions(before), versions(after));
    let names: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    let mut changes = Vec::new();
    for name in names {
        let (before, after) = (before.remove(name).unwrap_or_default(), after.remove(name).unwrap_or_default());
        let several = before.len().max(after.len()) > 1;
        let change = |before: Option<(&str, &str)>, after: Option<(&str, &str)>| {
            let architecture = after.or(before).map_or("", |(architecture, _)| architecture);
            let name =
                if several && !architecture.is_empty() { format!("{name}:{architecture}") } else { name.to_owned() };
            let version = |package: Option<(&str, &str)>| package.map(|(_, version)| version.to_owned());
            PackageChange { name, before: version(before), after: version(after) }
        };
        let gone: Vec<_> = before.difference(&after).copied().collect();
        let come: Vec<_> = after.difference(&before).copied().collect();
        if let ([gone], [come]) = (&*gone, &*come) {
            changes.push(change(Some(*gone), Some(*come)));
        } else {
            changes.extend(gone.into_iter().map(|gone| change(Some(gone), None)));
            changes.extend(come.into_iter().map(|come| change(None, Some(come))));
        }
    }
    changes
}

/// The architectures and versions of each package.
fn versions(packages: &[Package]) -> BTreeMap<&str, BTreeSet<(&str, &str)>> {
    let mut versions = BTreeMap::<_, BTreeSet<_>>::new();
    for Package { name, version, architecture } in packages {
        versions.entry(name.as_str()).or_default().insert((architecture.as_str(), version.as_str()));
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::files::tests::files;

    fn shown(changes: &[PackageChange]) -> Vec<String> {
        let version = |version: &Option<String>| version.clone().unwrap_or("none".into());
        changes.iter().map(|c| format!("{} {} {}", c.name, version(&c.before), version(&c.after))).collect()
    }

    #[test]
    fn each_database_is_read() {
        let status = "Package: jq\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.6-2.1\nDescription: x\n  Version: 9\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\nrubbish\n";
        let package = |name: &str, version: &str, architecture: &str| Package {
            name: name.into(),
            version: version.into(),
            architecture: architecture.into(),
        };
        assert_eq!(Database::Dpkg("").parse(status), [package("jq", "1.6-2.1", "amd64")]);
        let installed = "C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\nF:lib\n\nP:busybox\nV:1.36\n\n";
        let wanted = [package("busybox", "1.36", ""), package("musl", "1.2.5-r0", "x86_64")];
        assert_eq!(Database::Apk("").parse(installed), wanted);
        let lines = "bash\t5.2.26-1.fc40\tx86_64\ngpg-pubkey\ta-b\t(none)\nrubbish\n";
        assert_eq!(Database::Rpm("").parse(lines).len(), 2);
    }

    #[test]
    fn databases_are_those_that_are_there() {
        assert_eq!(Database::all_of(&files(&[("/usr/bin/rpm", 0), ("/var/lib/rpm/", 0)])), []);
        let debian = files(&[("/var/lib/dpkg/status", 0), ("/lib -> usr/lib", 0)]);
        assert_eq!(Database::all_of(&debian), [Database::Dpkg("/var/lib/dpkg/status")]);
        let fedora = files(&[("/usr/bin/rpm", 0), ("/usr/lib/sysimage/rpm/rpmdb.sqlite", 0)]);
        assert_eq!(Database::all_of(&fedora), [Database::Rpm("/usr/lib/sysimage/rpm")]);
        assert_eq!(Database::Rpm("/usr/lib/sysimage/rpm").files(&fedora).len(), 1);
    }

    #[test]
    fn versions_and_architectures_are_told_apart() {
        let parse = |text: &str| Database::Rpm("").parse(&text.replace(' ', "\t").replace(';', "\n"));
        let before = parse("a 1 x;b 1 x;c 1 x;k 1 x;libc 1 i386;libc 1 amd64");
        let after = parse("a 1 x;b 2 x;d 1 x;k 1 x;k 2 x;libc 1 amd64");
        let wanted = ["b 1 2", "c 1 none", "d none 1", "k:x none 2", "libc:i386 1 none"];
        assert_eq!(shown(&compare(&before, &after)), wanted);
        assert!(compare(&after, &after).is_empty());
    }
}
