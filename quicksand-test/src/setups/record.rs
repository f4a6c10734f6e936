//! What became of a layer in the run that made it last: whether an update has been done, and how it failed, so that the other tests
//! of the run need not find out again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use quicksand_core::Error;
use serde::{Deserialize, Serialize};

use crate::this_run::ThisRun;

/// A layer's last making.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The run that it was made in.
    run: String,
    /// Which try of its tests that was.
    attempt: u32,
    /// What it was made from.
    recipe: String,
    /// How it failed, if it did.
    failure: Option<Failed>,
}

/// A making that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failed {
    /// How.
    pub(super) said: String,
    /// The test for which it was tried.
    pub(super) test: String,
}

impl Record {
    pub(super) fn new(run: &ThisRun, recipe: &str, failure: Option<Failed>) -> Record {
        Record { run: run.id.clone(), attempt: run.attempt, recipe: recipe.to_owned(), failure }
    }

    /// The record of a save of that directory of saves. One that can't be read counts as none.
    pub(super) fn read(saves: &Path, save: &str) -> Option<Record> {
        serde_json::from_slice(&fs::read(path(saves, save)).ok()?).ok()
    }

    /// Writes it down. The caller has the right to make the save.
    pub(super) fn write(&self, saves: &Path, save: &str) -> Result<(), Error> {
        let path = path(saves, save);
        let unfinished = path.with_extension("new");
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&unfinished, bytes))
            .and_then(|()| fs::rename(&unfinished, &path))
            .map_err(|source| Error::Io { what: "write", path, source })
    }

    /// Whether the layer was made in this run.
    pub(super) fn is_of(&self, run: &ThisRun) -> bool {
        self.run == run.id
    }

    /// How the layer failed in this run, if it did. A runner that tries a test again wants it tried again.
    pub(super) fn failure(&self, run: &ThisRun, recipe: &str) -> Option<&Failed> {
        let same = self.is_of(run) && self.attempt >= run.attempt && self.recipe == recipe;
        self.failure.as_ref().filter(|_| same)
    }
}

fn path(saves: &Path, save: &str) -> PathBuf {
    saves.with_file_name("setups").join(format!("{save}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_in_its_run_alone() {
        let directory = tempfile::tempdir().unwrap();
        let saves = directory.path().join("sandboxes");
        let run = |id: &str, attempt| ThisRun { id: id.to_owned(), attempt };
        assert_eq!(Record::read(&saves, "base"), None);
        let failed = Failed { said: "no".into(), test: "t".into() };
        Record::new(&run("one", 1), "r", Some(failed.clone())).write(&saves, "base").unwrap();
        let record = Record::read(&saves, "base").unwrap();
        assert_eq!(record.failure(&run("one", 1), "r"), Some(&failed));
        assert_eq!(record.failure(&run("one", 2), "r"), None, "a second try");
        assert_eq!(record.failure(&run("two", 1), "r"), None, "another run");
        assert_eq!(record.failure(&run("one", 1), "s"), None, "another recipe");
        assert!(record.is_of(&run("one", 2)) && !record.is_of(&run("two", 1)));
        fs::write(path(&saves, "base"), "{").unwrap();
        assert_eq!(Record::read(&saves, "base"), None);
    }
}
