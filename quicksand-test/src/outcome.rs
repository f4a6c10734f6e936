//! What tests may return.

use std::{convert::Infallible, fmt, process::ExitCode};

/// What a test may return: nothing, a `Result` or an `ExitCode`.
#[diagnostic::on_unimplemented(message = "a test returns `()`, a `Result` or an `ExitCode`, and not `{Self}`")]
pub trait TestOutcome {
    /// Why the test failed, where it did.
    fn failure(self) -> Option<String>;
}

impl TestOutcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl TestOutcome for Infallible {
    fn failure(self) -> Option<String> {
        match self {}
    }
}

impl TestOutcome for ExitCode {
    fn failure(self) -> Option<String> {
        (self != ExitCode::SUCCESS).then(|| format!("the test returned a failure: {self:?}"))
    }
}

impl<T: TestOutcome, E: fmt::Debug> TestOutcome for Result<T, E> {
    fn failure(self) -> Option<String> {
        match self {
            Ok(value) => value.failure(),
            Err(error) => Some(format!("the test returned an error: {error:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told() {
        assert_eq!(().failure(), None);
        assert_eq!(Ok::<_, u8>(ExitCode::SUCCESS).failure(), None);
        assert_eq!(Err::<(), _>("no").failure().unwrap(), r#"the test returned an error: "no""#);
        assert!(Ok::<_, u8>(ExitCode::from(3)).failure().unwrap().starts_with("the test returned a failure: "));
    }
}
