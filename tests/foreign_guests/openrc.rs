//! A Debian whose init is OpenRC under System V's, made from its packages.

use std::path::PathBuf;

use crate::disks;

/// A service that takes its time and is quiet meanwhile, so that only OpenRC can tell that its start is not over.
const SLOW: &str = r#"cat >"$1/etc/init.d/slow" <<'END'
#!/sbin/openrc-run
description="Takes its time"
start() {
  ebegin "Starting slow"
  sleep 6
  echo slow >/run/slow
  eend 0
}
END
chmod 755 "$1/etc/init.d/slow"
chroot "$1" rc-update add slow default
rm -f "$1/etc/resolv.conf" "$1/etc/hosts"
echo openrc >"$1/etc/hostname""#;

/// Its root file system, as an archive.
pub(crate) fn archive() -> PathBuf {
    disks::once("openrc.tar", |path| disks::debian(path, "sysvinit-core,openrc,procps", SLOW))
}
