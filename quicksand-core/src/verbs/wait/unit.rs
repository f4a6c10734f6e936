//! Waiting for a unit of systemd, until it is active or nothing is about to make it so.
//!
//! systemd forgets an inactive unit that nothing refers to, with all that it knew of its last run. What became of such a unit stands in
//! the journal alone, so that is read where a unit is inactive and has no job.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Deadline, Wait};
use crate::{
    base::printed::{last_lines, printable},
    error::{Error, Result},
    sandbox::Sandbox,
    verbs::command::Output,
};

/// How long to rest between two questions.
const STEP: Duration = Duration::from_millis(250);
/// How long systemd may take to answer, whatever time is left: a question that is cut short says nothing.
const ANSWER: Duration = Duration::from_secs(20);
/// How long nothing may be about to start a unit before that is taken as the last word: somebody may be starting it again just now.
const GRACE: Duration = Duration::from_secs(1);
/// How long systemd may refuse to answer: it does so for a moment while it starts itself anew.
const REFUSED: Duration = Duration::from_secs(10);
/// How much of the journal of a unit that failed is shown.
const LINES: usize = 20;

const PROPERTIES: &str = "--property=Id,LoadState,LoadError,ActiveState,SubState,Result,Type,Job,TriggeredBy";

/// What systemd's messages are known by in the journal, from `man systemd.journal-fields` and systemd's `sd-messages.h`.
const START_DONE: &str = "39f53479d3a045ac8e11786248231fbf";
const JOB_FAILED: &str = "be02cf6855d2428ba40df7e9d022f03d";
const ENDED_WELL: &str = "7ad2d189f7e94e70a38c781354912448";
const STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";

impl Sandbox {
    /// Waits until systemd has that unit active: `"ssh"` or `"ssh.service"`, `"greeter.socket"`. A unit of the type `oneshot` that has
    /// run since the guest booted and ended well is taken for active: without `RemainAfterExit` it never stays so.
    ///
    /// The wait ends as soon as nothing can come any more. A unit that does not exist yet is such a case: install it, and have systemd
    /// reload its files, before you wait for it. A unit that nobody has started yet is waited for.
    ///
    /// # Errors
    ///
    /// - [`Error::UnitFailed`], at once: the unit has failed. The error shows the end of its journal.
    /// - [`Error::UnitInactive`], within some two seconds: the unit is not active and nothing is about to start it. It does not
    ///   exist, is masked or has an error in its file, a condition or a dependency of it was not met, its job was canceled, or it has
    ///   run and ended. A unit that an active socket, timer or path may start again goes on being waited for.
    /// - [`Error::WaitTimeout`]: the time is over.
    pub fn wait_for_unit(&self, unit: impl Into<String>) -> Wait<'_> {
        let unit = unit.into();
        Wait::new(move |deadline| ask(self, unit, deadline))
    }
}

async fn ask(sandbox: &Sandbox, unit: String, deadline: Deadline) -> Result<()> {
    let (mut had_job, mut since) = (false, None);
    loop {
        let output = systemctl(sandbox, &["show", PROPERTIES, "--", &unit]).await?;
        let state = State::read(&output);
        let outlook = match state.outlook() {
            Outlook::Unclear => look_back(sandbox, &state, had_job).await?,
            clear => clear,
        };
        match outlook {
            Outlook::Active => return Ok(()),
            Outlook::Failed => {
                let journal = journal(sandbox, &unit).await?;
                return Err(Error::UnitFailed { unit, state: state.words(), journal });
            }
            Outlook::Never { why, grace } => {
                if since.get_or_insert_with(Instant::now).elapsed() >= grace {
                    let journal = journal(sandbox, &unit).await?;
                    return Err(Error::UnitInactive { unit, why, journal });
                }
            }
            Outlook::Open | Outlook::Unclear => since = None,
        }
        had_job |= !state.job.is_empty();
        if deadline.left().is_zero() {
            return Err(deadline.missed(format!("the unit {unit}"), state.words()));
        }
        sleep(STEP.min(deadline.left())).await;
    }
}

