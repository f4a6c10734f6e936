//! The packages of a guest, as the database of its package manager has them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    PackageChange,
    files::{File, Files},
};

/// Most packages that are taken of a guest: several times what a distribution has.
const MOST: usize = 500_000;

/// What rpm is asked: to print a line for each package.
pub(crate) const RPM_ARGUMENTS: [&str; 4] =
    ["--query", "--all", "--queryformat", "%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{ARCH}\n"];
/// Where its program is, which only it can read its database with. Busybox has another of that name, by a link.
const RPM_PROGRAMS: [&str; 2] = ["/usr/bin/rpm", "/bin/rpm"];
/// Where its database may be: Fedora's place and the older one, in the forms that it had over time.
const RPM_DATABASES: [&str; 2] = ["/usr/lib/sysimage/rpm", "/var/lib/rpm"];
const RPM_FILES: [&str; 3] = ["rpmdb.sqlite", "Packages.db", "Packages"];

/// A package that is installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
}

/// Where a guest's packages are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    /// In this file of dpkg's.
    Dpkg(&'static str),
    /// In this file of apk's.
    Apk(&'static str),
    /// By this program, out of this directory.
    Rpm { program: &'static str, directory: &'static str },
}

impl Database {
    /// Those that the guest has. More than one is rare and yet possible.
    pub(crate) fn all_of(files: &Files) -> Vec<Database> {
        let is_file = |path: &str| files.get(path).is_some_and(|file| file.size().is_some());
        let first = |paths: &[&'static str]| paths.iter().copied().find(|path| is_file(path));
        let dpkg = first(&["/var/lib/dpkg/status"]).map(Database::Dpkg);
        let apk = first(&["/usr/lib/apk/db/installed", "/lib/apk/db/installed"]).map(Database::Apk);
        let has_database = |path: &&str| RPM_FILES.iter().any(|name| is_file(&format!("{path}/{name}")));
        let directory = RPM_DATABASES.into_iter().find(has_database);
        let rpm = first(&RPM_PROGRAMS).zip(directory).map(|(program, directory)| Database::Rpm { program, directory });
        [dpkg, apk, rpm].into_iter().flatten().collect()
    }

    /// The files that it consists of.
    pub(crate) fn files<'a>(&self, files: &'a Files) -> &'a [File] {
        match self {
            Database::Dpkg(path) | Database::Apk(path) => files.get(path).map_or(&[], std::slice::from_ref),
            Database::Rpm { directory, .. } => files.below(directory),
        }
    }

    /// The packages in its text.
    pub(crate) fn parse(&self, text: &str) -> Vec<Package> {
        let mut packages = match self {
            Database::Dpkg(_) => stanzas(text, dpkg),
            Database::Apk(_) => stanzas(text, apk),
            Database::Rpm { .. } => text.lines().filter_map(rpm).take(MOST).collect(),
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
pub(crate) fn compare(before: &[Package], after: &[Package]) -> Vec<PackageChange> {
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
    use crate::verbs::changes::files::tests::files;

    fn rpm_database() -> Database {
        Database::Rpm { program: "/usr/bin/rpm", directory: "/usr/lib/sysimage/rpm" }
    }

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
        assert_eq!(rpm_database().parse(lines).len(), 2);
    }

    #[test]
    fn databases_are_those_that_are_there() {
        let empty = files(&[("/usr/bin/rpm", 0), ("/var/lib/rpm/", 0), ("/var/lib/rpm/.lock", 0)]);
        assert_eq!(Database::all_of(&empty), []);
        let debian = files(&[("/var/lib/dpkg/status", 0), ("/lib -> usr/lib", 0)]);
        assert_eq!(Database::all_of(&debian), [Database::Dpkg("/var/lib/dpkg/status")]);
        let database = "/usr/lib/sysimage/rpm/rpmdb.sqlite";
        assert_eq!(Database::all_of(&files(&[("/bin/rpm -> busybox", 0), (database, 0)])), []);
        let fedora = files(&[("/usr/bin/rpm", 0), (database, 0)]);
        assert_eq!(Database::all_of(&fedora), [rpm_database()]);
        assert_eq!(rpm_database().files(&fedora).len(), 1);
    }

    #[test]
    fn versions_and_architectures_are_told_apart() {
        let parse = |text: &str| rpm_database().parse(&text.replace(' ', "\t").replace(';', "\n"));
        let before = parse("a 1 x;b 1 x;c 1 x;k 1 x;libc 1 i386;libc 1 amd64");
        let after = parse("a 1 x;b 2 x;d 1 x;k 1 x;k 2 x;libc 1 amd64");
        let wanted = ["b 1 2", "c 1 none", "d none 1", "k:x none 2", "libc:i386 1 none"];
        assert_eq!(shown(&compare(&before, &after)), wanted);
        assert!(compare(&after, &after).is_empty());
    }
}
