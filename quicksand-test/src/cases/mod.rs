//! Case files: every `tests/cases/*.md` of a package is a session, run in a machine of its own.
//!
//! - `session` reads a file, with `front_matter` at its top and `line` for what may stand in a line;
//! - `shell` runs the commands of a session;
//! - `compare` finds what differs, `verdict` tells it, and has what the file would have to say;
//! - `write` exchanges a file.

mod compare;
mod front_matter;
mod line;
mod session;
mod shell;
mod verdict;
mod write;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use quicksand_core::{
    Sandbox,
    environment::{Cases, Environment},
};
use tokio::time::Instant;

use self::{
    session::{Session, Step},
    shell::Shell,
    verdict::{Verdict, rewritten},
};
use crate::{failure::print_past_capture, prepare::package_dir, requirement::is_skipped, run::run};

/// Where case files are in a package.
const DIRECTORY: &str = "tests/cases";
/// How long the harness waits beyond a session's own time, which knows the command that took it.
const GRACE: Duration = Duration::from_secs(30);

/// A case file. Nothing of it is read before it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CaseFile {
    /// `cases::` and its name without `.md`.
    pub(crate) name: String,
    /// The file.
    path: PathBuf,
    /// The same from the package on.
    shown: PathBuf,
    /// The package, where it was compiled.
    package: String,
}

/// The case files of the package that was compiled in `package`, by name. A `README.md` among them is for people.
///
/// # Errors
///
/// That of the directory, where it can't be read. Where there is none, there are no case files.
pub(crate) fn case_files(package: &str) -> io::Result<Vec<CaseFile>> {
    let root = package_dir(package);
    let entries = match fs::read_dir(root.join(DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut cases = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let (Some(name), Some(file)) = (path.file_stem(), path.file_name()) else { continue };
        if path.extension().is_some_and(|extension| extension == "md") && file != "README.md" {
            let name = format!("cases::{}", name.to_string_lossy());
            cases.push(CaseFile { name, shown: Path::new(DIRECTORY).join(file), path, package: package.to_owned() });
        }
    }
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(cases)
}

impl CaseFile {
    /// Runs the session, or skips it where the host lacks what it requires.
    ///
    /// # Panics
    ///
    /// Where it fails: the file can't be read, the machine can't be had, or a command does not do what is expected of it. With
    /// `QUICKSAND_CASES=overwrite` the last is no failure: the file says afterwards what the commands did.
    pub(crate) fn run(&self) {
        let text = fs::read_to_string(&self.path);
        let text = text.unwrap_or_else(|error| panic!("failed to read {}: {error}", self.shown.display()));
        let session = Session::parse(&self.shown, &text).unwrap_or_else(|mistake| panic!("{mistake}"));
        let overwrite = match Environment::read() {
            Ok(environment) => environment.cases == Cases::Overwrite,
            Err(error) => panic!("{}: failed to {error}", self.name),
        };
        let mut test = session.front.test(&self.name, &self.package);
        test.timeout = Some(session.front.timeout() + GRACE);
        if is_skipped(&test) {
            return;
        }
        run(&test, async |sandbox: Sandbox| {
            if let Err(why) = self.play(&sandbox, &session, &text, overwrite).await {
                panic!("{why}");
            }
        });
    }

    async fn play(&self, sandbox: &Sandbox, session: &Session, text: &str, overwrite: bool) -> Result<(), String> {
        let deadline = Instant::now() + session.front.timeout();
        let mut shell = Shell::new(sandbox, &session.front);
        let mut verdicts = Vec::new();
        for step in &session.steps {
            match shell.run(&step.command, deadline).await {
                Ok(ended) => verdicts.push(Verdict::new(step, &ended)),
                // What came before may be why.
                Err(error) => return Err(self.differences(&verdicts, text) + &self.at(step, &error.to_string())),
            }
        }
        let differ = verdicts.iter().any(|verdict| !verdict.is_as_expected());
        match (differ, overwrite) {
            (false, _) => Ok(()),
            (true, true) => {
                let written = write::exchange(&self.path, text, &rewritten(text, &verdicts));
                written.map_err(|error| format!("failed to rewrite {}: {error}", self.shown.display()))?;
                print_past_capture(&format!("REWRITTEN {}\n", self.shown.display()));
                Ok(())
            }
            (true, false) => Err(format!(
                "{}where that is right, QUICKSAND_CASES=overwrite writes it into the file",
                self.differences(&verdicts, text)
            )),
        }
    }

    fn differences(&self, verdicts: &[Verdict<'_>], text: &str) -> String {
        let differ = verdicts.iter().filter(|verdict| !verdict.is_as_expected());
        differ
            .map(|verdict| {
                self.at(verdict.step(), "this came (+), that is expected (-):") + "\n" + &verdict.difference(text)
            })
            .collect()
    }

    /// Something about a command.
    fn at(&self, step: &Step, what: &str) -> String {
        format!("{}:{}: `{}`: {what}", self.shown.display(), step.line, step.command.replace('\n', "; "))
    }
}