/// What may still become of a unit.
#[derive(Debug, PartialEq, Eq)]
enum Outlook {
    Active,
    Failed,
    /// Something is under way, or may come.
    Open,
    /// It is inactive, and systemd says no more.
    Unclear,
    /// Nothing is about to start it, if that is still so after this time.
    Never {
        why: String,
        grace: Duration,
    },
}

impl Outlook {
    fn never(why: impl AsRef<str>, grace: Duration) -> Outlook {
        Outlook::Never { why: printable(why.as_ref()), grace }
    }
}

/// Asks the journal what became of a unit, and systemd whether another unit may start it again.
async fn look_back(sandbox: &Sandbox, state: &State<'_>, had_job: bool) -> Result<Outlook> {
    let fields = "--output-fields=MESSAGE,MESSAGE_ID,JOB_RESULT";
    let (lines, of_unit) = (LINES.to_string(), format!("UNIT={}", state.id));
    let arguments = ["--boot", "--quiet", "--no-pager", "--output=json", fields, "--lines", &lines, &of_unit];
    let output = sandbox.command("journalctl").args(arguments).timeout(ANSWER).output().await?;
    let outlook = state.after(&output.stdout, had_job);
    let triggers: Vec<&str> = state.triggered_by.split_ascii_whitespace().collect();
    if matches!(outlook, Outlook::Never { .. }) && !triggers.is_empty() {
        let arguments = [&["is-active", "--quiet", "--"], &triggers[..]].concat();
        // Succeeds where one of them is active.
        if systemctl(sandbox, &arguments).await?.success() {
            return Ok(Outlook::Open);
        }
    }
    Ok(outlook)
}

async fn systemctl(sandbox: &Sandbox, arguments: &[&str]) -> Result<Output> {
    sandbox.command("systemctl").args(arguments).timeout(ANSWER).output().await
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
    id: &'a str,
    load: &'a str,
    load_error: &'a str,
    active: &'a str,
    sub: &'a str,
    result: &'a str,
    kind: &'a str,
    job: &'a str,
    triggered_by: &'a str,
    /// Its complaint, as where systemd does not run.
    said: &'a str,
}

