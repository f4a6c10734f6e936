//! What the runner runs.

use std::{fmt, path::Path};

use crate::cases;

/// One thing that runs and passes or fails: a test of the program, or a file that is one.
pub struct Case {
    /// By which it is chosen: the path of a test within its program, as libtest has it.
    pub name: String,
    /// Why it runs only where it is asked for; empty where no reason is given.
    pub ignored: Option<String>,
    /// What must be in the words of a panic by which it passes.
    pub should_panic: Option<String>,
    /// How often it is tried again where it fails.
    pub retries: u8,
    /// Runs it. It fails by a panic.
    pub run: Box<dyn Fn() + Send + Sync>,
}

impl Case {
    /// One that runs, and passes unless it panics.
    pub fn new(name: impl Into<String>, run: impl Fn() + Send + Sync + 'static) -> Case {
        Case { name: name.into(), ignored: None, should_panic: None, retries: 0, run: Box::new(run) }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { name, ignored, should_panic, retries, run: _ } = self;
        f.debug_struct("Case")
            .field("name", name)
            .field("ignored", ignored)
            .field("should_panic", should_panic)
            .field("retries", retries)
            .finish_non_exhaustive()
    }
}

/// The case files of a package, `tests/cases/*.md`. None is read before it runs.
///
/// # Errors
///
/// In words, where their directory can't be read.
pub fn case_files(package: &Path) -> Result<Vec<Case>, String> {
    let files = cases::case_files(&package.to_string_lossy());
    let files = files.map_err(|error| format!("failed to list the case files of {}: {error}", package.display()))?;
    Ok(files.into_iter().map(|file| Case::new(file.name.clone(), move || file.run())).collect())
}

/// A test of the program, as its attribute registers it.
#[derive(Debug)]
pub struct Registered {
    /// Crate, module and function.
    pub name: &'static str,
    /// As in [`Case`].
    pub ignored: Option<&'static str>,
    /// As in [`Case`].
    pub should_panic: Option<&'static str>,
    /// As in [`Case`].
    pub retries: u8,
    /// As in [`Case`].
    pub run: fn(),
}

inventory::collect!(Registered);

impl From<&'static Registered> for Case {
    fn from(test: &'static Registered) -> Case {
        let Registered { name, ignored, should_panic, retries, run } = *test;
        // libtest leaves out the crate.
        let name = name.split_once("::").map_or(name, |(_, name)| name);
        let text = |text: Option<&str>| text.map(str::to_owned);
        Case { ignored: text(ignored), should_panic: text(should_panic), retries, ..Case::new(name, run) }
    }
}
