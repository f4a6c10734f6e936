//! Which QEMU this is.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest QEMU that quicksand is tested with: Debian 12's.
pub const MINIMUM: Version = Version { major: 7, minor: 2, micro: 0 };

/// A QEMU release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 7 in 7.2.22.
    pub major: u16,
    /// 2 in 7.2.22.
    pub minor: u16,
    /// 22 in 7.2.22.
    pub micro: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// Why a QEMU can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// There is no such program.
    #[error("find {}: install QEMU (Debian: qemu-system-x86; Fedora: qemu-kvm)", program.display())]
    Missing {
        /// The program that was looked for.
        program: PathBuf,
    },
    /// The program could not be run.
    #[error("run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// The program does not say a version as QEMU does.
    #[error("read the version of {}: it said {said:?}", program.display())]
    Unreadable {
        /// The program.
        program: PathBuf,
        /// Its first line.
        said: String,
    },
    /// The program is too old.
    #[error("use {}: it is QEMU {found}, and {MINIMUM} is the oldest that works", program.display())]
    TooOld {
        /// The program.
        program: PathBuf,
        /// Its version.
        found: Version,
    },
}

/// The version of a QEMU program.
///
/// # Errors
///
/// [`VersionError`] where there is none, or it is older than [`MINIMUM`].
pub fn version_of(program: &Path) -> Result<Version, VersionError> {
    let output = Command::new(program).arg("--version").output().map_err(|source| {
        let program = program.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => VersionError::Missing { program },
            _ => VersionError::Run { program, source },
        }
    })?;
    let said = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
    let Some(found) = parse(&said) else {
        return Err(VersionError::Unreadable { program: program.to_owned(), said });
    };
    if found < MINIMUM {
        return Err(VersionError::TooOld { program: program.to_owned(), found });
    }
    Ok(found)
}

/// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`
fn parse(line: &str) -> Option<Version> {
    let number = line.strip_prefix("QEMU emulator version ")?.split([' ', '-']).next()?;
    let mut parts = number.split('.').map(|part| part.parse().ok());
    let version = Version { major: parts.next()??, minor: parts.next()??, micro: parts.next().unwrap_or(Some(0))? };
    Some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let read = |line| parse(line).map(|version| version.to_string());
        assert_eq!(read("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)").as_deref(), Some("7.2.22"));
        assert_eq!(read("QEMU emulator version 10.0").as_deref(), Some("10.0.0"));
        assert_eq!(read("QEMU emulator version 9.1.0-rc2").as_deref(), Some("9.1.0"));
        assert_eq!(read("bash: no such program"), None);
    }

    #[test]
    fn the_installed_one_is_new_enough() {
        assert!(version_of(Path::new("qemu-system-x86_64")).unwrap() >= MINIMUM);
    }

    #[test]
    fn what_is_no_qemu_is_told() {
        assert!(matches!(version_of(Path::new("/nowhere/qemu")), Err(VersionError::Missing { .. })));
        assert!(matches!(version_of(Path::new("true")), Err(VersionError::Unreadable { .. })));
    }
}
