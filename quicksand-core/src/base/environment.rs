//! The variables by which whoever runs a program or a test suite has a say in it, whatever its code asks for.
//!
//! All are read here and nowhere else. A value that means nothing is refused, and so is a name with our prefix that is none of
//! ours: a slip in a variable would otherwise go unnoticed for good.

use std::{
    env,
    ffi::{OsStr, OsString},
    num::NonZeroU32,
    path::PathBuf,
};

use super::size::Size;
use super::{accel::Accel, names::is_fit};

/// What the names of all variables start with.
const PREFIX: &str = "QUICKSAND_";

/// A variable, as its table in the documentation describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What may be written.
    pub accepted: &'static str,
    /// What it does, and what happens without it.
    pub meaning: &'static str,
}

const ACCEL: Variable = Variable {
    name: "QUICKSAND_ACCEL",
    accepted: "auto, kvm, hvf, whpx or tcg",
    meaning: "what runs the guest's code, unless a test or a program chooses; default auto",
};
const CACHE_DIR: Variable = Variable {
    name: "QUICKSAND_CACHE_DIR",
    accepted: "an absolute path",
    meaning: "where images and warm states are kept; default ~/.cache/quicksand, or quicksand in XDG_CACHE_HOME",
};
const CASES: Variable = Variable {
    name: "QUICKSAND_CASES",
    accepted: "check or overwrite",
    meaning: "whether case files are compared with what their commands do, or rewritten; default check",
};
const JOBS: Variable = Variable {
    name: "QUICKSAND_JOBS",
    accepted: "a number from 1",
    meaning: "how many machines run at once, over all test processes; default by processors and memory",
};
const JUNIT: Variable = Variable {
    name: "QUICKSAND_JUNIT",
    accepted: "a path",
    meaning: "where the runner of `quicksand::main!` writes its JUnit report: a file, or a directory with a report of each test program; default nowhere",
};
const KEEP: Variable = Variable {
    name: "QUICKSAND_KEEP",
    accepted: "always, failed or never",
    meaning: "which tests keep their whole machine, to be entered later; default failed",
};
const MEMORY_BUDGET: Variable = Variable {
    name: "QUICKSAND_MEMORY_BUDGET",
    accepted: "an amount of memory such as 4G",
    meaning: "how much memory all machines together may take; default by the memory of the host",
};
const MIRROR: Variable = Variable {
    name: "QUICKSAND_MIRROR",
    accepted: "a URL that starts with https:// or http://",
    meaning: "a server that is asked for files of images before their publishers; default what quicksand.toml says",
};
const OFFLINE: Variable = Variable {
    name: "QUICKSAND_OFFLINE",
    accepted: "1 or 0",
    meaning: "whether images come from the cache only, and nothing is fetched; default 0",
};
const PASST: Variable = Variable {
    name: "QUICKSAND_PASST",
    accepted: "a path or a name",
    meaning: "the passt that connects the network `full`; default passt on the path, or QEMU's own network if there is none",
};
const QEMU: Variable = Variable {
    name: "QUICKSAND_QEMU",
    accepted: "a path or a name",
    meaning: "the QEMU to use; default qemu-system-ARCH on the path",
};
const REQUIRE: Variable = Variable {
    name: "QUICKSAND_REQUIRE",
    accepted: "1 or 0",
    meaning: "whether a test fails, rather than being skipped, if the host lacks what it requires; default 1 if CI is set, else 0",
};
const RETRIES: Variable = Variable {
    name: "QUICKSAND_RETRIES",
    accepted: "a number from 0 to 255",
    meaning: "how often the runner of `quicksand::main!` tries a failed test again; default what the test's `retries` says, or 0",
};
const UPDATE: Variable = Variable {
    name: "QUICKSAND_UPDATE",
    accepted: "1, 0, or names of saves with commas between them",
    meaning: "which saves of setups are made again, once in this run; default 0",
};

/// All variables, by name.
pub const VARIABLES: [Variable; 14] =
    [ACCEL, CACHE_DIR, CASES, JOBS, JUNIT, KEEP, MEMORY_BUDGET, MIRROR, OFFLINE, PASST, QEMU, REQUIRE, RETRIES, UPDATE];

