//! What is no change worth telling: logs, caches and what systems write for themselves.

/// What [`Sandbox::changes`](crate::Sandbox::changes) leaves out unless it is told otherwise: logs and caches, the databases of package
/// managers (whose packages are told), and what a system writes for itself as it runs.
pub const DEFAULT_IGNORED: &[&str] = &[
    // Each machine has its own.
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    // Logs, caches, history.
    "/var/log",
    "/var/cache",
    "/root/.cache",
    "/home/*/.cache",
    "/root/.*_history",
    "/home/*/.*_history",
    "/var/backups",
    "**/__pycache__",
    "/etc/ld.so.cache",
    // Package managers.
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/lib/apk",
    "/usr/lib/apk",
    "/var/lib/rpm",
    "/usr/lib/sysimage",
    "/var/lib/dnf",
    "/var/lib/yum",
    "/var/lib/zypp",
    // What a running system writes for itself.
    "/dev",
    "/run",
    "/lost+found",
    "/tmp/.*-unix",
    "/{tmp,var/tmp}/systemd-private-*",
    "/var/lib/systemd",
    "/var/lib/{chrony,dhcp,logrotate,NetworkManager,private}",
    "/etc/.pwd.lock",
    "/etc/.updated",
    "/var/.updated",
    "/etc/{passwd,group,shadow,gshadow,subuid,subgid}-",
];

/// Patterns of paths.
#[derive(Debug, Clone)]
pub(crate) struct Patterns(Vec<String>);

impl Patterns {
    /// The default ones.
    pub(crate) fn default_ones() -> Patterns {
        Patterns::new(DEFAULT_IGNORED.iter().copied())
    }

    pub(crate) fn new(patterns: impl IntoIterator<Item = impl Into<String>>) -> Patterns {
        let mut all = Patterns(Vec::new());
        all.extend(patterns);
        all
    }

    pub(crate) fn extend(&mut self, patterns: impl IntoIterator<Item = impl Into<String>>) {
        self.0.extend(patterns.into_iter().map(|pattern| pattern.into().trim_end_matches('/').to_owned()));
    }

    /// Whether one fits the path or a directory above it.
    pub(crate) fn cover(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut prefixes = ends.chain([path.len()]).map(|end| &path[..end]);
        prefixes.any(|prefix| self.0.iter().any(|pattern| fast_glob::glob_match(pattern, prefix)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_is_below() {
        let patterns = Patterns::new(["/var/log/", "/a/*.txt", "**/cache", "/x/**/y", "/t/{a,b}-*"]);
        for path in ["/var/log", "/var/log/a/b", "/a/b.txt", "/a/b.txt/c", "/u/v/cache/w", "/x/1/2/y", "/t/b-9"] {
            assert!(patterns.cover(path.as_bytes()), "{path}");
        }
        for path in ["/var", "/var/logs", "/a/b/c.txt", "/u/caches", "/t/c-9", "/"] {
            assert!(!patterns.cover(path.as_bytes()), "{path}");
        }
        assert!(patterns.cover(b"/var/log/\xff"));
    }

    #[test]
    fn the_default_ones_leave_what_an_installer_does() {
        let patterns = Patterns::default_ones();
        for path in
            ["/etc/passwd", "/etc/hosts", "/usr/lib/x", "/var/lib/greeter", "/tmp/left", "/root/.profile", "/opt"]
        {
            assert!(!patterns.cover(path.as_bytes()), "{path}");
        }
        for path in [
            "/etc/passwd-",
            "/root/.bash_history",
            "/tmp/.X11-unix",
            "/var/tmp/systemd-private-0a/tmp",
            "/a/__pycache__/b",
        ] {
            assert!(patterns.cover(path.as_bytes()), "{path}");
        }
    }
}
