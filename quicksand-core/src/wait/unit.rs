//! Units of systemd.

use std::time::Duration;

use tokio::time::sleep;

use super::{Deadline, Wait};
use crate::{
    Error, Output, Result, Sandbox,
    vm::{last_lines, printable},
};

/// How long to rest between two questions.
const STEP: Duration = Duration::from_millis(250);
/// How long systemd may take to answer, whatever time is left: a question that is cut short says nothing.
const ANSWER: Duration = Duration::from_secs(20);
/// How much of the journal of a unit that failed is shown.
const LINES: usize = 20;

impl Sandbox {
    /// Waits until systemd has that unit active: `"ssh"` or `"ssh.service"`, `"greeter.socket"`.
    ///
    /// A unit that has failed is an error at once, [`Error::UnitFailed`], which shows the end of its journal.
    pub fn wait_for_unit(&self, unit: impl Into<String>) -> Wait<'_> {
        let unit = unit.into();
        Wait::new(move |deadline| ask(self, unit, deadline))
    }
}

async fn ask(sandbox: &Sandbox, unit: String, deadline: Deadline) -> Result<()> {
    loop {
        let output = sandbox
            .command("systemctl")
            .args(["show", "--property=LoadState,ActiveState,SubState,Result", "--", &unit])
            .timeout(ANSWER)
            .output()
            .await?;
        let state = State::read(&output);
        match state.active {
            "active" => return Ok(()),
            "failed" => {
                let journal = journal(sandbox, &unit).await?;
                return Err(Error::UnitFailed { unit, state: state.words(), journal });
            }
            _ if deadline.left().is_zero() => {
                return Err(deadline.missed(format!("the unit {unit}"), state.words()));
            }
            _ => sleep(STEP.min(deadline.left())).await,
        }
    }
}

async fn journal(sandbox: &Sandbox, unit: &str) -> Result<String> {
    let lines = LINES.to_string();
    let command =
        sandbox.command("journalctl").args(["--no-pager", "--output=short", "--lines", &lines, "--unit", unit]);
    let output = command.timeout(ANSWER).output().await?;
    Ok(last_lines(&output.stdout, LINES).lines().map(printable).collect::<Vec<_>>().join("\n"))
}

/// What systemd says of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct State<'a> {
    load: &'a str,
    active: &'a str,
    sub: &'a str,
    result: &'a str,
    /// Its complaint, as where systemd does not run.
    said: &'a str,
}

impl<'a> State<'a> {
    fn read(output: &'a Output) -> State<'a> {
        let mut state = State { said: output.stderr.trim(), ..State::default() };
        for (name, value) in output.stdout.lines().filter_map(|line| line.split_once('=')) {
            match name {
                "LoadState" => state.load = value,
                "ActiveState" => state.active = value,
                "SubState" => state.sub = value,
                "Result" => state.result = value,
                _ => {}
            }
        }
        state
    }

    fn words(&self) -> String {
        let State { load, active, sub, result, said } = self;
        let words = match (*load, *active) {
            (_, "") => return printable(said),
            ("loaded", _) => format!("{active} ({sub})"),
            _ => format!("{active} ({load})"),
        };
        let result = if ["", "success"].contains(result) { String::new() } else { format!(", result {result}") };
        printable(&(words + &result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_in_words() {
        let words = |load, active, sub, result| State { load, active, sub, result, said: "" }.words();
        assert_eq!(
            words("loaded", "activating", "auto-restart", "exit-code"),
            "activating (auto-restart), result exit-code"
        );
        assert_eq!(words("not-found", "inactive", "dead", "success"), "inactive (not-found)");
        assert_eq!(State { said: "no bus", ..State::default() }.words(), "no bus");
    }
}
