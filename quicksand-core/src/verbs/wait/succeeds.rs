//! Commands that are run again until they succeed.

use std::time::Duration;

use tokio::time::sleep;

use super::{Deadline, Wait};
use crate::{
    base::printed::describe_run,
    error::{Error, Result},
    guest::exit_status::ExitStatus,
    sandbox::Sandbox,
    verbs::command::Output,
};

/// How long to rest between two runs.
const STEP: Duration = Duration::from_millis(250);

impl Sandbox {
    /// Runs a line of shell in the guest, as [`execute`](Sandbox::execute) does, until it exits with 0, and returns that run's
    /// output.
    pub fn wait_until_succeeds(&self, line: impl Into<String>) -> Wait<'_, Output> {
        let line = line.into();
        Wait::new(move |deadline| run(self, line, deadline))
    }
}

async fn run(sandbox: &Sandbox, line: String, deadline: Deadline) -> Result<Output> {
    let missed = |seen| deadline.missed(format!("the success of {line:?}"), seen);
    let mut last = None;
    loop {
        let command = sandbox.command("/bin/sh").arg("-c").arg(&line).timeout(deadline.left());
        let seen = match command.output().await {
            Ok(output) if output.success() => return Ok(output),
            Ok(output) => {
                let end = match output.status {
                    ExitStatus::Code(code) => format!("exit code {code}"),
                    ExitStatus::Signal(signal) => format!("signal {signal}"),
                };
                describe_run(&end, &output.stdout, &output.stderr)
            }
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
