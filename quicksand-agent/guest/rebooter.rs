//! Who has the guest reboot, of whom nothing is left after that: told on the console, where the host finds it.
//!
//! Only after a reboot, and for a few minutes: most guests reboot because they are told to, and a loop is a matter of its first minutes.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::serve::STACK;

/// Between two looks. A program that asks an init for a reboot takes longer than that.
const STEP: Duration = Duration::from_millis(20);
/// How long is looked.
const WATCH: Duration = Duration::from_secs(180);
/// How many looks a new process gets: it is another program at first.
const LOOKS: u32 = 5;
/// Most processes that are looked at in one step.
const MOST: i32 = 1000;
/// Most lines that are said.
const SAID: u32 = 20;
/// What boots into a reboot.
const DEFAULT_TARGETS: [&str; 2] = ["/etc/systemd/system/default.target", "/usr/lib/systemd/system/default.target"];

/// Watches from now on. That it can't is no fault of the guest's.
pub(crate) fn watch() {
    let _ = thread::Builder::new().stack_size(STACK).spawn(look);
}

fn look() {
    let default = DEFAULT_TARGETS.iter().find_map(|path| fs::canonicalize(path).ok());
    if let Some(target) = default.filter(|target| target.ends_with("reboot.target") || target.ends_with("kexec.target"))
    {
        say("default.target", &format!("it is {}", target.display()));
    }
    let begun = Instant::now();
    let (mut last, mut said) = (newest().unwrap_or(0), 0);
    let mut young: BTreeMap<i32, u32> = BTreeMap::new();
    while begun.elapsed() < WATCH && said < SAID {
        thread::sleep(STEP);
        let Some(now) = newest() else { return };
        // Numbers begin anew at some time, and what is missed then is missed.
        young.extend((last.max(now - MOST) + 1..=now).map(|pid| (pid, LOOKS)));
        last = now;
        young.retain(|pid, looks| {
            *looks -= 1;
            let Some(words) = command_line(*pid) else { return *looks > 0 };
            if !reboots(&words) {
                return *looks > 0;
            }
            say(&unit(*pid), &words.join(" "));
            said += 1;
            false
        });
    }
}

fn say(unit: &str, words: &str) {
    eprintln!("quicksand: rebooted by {unit}: {words}");
}

/// The number of the newest process.
fn newest() -> Option<i32> {
    fs::read_to_string("/proc/loadavg").ok()?.split_ascii_whitespace().last()?.parse().ok()
}

fn command_line(pid: i32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|bytes| !bytes.is_empty())?;
    Some(bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// Whether a program looks like one that has a system reboot. What does not, and is said, costs a line.
fn reboots(words: &[String]) -> bool {
    let mut arguments = words.iter().skip(1).map(String::as_str);
    let program = words.first().and_then(|word| Path::new(word).file_name()?.to_str()).unwrap_or_default();
    match program {
        "reboot" => true,
        // What systemd becomes once somebody had it reboot, and what that starts.
        "systemd-shutdown" => false,
        "shutdown" => arguments.any(|word| word == "-r" || word == "--reboot" || word == "-rf"),
        "init" | "telinit" => arguments.next() == Some("6"),
        _ => arguments.any(|word| word.to_ascii_lowercase().contains("reboot") || word == "kexec"),
    }
}

/// The unit that a process belongs to.
fn unit(pid: i32) -> String {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    unit_of(&groups).unwrap_or("a command").to_owned()
}

/// The innermost unit among the names of control groups. What the agent starts is in none.
fn unit_of(groups: &str) -> Option<&str> {
    let group = groups.lines().find_map(|line| {
        let unified = line.strip_prefix("0::").filter(|group| *group != "/");
        unified.or_else(|| line.split_once(":name=systemd:").map(|(_, group)| group))
    })?;
    group.rsplit('/').find(|name| {
        [".service", ".scope", ".timer", ".socket"].iter().any(|kind| name.ends_with(kind)) && *name != "init.scope"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reboots_is_told_from_what_does_not() {
        let is = |line: &str| reboots(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for line in [
            "systemctl reboot",
            "/sbin/reboot -f",
            "shutdown -r now",
            "/sbin/init 6",
            "busctl call org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager Reboot b false",
            "sh -c sleep 1; reboot",
        ] {
            assert!(is(line), "{line}");
        }
        for line in [
            "",
            "/lib/systemd/systemd-shutdown reboot --timeout=90000000us --log-level=6 --log-target=kmsg",
            "/sbin/init",
            "shutdown -h now",
            "systemctl start x",
            "init 3",
            "cat /etc/fstab",
        ] {
            assert!(!is(line), "{line}");
        }
    }

    #[test]
    fn a_unit_is_found_in_either_hierarchy() {
        assert_eq!(unit_of("0::/system.slice/loop.service\n"), Some("loop.service"));
        assert_eq!(unit_of("0::/user.slice/user-0.slice/user@0.service/app.slice/x.service\n"), Some("x.service"));
        assert_eq!(unit_of("3:cpu:/\n1:name=systemd:/system.slice/a.service/sub\n0::/\n"), Some("a.service"));
        assert_eq!(unit_of("0::/init.scope\n"), None);
        assert_eq!(unit_of("0::/\n"), None);
        assert_eq!(unit_of(""), None);
    }
}
