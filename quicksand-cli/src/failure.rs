//! How a failed command is told: on standard error, with its causes and what to do.

use std::{error::Error, fmt::Write, process::ExitCode};

use quicksand_core::Error as CoreError;

use crate::exit;

/// Why a command failed, and with which code.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

/// A command's outcome.
pub(crate) type Result<T = ExitCode> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure of our own.
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None, code: exit::FAILURE }
    }

    /// What to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Another code than that of a plain failure.
    pub(crate) fn code(mut self, code: u8) -> Failure {
        self.code = code;
        self
    }

    /// Tells it, and gives the code to end with.
    pub(crate) fn report(self) -> ExitCode {
        eprintln!("quicksand: {}", self.message);
        if let Some(hint) = self.hint {
            eprintln!("  hint: {hint}");
        }
        ExitCode::from(self.code)
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        let mut message = format!("failed to {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(message, ": {cause}");
            source = cause.source();
        }
        let hint = (&error as &(dyn Error + 'static)).downcast_ref::<CoreError>().and_then(hint_for);
        Failure { message, hint: hint.map(str::to_owned), code: exit::FAILURE }
    }
}

/// What to do about an error whose own words don't say it.
fn hint_for(error: &CoreError) -> Option<&'static str> {
    match error {
        CoreError::NoSuchSource { .. } => Some("`quicksand images list` and `quicksand saves list` show what there is"),
        CoreError::Qemu(_) | CoreError::QemuImg { .. } | CoreError::Accelerator { .. } => {
            Some("`quicksand doctor` checks what machines need")
        }
        CoreError::NoSpace { .. } => Some("`quicksand prune` makes room"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_hints_are_told() {
        let io = std::io::Error::from(std::io::ErrorKind::NotFound);
        let failure = Failure::from(CoreError::QemuImg { said: "nothing".into() });
        assert!(failure.message.starts_with("failed to run qemu-img") && failure.hint.unwrap().contains("doctor"));
        assert_eq!(Failure::from(io).message, "failed to entity not found");
    }
}
