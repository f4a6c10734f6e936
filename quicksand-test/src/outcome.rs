//! What tests may return: whatever `main` may.

use std::{
    cell::RefCell,
    convert::Infallible,
    error::Error,
    fmt,
    process::{ExitCode, Termination},
};

use crate::describe::error_text;

/// What tells by itself why a test failed: nothing, a `Result` or an `ExitCode`.
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

/// What came of a test's body, told once.
#[derive(Debug)]
pub struct Told(pub(crate) Option<String>);

impl TestOutcome for Told {
    fn failure(self) -> Option<String> {
        self.0
    }
}

/// What a test returned. `(&&&Returned::new(value)).told()` has the compiler choose [`ByWords`] where that is possible, as it needs no
/// reference less, then [`ByOutcome`], and [`ByTermination`] else.
#[derive(Debug)]
pub struct Returned<T>(RefCell<Option<T>>);

impl<T> Returned<T> {
    /// Takes what a test returned.
    pub fn new(value: T) -> Returned<T> {
        Returned(RefCell::new(Some(value)))
    }
}

/// For results whose error has words for people.
pub trait ByWords {
    /// What came of the test. To be asked once.
    fn told(&self) -> Told;
}

impl<T: TestOutcome, E: Error> ByWords for &&Returned<Result<T, E>> {
    fn told(&self) -> Told {
        Told(self.0.take().and_then(|result| match result {
            Ok(value) => value.failure(),
            Err(error) => Some(format!("the test returned an error: {}", error_text(&error))),
        }))
    }
}

/// For what else tells by itself why a test failed.
pub trait ByOutcome {
    /// What came of the test. To be asked once.
    fn told(&self) -> Told;
}

impl<T: TestOutcome> ByOutcome for &Returned<T> {
    fn told(&self) -> Told {
        Told(self.0.take().and_then(TestOutcome::failure))
    }
}

/// For whatever else `main` may return, which prints its own words.
pub trait ByTermination {
    /// What came of the test. To be asked once.
    fn told(&self) -> Told;
}

impl<T: Termination> ByTermination for Returned<T> {
    fn told(&self) -> Told {
        Told(self.0.take().and_then(|value| value.report().failure()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::needless_borrow, reason = "as the macro writes it, which does not know the type")]
    fn whatever_main_may_return_is_told() {
        struct Code(u8);
        impl Termination for Code {
            fn report(self) -> ExitCode {
                self.0.into()
            }
        }
        assert_eq!((&&&Returned::new(())).told().0, None);
        assert_eq!((&&&Returned::new(Err::<(), _>("no"))).told().0.unwrap(), r#"the test returned an error: "no""#);
        // An error is told in its words, and not as a program sees it.
        let error = "x".parse::<u8>();
        assert_eq!(
            (&&&Returned::new(error.map(drop))).told().0.unwrap(),
            "the test returned an error: invalid digit found in string"
        );
        let boxed = || -> Result<(), Box<dyn Error>> { Err("no".into()) };
        assert_eq!((&&&Returned::new(boxed())).told().0.unwrap(), r#"the test returned an error: "no""#);
        assert_eq!((&&&Returned::new(Code(0))).told().0, None);
        assert!((&&&Returned::new(Code(3))).told().0.unwrap().starts_with("the test returned a failure: "));
        assert!((&&&Returned::new(Ok::<_, u8>(Code(3)))).told().0.is_some());
        fn opaque(code: u8) -> impl Termination {
            Code(code)
        }
        assert_eq!((&&&Returned::new(opaque(0))).told().0, None);
        assert!((&&&Returned::new(opaque(1))).told().0.is_some());
    }

    #[test]
    fn failures_are_told() {
        assert_eq!(().failure(), None);
        assert_eq!(Ok::<_, u8>(ExitCode::SUCCESS).failure(), None);
        assert_eq!(Err::<(), _>("no").failure().unwrap(), r#"the test returned an error: "no""#);
        assert!(Ok::<_, u8>(ExitCode::from(3)).failure().unwrap().starts_with("the test returned a failure: "));
    }
}
