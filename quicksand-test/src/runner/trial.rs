//! Carrying out one test, as often as it may be tried.

use std::{
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use libtest_mimic::{Completion, Failed};

use super::{Case, Run, listen::Told};
use crate::{body::panic_message, current};

/// What came of a test, try by try.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) name: String,
    /// Why it did not run.
    pub(super) ignored: Option<String>,
    /// The last one decides.
    pub(super) tries: Vec<Try>,
}

/// One try of a test.
#[derive(Debug)]
pub(super) struct Try {
    pub(super) began: SystemTime,
    pub(super) took: Duration,
    /// Why it failed.
    pub(super) failure: Option<Failure>,
}

#[derive(Debug)]
pub(super) struct Failure {
    /// The words of the failure, in one line where they are.
    pub(super) reason: String,
    /// All that the test said.
    pub(super) text: String,
    /// Where what is known of it is.
    pub(super) directory: Option<PathBuf>,
}

enum End {
    Passed,
    Skipped(String),
    Failed(Failure),
}

/// Runs a test until it passes or has been tried often enough, unless it is ignored.
pub(super) fn carry_out(case: Case, is_ignored: bool, run: &Run) -> Result<Completion, Failed> {
    let mut record = Record { name: case.name.clone(), ignored: None, tries: Vec::new() };
    let completion = if is_ignored {
        let reason = case.ignored.clone().filter(|reason| !reason.is_empty());
        record.ignored = Some(reason.clone().unwrap_or_default());
        Ok(Completion::Ignored { reason })
    } else {
        tries(&Arc::new(case), run, &mut record)
    };
    run.records().push(record);
    completion
}

fn tries(case: &Arc<Case>, run: &Run, record: &mut Record) -> Result<Completion, Failed> {
    let most = 1 + usize::from(run.retries.unwrap_or(case.retries));
    loop {
        let number = record.tries.len() + 1;
        let (began, begun) = (SystemTime::now(), Instant::now());
        let end = once(case, run, number);
        let mut tried = Try { began, took: begun.elapsed(), failure: None };
        match end {
            End::Skipped(reason) => {
                record.ignored = Some(reason.clone());
                return Ok(Completion::ignored_with(reason));
            }
            End::Passed => {
                record.tries.push(tried);
                return Ok(Completion::Completed);
            }
            End::Failed(failure) => {
                let again = format!("RETRY {}: try {number} of {most} failed: {}\n", case.name, failure.reason);
                tried.failure = Some(failure);
                record.tries.push(tried);
                if number == most {
                    return Err(all_words(&record.tries).into());
                }
                run.screen.print(&again);
            }
        }
    }
}

/// Runs a test once, on a thread of its own that has its name, as libtest does.
fn once(case: &Arc<Case>, run: &Run, number: usize) -> End {
    let told = Arc::new(Told::new(run.screen.line(&case.name, number)));
    let work = {
        let (case, told) = (Arc::clone(case), Arc::clone(&told));
        move || {
            current::listen(told);
            catch_unwind(AssertUnwindSafe(|| (case.run)()))
        }
    };
    let spawned = thread::Builder::new().name(case.name.clone()).spawn(work);
    let panic = match spawned.map(thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(panic)) | Err(panic)) => Some(panic_message(&*panic).to_owned()),
        Err(error) => Some(format!("failed to start a thread: {error}")),
    };
    let mut words = told.take();
    if let Some(reason) = words.skipped {
        return End::Skipped(reason);
    }
    let reason = match (panic, &case.should_panic) {
        (None, None) => return End::Passed,
        (Some(panic), Some(expected)) if panic.contains(expected) => return End::Passed,
        (Some(panic), None) => panic,
        (None, Some(_)) => "the test did not panic as it should".to_owned(),
        (Some(_), Some(expected)) => format!("the test did not panic with the words {expected:?} as it should"),
    };
    // A panic has told its reason itself.
    if !words.text.contains(&reason) {
        words.text.insert_str(0, &format!("{reason}\n"));
    }
    let reason = reason.lines().next().unwrap_or_default().to_owned();
    End::Failed(Failure { reason, text: words.text.trim_end().to_owned(), directory: words.directory })
}

/// What a test said that failed each time.
fn all_words(tries: &[Try]) -> String {
    let failures = tries.iter().filter_map(|tried| tried.failure.as_ref());
    match tries {
        [_] => failures.map(|failure| failure.text.as_str()).collect(),
        _ => {
            let with_number =
                |(number, failure): (usize, &Failure)| format!("try {number} of {}:\n{}", tries.len(), failure.text);
            (1..).zip(failures).map(with_number).collect::<Vec<_>>().join("\n\n")
        }
    }
}

impl Record {
    /// Whether it passed, and not at once.
    fn is_flaky(&self) -> bool {
        self.tries.len() > 1 && self.tries.last().is_some_and(|last| last.failure.is_none())
    }
}

/// Of the tests that passed, but not at once, what is to be told in the end.
pub(super) fn flaky(records: &[Record]) -> String {
    let mut text = String::new();
    for record in records.iter().filter(|record| record.is_flaky()) {
        let tries = record.tries.len();
        let _ = writeln!(text, "FLAKY {}: passed at try {tries}, after these failures:", record.name);
        for failure in record.tries.iter().filter_map(|tried| tried.failure.as_ref()) {
            for line in failure.text.lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    text
}
