//! What the image's /etc/inittab has an init start: that of busybox, or one of the System V kind.

use std::{fs, path::Path};

/// What busybox's init runs where there is no inittab.
const DEFAULT: &str = "::sysinit:/etc/init.d/rcS\n";

/// The command lines that an init runs one after the other while it starts, and waits for.
pub(crate) fn awaited() -> Vec<String> {
    parse(&fs::read_to_string("/etc/inittab").unwrap_or_else(|_| DEFAULT.to_owned()))
}

/// Whether any of the programs that are to be run is there.
pub(crate) fn starts_anything() -> bool {
    awaited().iter().any(|line| {
        let program = line.split_ascii_whitespace().next().unwrap_or_default();
        program.starts_with('/') && Path::new(program).exists()
    })
}

fn parse(text: &str) -> Vec<String> {
    let entries = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let fields = entries.filter_map(|line| {
        let mut fields = line.splitn(4, ':').skip(2);
        Some((fields.next()?, fields.next()?))
    });
    fields
        .filter(|(action, _)| matches!(*action, "sysinit" | "wait" | "bootwait" | "boot"))
        .map(|(_, command)| command.trim_start_matches(['-', '+']).trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for() {
        let text = "# comment: a:sysinit:b\n::sysinit:/sbin/openrc sysinit\n::wait:/sbin/openrc default\n\
                    tty1::respawn:/sbin/getty 38400 tty1\n::ctrlaltdel:/sbin/reboot\nbroken\nl2:2:wait:/etc/rc.d/rc 2\n\
                    ::sysinit:-/bin/sh -c 'a:b'\n";
        let expected = ["/sbin/openrc sysinit", "/sbin/openrc default", "/etc/rc.d/rc 2", "/bin/sh -c 'a:b'"];
        assert_eq!(parse(text), expected);
        assert_eq!(parse(DEFAULT), ["/etc/init.d/rcS"]);
    }
}
