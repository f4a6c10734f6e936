//! Packages of rpm, whose database only rpm reads.

use std::path::Path;

use quicksand_protocol::facts::{Answer, Package};

use super::program::Runner;

/// Where its database may be: Fedora's place and the older one, in the forms that it had over time.
const DIRECTORIES: [&str; 2] = ["usr/lib/sysimage/rpm", "var/lib/rpm"];
const DATABASES: [&str; 3] = ["rpmdb.sqlite", "Packages.db", "Packages"];
const FORMAT: &str = "%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{ARCH}\n";

/// Whether there is a database of rpm's.
pub(super) fn has_database(root: &Path) -> bool {
    DIRECTORIES.iter().any(|directory| DATABASES.iter().any(|name| root.join(directory).join(name).is_file()))
}

/// All of these packages, in one process.
pub(super) fn look(names: &[&str], runner: &Runner) -> Vec<Answer> {
    let mut arguments = vec!["--query", "--queryformat", FORMAT, "--"];
    arguments.extend(names);
    match runner.output("rpm", &arguments) {
        Ok(printed) => {
            let printed = String::from_utf8_lossy(&printed);
            names.iter().map(|name| find(name, &printed)).collect()
        }
        Err(error) => vec![Answer::Failed(format!("ask rpm, whose database the guest has: {error}")); names.len()],
    }
}

/// A package in what rpm printed: a line for each that is installed, and a sentence for each that is not.
fn find(name: &str, printed: &str) -> Answer {
    let mut package = Package { manager: Some("rpm".to_owned()), ..Package::default() };
    // Of several versions, as of a kernel, the one that was installed last comes last.
    let lines = printed.lines().rev();
    let mut lines = lines.map(|line| line.split('\t').collect::<Vec<_>>());
    if let Some(fields) = lines.find(|fields| fields.len() == 3 && fields[0] == name) {
        package.installed = true;
        package.state = "installed".to_owned();
        package.version = Some(fields[1].to_owned());
        package.architecture = Some(fields[2].to_owned());
    } else if !printed.lines().any(|line| line == format!("package {name} is not installed")) {
        // A broken database, or another program of that name: busybox has one.
        return Answer::Failed(format!("ask rpm: it says {:?}", printed.lines().next().unwrap_or_default()));
    }
    Answer::Package(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rpm_prints_is_read() {
        let printed = "bash\t5.2.26-3.fc40\tx86_64\npackage git is not installed\n\
                       kernel\t6.8.5-301.fc40\tx86_64\nkernel\t6.9.1-200.fc40\tx86_64\nbind\t32:9.18.26-1.fc40\tx86_64\n";
        let version = |name| match find(name, printed) {
            Answer::Package(package) => package.version,
            other => panic!("{other:?}"),
        };
        assert_eq!(version("bash").as_deref(), Some("5.2.26-3.fc40"));
        assert_eq!(version("kernel").as_deref(), Some("6.9.1-200.fc40"));
        assert_eq!(version("bind").as_deref(), Some("32:9.18.26-1.fc40"));
        assert_eq!(version("git"), None);
        let broken = find("bash", "error: cannot open Packages database in /usr/lib/sysimage/rpm\n");
        assert!(matches!(broken, Answer::Failed(why) if why.contains("cannot open")));
    }
}
