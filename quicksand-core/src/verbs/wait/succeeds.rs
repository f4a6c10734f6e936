//! Commands that are run again until they succeed.

use std::time::Duration;

use tokio::time::sleep;

use super::{Deadline, Wait};
use crate::{
    base::printed::describe_run,
    error::{Error, Result},
    sandbox::Sandbox,
    verbs::command::CheckedOutput,
};

/// How long to rest between two runs.
const STEP: Duration = Duration::from_millis(250);

impl Sandbox {
    /// Runs a line of shell in the guest, as [`execute`](Sandbox::execute) does, until it exits with 0, and returns that run's
    /// output.
    pub fn wait_until_succeeds(&self, line: impl Into<String>) -> Wait<'_, CheckedOutput> {
        let line = line.into();
        Wait::new(move |deadline| run(self, line, deadline))
    }
}

async fn run(sandbox: &Sandbox, line: String, deadline: Deadline) -> Result<CheckedOutput> {
    let missed = |seen| deadline.missed(format!("the success of {line:?}"), seen);
    let mut last = None;
    loop {
        let command = sandbox.command("/bin/sh").arg("-c").arg(&line).timeout(deadline.left());
        let seen = match command.output().await {
            Ok(output) => match output.check() {
                Err(Error::CommandFailed { status, stdout, stderr, .. }) => {
                    describe_run(&status.to_string(), &stdout, &stderr)
                }
                checked => return checked,
            },
            Err(Error::CommandTimeout { stdout, stderr, .. }) => {
                // How an earlier run ended says more than how far the last one came in the time that was left.
                return Err(missed(last.unwrap_or_else(|| describe_run("it was still running", &stdout, &stderr))));
            }
            Err(error) => return Err(error),
        };
        if deadline.left().is_zero() {
            return Err(missed(seen));
        }
        last = Some(seen);
        sleep(STEP.min(deadline.left())).await;
    }
}
