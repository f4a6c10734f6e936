//! Packages.

use std::fmt;

use quicksand_protocol::facts::{Package as Answer, Question};

use super::{Query, assert_fact, listed, shown};

/// Asks about a package of the guest's package manager: dpkg, apk or rpm. With dpkg an architecture may follow: `"libc6:i386"`.
pub fn package(name: impl Into<String>) -> Query<Package> {
    let name = name.into();
    let fits = |c: char| c.is_ascii_alphanumeric() || "+-._:~".contains(c);
    if name.is_empty() || name.len() > 255 || name.starts_with('-') || !name.chars().all(fits) {
        return Query::refused("package", name, "use letters, digits and '+', '-', '.', '_', ':', '~'");
    }
    Query::of(Question::Package { name })
}

/// A package of the guest, there or not. `to_string()` tells all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Whether it is installed and whole.
    pub installed: bool,
    /// Its version, as the package manager writes it: `1:2.39.5-0+deb12u2`, `2.45.2-r0`. One that was removed may have one still.
    pub version: Option<String>,
    /// Its architecture.
    pub architecture: Option<String>,
    /// What the package manager calls its state: `install ok installed`. Empty where it knows no such package.
    pub state: String,
    /// The package manager: `dpkg`, `apk` or `rpm`. `None` where the guest has none of them.
    pub manager: Option<String>,
    /// Some installed packages that have its name in theirs, where there is none of that name.
    pub similar: Vec<String>,
}

impl Package {
    pub(crate) fn new(name: &str, answer: Answer) -> Package {
        let Answer { manager, installed, state, version, architecture, similar } = answer;
        Package { name: name.to_owned(), installed, version, architecture, state, manager, similar }
    }

    /// Panics unless it is installed.
    #[track_caller]
    pub fn assert_installed(&self) -> &Package {
        assert_fact(self, self.installed, format_args!("the package {} is installed", self.name));
        self
    }

    /// Panics if it is installed, or partly so. What a removed package left of its configuration does not count.
    #[track_caller]
    pub fn assert_absent(&self) -> &Package {
        let absent =
            self.state.is_empty() || [" config-files", " not-installed"].iter().any(|end| self.state.ends_with(end));
        assert_fact(self, absent, format_args!("the package {} is not installed", self.name));
        self
    }

    /// Panics unless it is installed in this very version.
    #[track_caller]
    pub fn assert_version(&self, version: &str) -> &Package {
        let holds = self.installed && self.version.as_deref() == Some(version);
        assert_fact(self, holds, format_args!("the package {} is installed in version {version}", self.name));
        self
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(manager) = &self.manager else {
            return write!(f, "package {}: the guest has no packages of dpkg, apk or rpm", self.name);
        };
        let manager = shown(manager);
        if self.state.is_empty() {
            write!(f, "package {}: {manager} knows none of that name", self.name)?;
            if !self.similar.is_empty() {
                write!(f, "; installed are {}", listed(&self.similar))?;
            }
            return Ok(());
        }
        write!(f, "package {}", self.name)?;
        for part in [&self.version, &self.architecture].into_iter().flatten() {
            write!(f, " {}", shown(part))?;
        }
        write!(f, ": {} ({manager})", shown(&self.state))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;

    #[test]
    fn a_failure_shows_what_there_is() {
        let answer = Answer {
            manager: Some("dpkg".into()),
            installed: true,
            state: "install ok installed".into(),
            version: Some("1.2-3".into()),
            architecture: Some("amd64".into()),
            similar: vec![],
        };
        let package = Package::new("git", answer.clone());
        package.assert_installed().assert_version("1.2-3");
        assert_eq!(
            said(|| package.assert_version("1.3")),
            "expected: the package git is installed in version 1.3\n   \
             found: package git 1.2-3 amd64: install ok installed (dpkg)"
        );
        let removed = Answer { installed: false, state: "deinstall ok config-files".into(), ..answer.clone() };
        Package::new("git", removed.clone()).assert_absent();
        assert!(
            said(|| _ = Package::new("git", removed).assert_installed()).ends_with("deinstall ok config-files (dpkg)")
        );
        let half = Answer { installed: false, state: "install reinstreq half-installed".into(), ..answer };
        assert!(said(|| _ = Package::new("git", half).assert_absent()).contains("half-installed"));
        let none = Answer { manager: Some("apk".into()), similar: vec!["git-man\x1b[2J".into()], ..Answer::default() };
        assert_eq!(
            said(|| _ = Package::new("git", none).assert_installed()),
            "expected: the package git is installed\n   found: package git: apk knows none of that name; installed are git-man"
        );
    }
}
