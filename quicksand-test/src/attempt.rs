//! One run of a test, and the mark that it leaves: a test that was killed can be told from one that passed.
//!
//! ```text
//! running    there from the start to the end of a test, and locked by its process
//! failed     what `running` becomes where the test fails
//! ```
//!
//! Beside it grows the list of what is run in its machine, for a test that is killed.
//!
//! A test that passes removes its directory. So a directory with `running` that nobody locks is that of a test which was killed before
//! it came to its end.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use crate::{bundle::COMMANDS, place};

const RUNNING: &str = "running";
const FAILED: &str = "failed";

/// One run of a test.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// `None` where the host does not let us have one: a test does not fail for that.
    directory: Option<PathBuf>,
    _mark: Option<File>,
}

impl Attempt {
    /// Begins one.
    pub(crate) fn begin(test: &str, package: &Path) -> Attempt {
        let made = place::test_directory(test, package).and_then(|directory| {
            let mut mark = File::create_new(directory.join(RUNNING))?;
            mark.lock()?;
            writeln!(mark, "{test}, process {}; if nothing runs, it was killed", std::process::id())?;
            Ok((directory, mark))
        });
        match made {
            Ok((directory, mark)) => Attempt { directory: Some(directory), _mark: Some(mark) },
            Err(error) => {
                tracing::warn!(test, %error, "a failure would leave nothing behind");
                Attempt { directory: None, _mark: None }
            }
        }
    }

    /// Where what is known of a failure goes.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Ends one that did not fail: nothing of it stays.
    pub(crate) fn passed(&self) {
        let Some(directory) = &self.directory else { return };
        for name in [RUNNING, COMMANDS] {
            let _ = fs::remove_file(directory.join(name));
        }
        let _ = fs::remove_dir(directory);
        // Where it is the last one there.
        let _ = directory.parent().map(fs::remove_dir);
    }

    /// Ends one that failed.
    pub(crate) fn failed(&self) {
        if let Some(directory) = &self.directory {
            let _ = fs::rename(directory.join(RUNNING), directory.join(FAILED));
        }
    }
}

/// Whether the test of that directory is under way.
pub(crate) fn is_running(directory: &Path) -> bool {
    File::open(directory.join(RUNNING)).is_ok_and(|mark| mark.try_lock_shared().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_tell_how_a_test_ended() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let begin = |name: &str| Attempt::begin(name, package);
        let attempts = [begin("marks::passes"), begin("marks::fails"), begin("marks::is_killed")];
        let [passes, fails, killed] = [0, 1, 2].map(|n: usize| attempts[n].directory().unwrap().to_owned());
        assert!(is_running(&passes) && is_running(&fails));
        let [pass, fail, kill] = attempts;
        pass.passed();
        fail.failed();
        drop(kill);
        assert!(!passes.exists());
        assert!(fails.join(FAILED).exists() && !fails.join(RUNNING).exists() && !is_running(&fails));
        assert!(killed.join(RUNNING).exists() && !is_running(&killed));
        for directory in [fails, killed] {
            fs::remove_dir_all(directory).unwrap();
        }
    }
}
