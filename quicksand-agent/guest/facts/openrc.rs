//! Services of OpenRC, from what it keeps in `/run/openrc` and `/etc/runlevels`.

use std::{fs, path::Path};

use quicksand_protocol::facts::Service;

use super::{read, text};

/// The directories of its states, the one that says most first.
const STATES: [&str; 7] = ["failed", "starting", "stopping", "inactive", "started", "scheduled", "hotplugged"];
const SCRIPTS: [&str; 2] = ["etc/init.d", "usr/local/etc/init.d"];

/// What is known of a service.
pub(super) fn look(name: &str, root: &Path) -> Service {
    let mut service = Service { manager: Some("openrc".to_owned()), ..Service::default() };
    service.exists = SCRIPTS.iter().any(|directory| root.join(directory).join(name).is_file());
    let runlevels = fs::read_dir(root.join("etc/runlevels")).into_iter().flatten().flatten();
    let has_it = |runlevel: &fs::DirEntry| runlevel.path().join(name).symlink_metadata().is_ok();
    let mut runlevels: Vec<_> =
        runlevels.filter(has_it).map(|runlevel| text(runlevel.file_name().as_encoded_bytes())).collect();
    runlevels.sort();
    service.enabled = !runlevels.is_empty();
    service.enablement = if service.enabled { runlevels.join(", ") } else { "in no runlevel".to_owned() };
    let run = root.join("run/openrc");
    let state = STATES.iter().find(|state| run.join(state).join(name).symlink_metadata().is_ok());
    service.state = state.copied().unwrap_or("stopped").to_owned();
    if service.state == "started" {
        match daemons(&pid_files(name, &run), root) {
            Daemons::Run(pid) => (service.running, service.pid) = (true, pid),
            Daemons::Gone => service.state = "crashed".to_owned(),
        }
    }
    service
}

/// The daemons of a service that was started.
enum Daemons {
    /// They run, or there are none, or none that can be told.
    Run(Option<u32>),
    /// One of them has gone.
    Gone,
}

/// Where the daemons of a service wrote their numbers. Each daemon has a file of lines such as `pidfile=/run/sshd.pid`, which
/// OpenRC's own programs write; where others start daemons, as dpkg's do, the service's own setting tells.
fn pid_files(name: &str, run: &Path) -> Vec<String> {
    let content = |path: &Path| text(&read(path, 64 * 1024).unwrap_or_default());
    let records = fs::read_dir(run.join("daemons").join(name)).into_iter().flatten().flatten();
    let records: Vec<_> = records.map(|entry| content(&entry.path())).collect();
    let lines = records.iter().flat_map(|record| record.lines().find_map(|line| line.strip_prefix("pidfile=")));
    let mut files: Vec<_> = lines.map(str::to_owned).collect();
    if records.is_empty() {
        files.push(content(&run.join("options").join(name).join("pidfile")).trim().to_owned());
    }
    files.retain(|file| !file.is_empty());
    files
}

fn daemons(pid_files: &[String], root: &Path) -> Daemons {
    let mut first = None;
    for pid_file in pid_files {
        let pid_file = read(&root.join(pid_file.trim_start_matches('/')), 64).unwrap_or_default();
        let pid = text(&pid_file).trim().parse::<u32>().ok();
        match pid.filter(|pid| root.join("proc").join(pid.to_string()).exists()) {
            Some(pid) => first = first.or(Some(pid)),
            None => return Daemons::Gone,
        }
    }
    Daemons::Run(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::root;

    #[test]
    fn states_runlevels_and_daemons_are_told() {
        let root = root(&[
            ("etc/init.d/sshd", "#!/sbin/openrc-run\n"),
            ("etc/init.d/crond", ""),
            ("etc/init.d/ntpd", ""),
            ("etc/runlevels/default/sshd", ""),
            ("etc/runlevels/boot/sshd", ""),
            ("run/openrc/started/sshd", ""),
            ("run/openrc/daemons/sshd/001", "exec=/usr/sbin/sshd\nargv_0=/usr/sbin/sshd\npidfile=/run/sshd.pid\n"),
            ("run/sshd.pid", "41\n"),
            ("proc/41/stat", ""),
            ("run/openrc/started/crond", ""),
            ("run/openrc/daemons/crond/001", "exec=/usr/sbin/crond\npidfile=/run/crond.pid\n"),
            ("run/crond.pid", "42\n"),
            ("run/openrc/failed/ntpd", ""),
            ("etc/init.d/httpd", ""),
            ("run/openrc/started/httpd", ""),
            ("run/openrc/options/httpd/pidfile", "/run/sshd.pid"),
        ]);
        let sshd = look("sshd", &root);
        assert!(sshd.exists && sshd.running && sshd.enabled);
        assert_eq!((&*sshd.state, &*sshd.enablement, sshd.pid), ("started", "boot, default", Some(41)));
        let crond = look("crond", &root);
        assert_eq!((&*crond.state, crond.running, crond.enabled), ("crashed", false, false));
        assert_eq!(look("httpd", &root).pid, Some(41));
        assert_eq!((&*look("ntpd", &root).state, &*look("none", &root).state), ("failed", "stopped"));
        assert!(!look("none", &root).exists);
        fs::remove_dir_all(root).unwrap();
    }
}