/// What the variables say. Those that are not set, or empty, stand as their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Environment {
    /// `QUICKSAND_ACCEL`: what runs the guest's code where nothing else is asked for.
    pub accel: Accel,
    /// `QUICKSAND_CACHE_DIR`: where images and warm states are kept. An absolute path.
    pub cache_dir: Option<PathBuf>,
    /// `QUICKSAND_CASES`: whether case files are rewritten.
    pub cases: Cases,
    /// `QUICKSAND_JOBS`: how many machines run at once, over all test processes.
    pub jobs: Option<NonZeroU32>,
    /// `QUICKSAND_JUNIT`: where the runner writes its JUnit report.
    pub junit: Option<PathBuf>,
    /// `QUICKSAND_KEEP`: of which tests the machine is kept.
    pub keep: Keep,
    /// `QUICKSAND_MEMORY_BUDGET`: how much memory all machines take together.
    pub memory_budget: Option<Size>,
    /// `QUICKSAND_MIRROR`: where files of images are looked for before their publishers.
    pub mirror: Option<String>,
    /// `QUICKSAND_OFFLINE`: whether nothing is to be fetched.
    pub offline: bool,
    /// `QUICKSAND_PASST`: the passt that leads the network `full` out, a path or a name.
    pub passt: Option<PathBuf>,
    /// `QUICKSAND_QEMU`: the QEMU to use, a path or a name.
    pub qemu: Option<PathBuf>,
    /// `QUICKSAND_REQUIRE`: whether a test fails where the host lacks what it requires.
    pub require: bool,
    /// `QUICKSAND_RETRIES`: how often the runner tries a failing test again.
    pub retries: Option<u8>,
    /// `QUICKSAND_UPDATE`: which saves of setups are made again.
    pub update: Update,
}

/// What becomes of case files whose commands do something else than they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cases {
    /// Their tests fail.
    #[default]
    Check,
    /// They are rewritten.
    Overwrite,
}

/// Of which tests the whole machine is kept, to be entered later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// Of all.
    Always,
    /// Of those that failed.
    #[default]
    Failed,
    /// Of none.
    Never,
}

/// Which saves of setups are made again, whether or not what they are made from changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Update {
    /// None.
    #[default]
    Nothing,
    /// All.
    Everything,
    /// Those with these names, and what is built on them.
    Saves(Vec<String>),
}

impl Update {
    /// Whether the save of that name is one of them.
    pub fn covers(&self, save: &str) -> bool {
        match self {
            Update::Nothing => false,
            Update::Everything => true,
            Update::Saves(names) => names.iter().any(|name| name == save),
        }
    }
}

/// A variable that can't be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// Its value means nothing.
    #[error("use {name}={value}: write {accepted}")]
    Value {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What may be written.
        accepted: &'static str,
    },
    /// There is no such variable.
    #[error("use {name}: there is no such variable; there are {}", VARIABLES.map(|variable| variable.name).join(", "))]
    Unknown {
        /// Its name.
        name: String,
    },
}

impl Environment {
    /// What the variables of this process say.
    ///
    /// # Errors
    ///
    /// [`EnvironmentError`] for the first that can't be followed.
    pub fn read() -> Result<Environment, EnvironmentError> {
        Environment::from_variables(env::vars_os())
    }

    fn from_variables(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Environment, EnvironmentError> {
        let mut read = Environment::default();
        let (mut require, mut ci) = (None, false);
        for (name, value) in variables {
            let name = name.to_string_lossy();
            if name == "CI" {
                ci = !["", "0", "false"].iter().any(|no| value == *no);
            }
            if !name.starts_with(PREFIX) {
                continue;
            }
            let Some(variable) = VARIABLES.into_iter().find(|variable| variable.name == name) else {
                return Err(EnvironmentError::Unknown { name: name.into_owned() });
            };
            if value.is_empty() {
                continue;
            }
            // A text that is not Unicode is no value of any that is not a path.
            let text = value.to_str().unwrap_or("\u{fffd}");
            let understood = match variable {
                ACCEL => accel(text).map(|accel| read.accel = accel),
                CACHE_DIR => absolute(&value).map(|path| read.cache_dir = Some(path)),
                CASES => cases(text).map(|cases| read.cases = cases),
                JOBS => text.parse().ok().map(|jobs| read.jobs = Some(jobs)),
                JUNIT => Some(PathBuf::from(&value)).map(|path| read.junit = Some(path)),
                KEEP => keep(text).map(|keep| read.keep = keep),
                MEMORY_BUDGET => amount(text).map(|size| read.memory_budget = Some(size)),
                MIRROR => url(text).map(|url| read.mirror = Some(url)),
                OFFLINE => yes_or_no(text).map(|offline| read.offline = offline),
                PASST => Some(PathBuf::from(&value)).map(|path| read.passt = Some(path)),
                QEMU => Some(PathBuf::from(&value)).map(|path| read.qemu = Some(path)),
                REQUIRE => yes_or_no(text).map(|it| require = Some(it)),
                RETRIES => text.parse().ok().map(|retries| read.retries = Some(retries)),
                _ => update(text).map(|update| read.update = update),
            };
            if understood.is_none() {
                let Variable { name, accepted, .. } = variable;
                return Err(EnvironmentError::Value { name, value: value.to_string_lossy().into_owned(), accepted });
            }
        }
        read.require = require.unwrap_or(ci);
        Ok(read)
    }
}

fn accel(text: &str) -> Option<Accel> {
    Some(match text {
        "auto" => Accel::Auto,
        "kvm" => Accel::Kvm,
        "hvf" => Accel::Hvf,
        "whpx" => Accel::Whpx,
        "tcg" => Accel::Tcg,
        _ => return None,
    })
}

/// A relative path would mean another directory in each process.
fn absolute(value: &OsStr) -> Option<PathBuf> {
    Some(PathBuf::from(value)).filter(|path| path.is_absolute())
}

fn cases(text: &str) -> Option<Cases> {
    Some(match text {
        "check" => Cases::Check,
        "overwrite" => Cases::Overwrite,
        _ => return None,
    })
}

fn keep(text: &str) -> Option<Keep> {
    Some(match text {
        "always" => Keep::Always,
        "failed" => Keep::Failed,
        "never" => Keep::Never,
        _ => return None,
    })
}

fn amount(text: &str) -> Option<Size> {
    text.parse().ok().filter(|size: &Size| size.bytes() > 0)
}

fn url(text: &str) -> Option<String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    (!host.is_empty() && !host.contains(char::is_whitespace)).then(|| text.trim_end_matches('/').to_owned())
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    }
}

