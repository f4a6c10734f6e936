//! The report for other programs, in the format that JUnit began.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use chrono::{DateTime, FixedOffset, Utc};
use quick_junit::{NonSuccessKind, Report, SerializeError, TestCase, TestCaseStatus, TestRerun, TestSuite};

use super::trial::{Failure, Record, Try};
use crate::bundle;

/// What the report tells.
#[derive(Debug)]
pub(super) struct Junit<'a> {
    pub(super) program: &'a str,
    pub(super) began: SystemTime,
    pub(super) records: &'a [Record],
}

/// The report could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum JunitError {
    #[error("write the JUnit report {path:?}: {why}; QUICKSAND_JUNIT says where")]
    Io { path: PathBuf, why: io::Error },
    #[error("make a JUnit report: {0}")]
    Serialize(#[from] SerializeError),
}

impl Junit<'_> {
    /// Writes the report into the file of that path, or into one named after the program in the directory of that path.
    pub(super) fn write(&self, path: &Path) -> Result<(), JunitError> {
        let names_directory = path.as_os_str().as_encoded_bytes().ends_with(b"/") || path.is_dir();
        let file = if names_directory { path.join(self.program).with_extension("xml") } else { path.to_owned() };
        let text = self.report().to_string()?;
        let made = file.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&file, text)).map_err(|why| JunitError::Io { path: file, why })
    }

    fn report(&self) -> Report {
        let took = self.began.elapsed().unwrap_or_default();
        let mut suite = TestSuite::new(self.program);
        suite.set_timestamp(timestamp(self.began)).set_time(took);
        let mut records: Vec<&Record> = self.records.iter().collect();
        records.sort_by(|one, other| one.name.cmp(&other.name));
        suite.add_test_cases(records.into_iter().map(|record| self.case(record)));
        let mut report = Report::new(self.program);
        report.set_timestamp(timestamp(self.began)).set_time(took).add_test_suite(suite);
        report
    }

    fn case(&self, record: &Record) -> TestCase {
        let status = match (&record.ignored, record.tries.split_last()) {
            (None, Some((last, before))) => status(last, before),
            (reason, _) => {
                let mut status = TestCaseStatus::skipped();
                if let Some(reason) = reason.as_ref().filter(|reason| !reason.is_empty()) {
                    status.set_message(reason.as_str());
                }
                status
            }
        };
        let mut case = TestCase::new(record.name.as_str(), status);
        case.set_classname(self.program).set_time(record.tries.iter().map(|tried| tried.took).sum::<Duration>());
        if let Some(first) = record.tries.first() {
            case.set_timestamp(timestamp(first.began));
        }
        let failure = record.tries.last().and_then(|last| last.failure.as_ref());
        if let Some(text) = failure.and_then(attachments) {
            case.set_system_out(text);
        }
        case
    }
}

/// What came of a test, by its last try and those before it.
fn status(last: &Try, before: &[Try]) -> TestCaseStatus {
    let mut status = match &last.failure {
        None => TestCaseStatus::success(),
        Some(failure) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(failure.reason.as_str()).set_description(failure.text.as_str());
            status
        }
    };
    for tried in before {
        let Some(failure) = &tried.failure else { continue };
        let mut rerun = TestRerun::new(NonSuccessKind::Failure);
        rerun.set_timestamp(timestamp(tried.began)).set_time(tried.took);
        rerun.set_message(failure.reason.as_str()).set_description(failure.text.as_str());
        if let Some(text) = attachments(failure) {
            rerun.set_system_out(text);
        }
        status.add_rerun(rerun);
    }
    status
}

fn timestamp(time: SystemTime) -> DateTime<FixedOffset> {
    DateTime::<Utc>::from(time).into()
}

/// What runners of continuous integration take for attachments: the files that a failure left.
fn attachments(failure: &Failure) -> Option<String> {
    let files = bundle::files(failure.directory.as_deref()?).ok()?;
    Some(files.into_iter().map(|file| format!("[[ATTACHMENT|{file}]]\n")).collect())
}
