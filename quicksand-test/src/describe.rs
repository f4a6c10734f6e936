//! Failures in words.

use std::{error::Error, fmt::Write};

use crate::prepare::Failure;

/// What a failure says to people.
pub(crate) fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Quicksand(error) => format!("failed to {}", error_text(error)),
        Failure::Unresolved(error) => format!("failed to {}", error_text(error)),
        Failure::Input(error) => format!("failed to {}", error_text(error)),
        Failure::Setup(failure) => failure.to_string(),
    }
}

/// An error and all that it came of.
pub(crate) fn error_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}
