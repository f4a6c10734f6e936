//! Services of systemd, which is asked for all of them in one process, and for the journals of those that ran and don't.

use quicksand_protocol::facts::{Answer, Service};

use super::{program::Runner, text};

const PROPERTIES: &str =
    "--property=LoadState,ActiveState,SubState,Result,UnitFileState,MainPID,InvocationID,WantedBy,RequiredBy";
/// How much of a journal is told, in lines and of each line in bytes.
const LINES: usize = 20;
const LINE: usize = 500;
/// Of how many units the journal is told: each takes a process.
const JOURNALS: usize = 8;

/// All of these units.
pub(super) fn look(names: &[&str], runner: &Runner) -> Vec<Answer> {
    let mut arguments = vec!["show", PROPERTIES, "--"];
    arguments.extend(names);
    let printed = match runner.output("systemctl", &arguments) {
        Ok(printed) => text(&printed),
        Err(error) => return vec![Answer::Failed(format!("ask systemd: {error}")); names.len()],
    };
    let blocks: Vec<_> = printed.trim_end().split("\n\n").collect();
    if blocks.len() != names.len() || !blocks.iter().all(|block| block.contains("LoadState=")) {
        let said: String = printed.chars().take(LINE).collect();
        return vec![Answer::Failed(format!("ask systemd: it says {:?}", said.trim())); names.len()];
    }
    let mut journals = 0;
    let told = names.iter().zip(blocks).map(|(name, block)| {
        let unit = Unit::read(block);
        let mut service = unit.service();
        if unit.has_run && !service.running && journals < JOURNALS {
            journals += 1;
            service.log = journal(name, runner);
        }
        Answer::Service(service)
    });
    told.collect()
}

fn journal(name: &str, runner: &Runner) -> Vec<String> {
    let lines = LINES.to_string();
    let arguments = ["--no-pager", "--quiet", "--output=short", "--lines", &lines, "--unit", name];
    match runner.output("journalctl", &arguments) {
        Ok(printed) => text(&printed).lines().take(LINES).map(|line| line.chars().take(LINE).collect()).collect(),
        Err(error) => vec![format!("(the journal could not be read: {error})")],
    }
}

/// What systemd says of a unit.
#[derive(Debug, Default)]
struct Unit<'a> {
    load: &'a str,
    active: &'a str,
    sub: &'a str,
    result: &'a str,
    file: &'a str,
    pid: Option<u32>,
    has_run: bool,
    is_wanted: bool,
}

impl Unit<'_> {
    fn read(block: &str) -> Unit<'_> {
        let mut unit = Unit::default();
        for (name, value) in block.lines().filter_map(|line| line.split_once('=')) {
            match name {
                "LoadState" => unit.load = value,
                "ActiveState" => unit.active = value,
                "SubState" => unit.sub = value,
                "Result" => unit.result = value,
                "UnitFileState" => unit.file = value,
                "MainPID" => unit.pid = value.parse().ok().filter(|pid| *pid != 0),
                "InvocationID" => unit.has_run |= !value.is_empty(),
                "WantedBy" | "RequiredBy" => unit.is_wanted |= !value.is_empty(),
                _ => {}
            }
        }
        unit.has_run |= unit.active == "failed";
        unit
    }

    fn service(&self) -> Service {
        let Unit { load, active, sub, result, file, .. } = self;
        let sub = if load == &"loaded" { sub } else { load };
        let result = if ["", "success"].contains(result) { String::new() } else { format!(", result {result}") };
        Service {
            manager: Some("systemd".to_owned()),
            exists: !["not-found", ""].contains(load),
            running: ["active", "reloading", "refreshing"].contains(active),
            enabled: match *file {
                "enabled" | "enabled-runtime" | "alias" => true,
                // Of a script of an older init systemd makes a unit, whether or not it is to be started.
                "generated" => self.is_wanted,
                _ => false,
            },
            state: format!("{active} ({sub}){result}"),
            enablement: (*file).to_owned(),
            pid: self.pid,
            log: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told() {
        let service = |block| Unit::read(block).service();
        let runs = service(
            "LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nUnitFileState=enabled\nMainPID=7",
        );
        assert!(runs.exists && runs.running && runs.enabled);
        assert_eq!((&*runs.state, runs.pid), ("active (running)", Some(7)));
        let failed = Unit::read(
            "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\nUnitFileState=static\nMainPID=0",
        );
        assert!(failed.has_run && !failed.service().running && !failed.service().enabled);
        assert_eq!(failed.service().state, "failed (failed), result exit-code");
        let none = service("LoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=");
        assert_eq!((none.exists, &*none.state), (false, "inactive (not-found)"));
        assert!(service("LoadState=loaded\nUnitFileState=generated\nWantedBy=multi-user.target").enabled);
        assert!(!service("LoadState=loaded\nUnitFileState=generated\nWantedBy=").enabled);
    }
}
