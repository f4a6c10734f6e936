//! What programs find in their environment.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::PathBuf,
};

use crate::{terminfo, users::User};

/// What every program finds in its environment unless the host sets it: the same in each guest and from run to run, so that
/// its output can be compared.
pub(crate) const COMMON: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C.UTF-8")];
/// The same for one without a terminal, which nobody answers.
const UNATTENDED: [(&str, &str); 4] = [
    ("TERM", "dumb"),
    // Of a wide terminal: what is cut off is lost to a test, while what is not wrapped is only long.
    ("COLUMNS", "200"),
    ("LINES", "50"),
    ("DEBIAN_FRONTEND", "noninteractive"),
];

/// All that a program of that user finds.
pub(crate) fn of(user: &User, attended: Option<&[u8]>) -> Vec<(OsString, OsString)> {
    let text = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    let mut environment: Vec<_> = COMMON.iter().map(text).collect();
    match attended {
        Some(wanted) => environment.push(("TERM".into(), terminfo::nearest(OsStr::from_bytes(wanted), &user.home))),
        None => environment.extend(UNATTENDED.iter().map(text)),
    }
    for (name, value) in [("HOME", user.home.as_os_str()), ("SHELL", &user.shell), ("USER", &user.name)] {
        environment.push((name.into(), value.into()));
    }
    environment.push(("LOGNAME".into(), user.name.clone()));
    environment.extend(runtime(user));
    environment
}

/// Where the user's own service manager and bus are found, where somebody has set them up: a login, or lingering.
fn runtime(user: &User) -> Vec<(OsString, OsString)> {
    let directory = PathBuf::from(format!("/run/user/{}", user.uid));
    let theirs = |metadata: fs::Metadata| metadata.is_dir() && metadata.uid() == user.uid;
    if user.uid == 0 || !fs::symlink_metadata(&directory).is_ok_and(theirs) {
        return Vec::new();
    }
    let bus = directory.join("bus");
    let mut found = Vec::new();
    if fs::symlink_metadata(&bus).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        let mut address = OsString::from("unix:path=");
        address.push(bus);
        found.push(("DBUS_SESSION_BUS_ADDRESS".into(), address));
    }
    found.push(("XDG_RUNTIME_DIR".into(), directory.into()));
    found
}