fn update(text: &str) -> Option<Update> {
    match yes_or_no(text) {
        Some(true) => return Some(Update::Everything),
        Some(false) => return Some(Update::Nothing),
        None => {}
    }
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    names.iter().all(|name| is_fit(name)).then_some(Update::Saves(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
        Environment::from_variables(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn nothing_set_is_all_defaults() {
        let nothing = read(&[("PATH", "/bin"), ("QUICKSAND", "x"), ("MY_QUICKSAND_X", "y")]).unwrap();
        assert_eq!(nothing, Environment::default());
        assert_eq!(nothing.keep, Keep::Failed);
        let empty: Vec<_> = VARIABLES.iter().map(|variable| (variable.name, "")).collect();
        assert_eq!(read(&empty).unwrap(), nothing, "empty is unset");
    }

    #[test]
    fn every_variable_is_read() {
        let all = read(&[
            ("QUICKSAND_ACCEL", "tcg"),
            ("QUICKSAND_CACHE_DIR", "/c"),
            ("QUICKSAND_CASES", "overwrite"),
            ("QUICKSAND_JOBS", "3"),
            ("QUICKSAND_JUNIT", "reports/"),
            ("QUICKSAND_KEEP", "never"),
            ("QUICKSAND_MEMORY_BUDGET", "1.5G"),
            ("QUICKSAND_MIRROR", "https://localhost:1/x/"),
            ("QUICKSAND_OFFLINE", "1"),
            ("QUICKSAND_PASST", "passt"),
            ("QUICKSAND_QEMU", "qemu"),
            ("QUICKSAND_REQUIRE", "1"),
            ("QUICKSAND_RETRIES", "2"),
            ("QUICKSAND_UPDATE", "base, with-db"),
        ]);
        let expected = Environment {
            accel: Accel::Tcg,
            cache_dir: Some("/c".into()),
            cases: Cases::Overwrite,
            jobs: NonZeroU32::new(3),
            junit: Some("reports/".into()),
            keep: Keep::Never,
            memory_budget: Some(Size::from_mib(1536)),
            mirror: Some("https://localhost:1/x".into()),
            offline: true,
            passt: Some("passt".into()),
            qemu: Some("qemu".into()),
            require: true,
            retries: Some(2),
            update: Update::Saves(vec!["base".into(), "with-db".into()]),
        };
        assert_eq!(all.unwrap(), expected);
    }

    #[test]
    fn wrong_values_are_refused_with_the_right_ones() {
        for variable in VARIABLES.iter().filter(|variable| ![JUNIT, PASST, QEMU].contains(variable)) {
            for value in ["a/b", "-1", "T g", "base,", "yes"] {
                // A name is all that a save needs, and these are not.
                if *variable == UPDATE && value == "yes" {
                    continue;
                }
                let error = read(&[(variable.name, value)]).unwrap_err().to_string();
                assert_eq!(error, format!("use {}={value}: write {}", variable.name, variable.accepted));
            }
        }
        assert!(read(&[("QUICKSAND_JOBS", "0")]).is_err() && read(&[("QUICKSAND_MEMORY_BUDGET", "0")]).is_err());
        let unknown = read(&[("QUICKSAND_REQIURE", "1")]).unwrap_err().to_string();
        assert!(unknown.starts_with("use QUICKSAND_REQIURE: there is no such variable; there are QUICKSAND_ACCEL, "));
        assert!(unknown.ends_with("QUICKSAND_UPDATE"), "{unknown}");
    }

    #[test]
    fn what_is_required_is_so_under_ci() {
        for (variables, require) in [
            (&[("CI", "true")] as &[_], true),
            (&[("CI", "1"), ("QUICKSAND_REQUIRE", "0")], false),
            (&[("QUICKSAND_REQUIRE", "0"), ("CI", "1")], false),
            (&[("CI", "false")], false),
            (&[("CI", "")], false),
        ] {
            assert_eq!(read(variables).unwrap().require, require, "{variables:?}");
        }
    }

    #[test]
    fn an_update_covers_what_it_names() {
        let update = |text| read(&[("QUICKSAND_UPDATE", text)]).unwrap().update;
        assert!(update("1").covers("base") && !update("0").covers("base"));
        assert!(update("base").covers("base") && !update("base").covers("based"));
    }
}