impl<'a> State<'a> {
    fn read(output: &'a Output) -> State<'a> {
        State { said: output.stderr.trim(), ..State::parse(&output.stdout) }
    }

    fn parse(properties: &'a str) -> State<'a> {
        let mut state = State::default();
        for (name, value) in properties.lines().filter_map(|line| line.split_once('=')) {
            let field = match name {
                "Id" => &mut state.id,
                "LoadState" => &mut state.load,
                "LoadError" => &mut state.load_error,
                "ActiveState" => &mut state.active,
                "SubState" => &mut state.sub,
                "Result" => &mut state.result,
                "Type" => &mut state.kind,
                "Job" => &mut state.job,
                "TriggeredBy" => &mut state.triggered_by,
                _ => continue,
            };
            *field = value;
        }
        state
    }

    /// What is known without the journal.
    fn outlook(&self) -> Outlook {
        match (self.active, self.load) {
            ("", _) => Outlook::never(format!("systemd does not answer: {}", self.said), REFUSED),
            ("active" | "reloading" | "refreshing", _) => Outlook::Active,
            ("failed", _) if self.job.is_empty() => Outlook::Failed,
            ("inactive", "masked") => Outlook::never("it is masked; systemctl unmask lets it start", Duration::ZERO),
            ("inactive", "bad-setting" | "error") => {
                Outlook::never(format!("systemd can't use its file: {}", self.load_error), Duration::ZERO)
            }
            ("inactive", _) if self.job.is_empty() => Outlook::Unclear,
            _ => Outlook::Open,
        }
    }

    /// What the unit's messages in the journal, a JSON object a line, say of one that is inactive and has no job.
    fn after(&self, messages: &str, had_job: bool) -> Outlook {
        let messages = messages.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut ended = false;
        for message in messages {
            let field = |name: &str| message[name].as_str().unwrap_or_default();
            let text = field("MESSAGE");
            match field("MESSAGE_ID") {
                START_DONE if text.contains("skipped because") => return Outlook::never(text, GRACE),
                START_DONE if self.kind == "oneshot" || text.starts_with("Finished ") => return Outlook::Active,
                JOB_FAILED => return Outlook::never(text, GRACE),
                STOPPED => return Outlook::never(format!("it was stopped ({text})"), GRACE),
                ENDED_WELL if self.kind == "oneshot" => return Outlook::Active,
                // Of another type it may be that of a oneshot which systemd has forgotten: its start was done before or after.
                ENDED_WELL => ended = true,
                START_DONE => ended = true,
                _ => {}
            }
        }
        match self.load {
            _ if ended => Outlook::never("it has run and ended", GRACE),
            "not-found" => Outlook::never(
                "systemd knows no such unit (not-found); install it and run systemctl daemon-reload before waiting for it",
                Duration::ZERO,
            ),
            _ if had_job => Outlook::never("the job that was to start it was canceled", GRACE),
            _ => Outlook::Unclear,
        }
    }

    fn words(&self) -> String {
        let State { load, active, sub, result, said, .. } = self;
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
        let words = |load, active, sub, result| State { load, active, sub, result, ..State::default() }.words();
        assert_eq!(
            words("loaded", "activating", "auto-restart", "exit-code"),
            "activating (auto-restart), result exit-code"
        );
        assert_eq!(words("not-found", "inactive", "dead", "success"), "inactive (not-found)");
        assert_eq!(State { said: "no bus", ..State::default() }.words(), "no bus");
    }

    #[test]
    fn what_is_under_way_is_waited_for() {
        let outlook = |text| State::parse(text).outlook();
        for open in [
            "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nJob=",
            "LoadState=loaded\nActiveState=inactive\nJob=138",
            "LoadState=loaded\nActiveState=failed\nJob=12",
            "LoadState=loaded\nActiveState=deactivating\nJob=",
        ] {
            assert_eq!(outlook(open), Outlook::Open, "{open}");
        }
        // A unit that runs on although its file has gone.
        assert_eq!(outlook("LoadState=not-found\nActiveState=active"), Outlook::Active);
        assert_eq!(outlook("LoadState=loaded\nActiveState=failed\nJob="), Outlook::Failed);
        assert!(matches!(outlook("LoadState=masked\nActiveState=inactive\nJob="), Outlook::Never { .. }));
        assert!(matches!(outlook(""), Outlook::Never { grace: REFUSED, .. }));
    }

    #[test]
    fn the_last_message_of_a_run_decides() {
        let (loaded, oneshot) = ("LoadState=loaded\nActiveState=inactive", "LoadState=loaded\nType=oneshot");
        let gone = "LoadState=not-found\nActiveState=inactive";
        let line = |id: &str, text: &str| format!("{{\"MESSAGE_ID\":\"{id}\",\"MESSAGE\":\"{text}\"}}\n");
        let finished = line(ENDED_WELL, "x: Deactivated successfully.") + &line(START_DONE, "Finished x.");
        let ran = line(START_DONE, "Started x.") + &line(ENDED_WELL, "x: Deactivated successfully.");
        let dependency = line(JOB_FAILED, "Dependency failed for x.") + &line("", "x: Job x/start failed.");
        let skipped = line(START_DONE, "x was skipped because of an unmet condition check (ConditionPathExists=/n).");
        let why = |state, messages: &str, had_job| match State::parse(state).after(messages, had_job) {
            Outlook::Never { why, .. } => why,
            other => format!("{other:?}"),
        };
        for (state, messages, had_job, expected) in [
            (oneshot, &*finished, false, "Active"),
            (gone, &*finished, false, "Active"),
            (loaded, &*ran, false, "it has run and ended"),
            (gone, &*ran, false, "it has run and ended"),
            (loaded, &*dependency, false, "Dependency failed"),
            (loaded, &*(ran.clone() + &skipped), false, "ConditionPathExists=/n"),
            (loaded, &*(skipped.clone() + &line(STOPPED, "Stopped x.")), false, "it was stopped"),
            (gone, "", false, "not-found"),
            (loaded, "", true, "canceled"),
            (loaded, "", false, "Unclear"),
            (loaded, "nonsense\n[1]\n{\"MESSAGE_ID\":7}\n", false, "Unclear"),
        ] {
            let why = why(state, messages, had_job);
            assert!(why.contains(expected), "{why}: {state} {messages}");
        }
    }
}
