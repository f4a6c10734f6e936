//! The units of a guest, as its files say: those of systemd or, where there is none, scripts of other inits.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    UnitChange, UnitState,
    files::{File, Files, OwnKind},
};

/// Where systemd looks for units of the system: first what goes first. What lies in `/run` goes with the next boot.
const DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/etc/systemd/system.control",
];
/// What names of units end with.
const SUFFIXES: [&str; 9] =
    [".service", ".socket", ".timer", ".target", ".path", ".mount", ".automount", ".slice", ".swap"];
const SCRIPTS: &str = "/etc/init.d";
/// The directories of OpenRC's runlevels.
const RUNLEVELS: &str = "/etc/runlevels";

/// The state of each unit by its name.
type Units = BTreeMap<String, UnitState>;

/// The units that differ.
pub(crate) fn compare(before: &Files, after: &Files) -> Vec<UnitChange> {
    let (before, after) = (units(before), units(after));
    let names: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    let change =
        |name: String| UnitChange { before: before.get(&name).copied(), after: after.get(&name).copied(), name };
    names.into_iter().map(change).filter(|change| change.before != change.after).collect()
}

fn units(files: &Files) -> Units {
    let has_systemd = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].iter().any(|path| files.get(path).is_some());
    if has_systemd { systemd(files) } else { scripts(files) }
}

fn systemd(files: &Files) -> Units {
    let (mut units, mut wanted) = (Units::new(), BTreeSet::new());
    for directory in DIRECTORIES {
        for (inner, file) in below(files, directory) {
            let name = match inner.split_once('/') {
                None => inner,
                Some((by, name)) => {
                    if by.ends_with(".wants") || by.ends_with(".requires") {
                        // A distribution's own wishes are not asked for; an administrator's are what enables a unit.
                        if directory.starts_with("/etc") {
                            wanted.insert(name);
                        }
                    }
                    continue;
                }
            };
            let Some(state) = state(file) else { continue };
            if SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
                // Of several files of a name, the first counts.
                units.entry(name.to_owned()).or_insert(state);
            }
        }
    }
    for name in wanted {
        let state = units.entry(name.to_owned()).or_insert(UnitState::Enabled);
        if *state == UnitState::NotEnabled {
            *state = UnitState::Enabled;
        }
    }
    units
}

/// What a unit's file alone says of it. `None` where it is no unit's.
fn state(file: &File) -> Option<UnitState> {
    match &file.kind {
        OwnKind::Symlink(target) if **target == *b"/dev/null" => Some(UnitState::Masked),
        OwnKind::Symlink(_) | OwnKind::File(1..) => Some(UnitState::NotEnabled),
        OwnKind::File(0) => Some(UnitState::Masked),
        _ => None,
    }
}

fn scripts(files: &Files) -> Units {
    let runlevels: BTreeSet<_> =
        below(files, RUNLEVELS).filter_map(|(inner, _)| inner.split_once('/')).map(|(_, name)| name).collect();
    // Those of System V: S, two digits, the name.
    let started: BTreeSet<_> = ["/etc/rc2.d", "/etc/rc3.d", "/etc/rc5.d", "/etc/rcS.d"]
        .iter()
        .flat_map(|directory| below(files, directory))
        .filter_map(|(inner, _)| inner.strip_prefix('S')?.get(2..))
        .collect();
    let scripts = below(files, SCRIPTS).filter(|(inner, file)| {
        let runs = matches!(file.kind, OwnKind::Symlink(_)) || file.size().is_some() && file.mode & 0o111 != 0;
        runs && !inner.contains('/')
    });
    let state = |name| match runlevels.contains(name) || started.contains(name) {
        true => UnitState::Enabled,
        false => UnitState::NotEnabled,
    };
    scripts.map(|(name, _)| (name.to_owned(), state(name))).collect()
}

/// What is below a directory, by the paths from there. No unit has a name that is not UTF-8.
fn below<'a>(files: &'a Files, directory: &str) -> impl Iterator<Item = (&'a str, &'a File)> {
    let len = directory.len() + 1;
    files.below(directory).iter().filter_map(move |file| Some((str::from_utf8(&file.path[len..]).ok()?, file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::changes::files::tests::files;

    fn names(units: &Units) -> Vec<String> {
        units.iter().map(|(name, state)| format!("{name} {state:?}")).collect()
    }

    #[test]
    fn units_of_systemd_are_told_by_its_files() {
        let files = files(&[
            ("/usr/lib/systemd/systemd", 0),
            ("/usr/lib/systemd/system/a.service", 0),
            ("/usr/lib/systemd/system/b@.service", 0),
            ("/usr/lib/systemd/system/c.socket", 0),
            ("/usr/lib/systemd/system/sysinit.target.wants/c.socket -> ../c.socket", 0),
            ("/usr/lib/systemd/system/d.service", 0),
            ("/usr/lib/systemd/system/README", 0),
            ("/etc/systemd/system/d.service -> /dev/null", 0),
            ("/etc/systemd/system/a.service.d/", 0),
            ("/etc/systemd/system/a.service.d/x.conf", 0),
            ("/etc/systemd/system/multi-user.target.wants/a.service -> /usr/lib/systemd/system/a.service", 0),
            ("/etc/systemd/system/multi-user.target.wants/b@1.service -> /usr/lib/systemd/system/b@.service", 0),
            ("/etc/init.d/legacy", 0),
        ]);
        let wanted = [
            "a.service Enabled",
            "b@.service NotEnabled",
            "b@1.service Enabled",
            "c.socket NotEnabled",
            "d.service Masked",
        ];
        assert_eq!(names(&units(&files)), wanted);
    }

    #[test]
    fn scripts_of_other_inits_are_told_where_there_is_no_systemd() {
        let before = files(&[("/etc/init.d/sshd -> ../x", 0), ("/etc/init.d/old -> x", 0), ("/etc/init.d/README", 0)]);
        let after = files(&[
            ("/etc/init.d/sshd -> ../x", 0),
            ("/etc/init.d/new -> x", 0),
            ("/etc/init.d/sysv -> x", 0),
            ("/etc/rc2.d/S01sysv -> ../init.d/sysv", 0),
            ("/etc/runlevels/default/sshd -> /etc/init.d/sshd", 0),
        ]);
        let changes: Vec<_> = compare(&before, &after).into_iter().map(|c| (c.name, c.before, c.after)).collect();
        let (not, enabled) = (Some(UnitState::NotEnabled), Some(UnitState::Enabled));
        let wanted = [("new", None, not), ("old", not, None), ("sshd", not, enabled), ("sysv", None, enabled)];
        assert_eq!(changes, wanted.map(|(name, before, after)| (name.to_owned(), before, after)));
    }
}
