//! A runner for test targets with `harness = false`, of libtest's manners by libtest-mimic.
//!
//! - `case`: what it runs, be it a test of the program or something else;
//! - `trial`: carrying out one, as often as it may be tried;
//! - `listen`: what a test tells while it runs;
//! - `screen`: a line for each test that runs;
//! - `junit`: the report for other programs.

mod case;
mod junit;
mod listen;
mod screen;
mod trial;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use libtest_mimic::{Arguments, Trial};
use quicksand_core::environment::{Environment, EnvironmentError};

pub use case::{Case, Registered, case_files};
use junit::Junit;
use screen::Screen;
use trial::Record;

use crate::{describe::error_text, failure::print_past_capture, prepare::package_dir};

/// What libtest exits with where tests failed.
const FAILED: u8 = 101;

/// The main function of a test target with `harness = false`: runs its tests and the case files of the package, and takes the
/// arguments that other test programs take.
///
/// ```toml
/// [[test]]
/// name = "machines"
/// harness = false
/// ```
///
/// ```ignore
/// use quicksand::{Sandbox, sandbox_test};
///
/// quicksand::main!();
///
/// #[sandbox_test(image = "debian", retries = 2)]
/// async fn boots(sb: Sandbox) { /* … */ }
/// ```
///
/// `main!(more)` runs, in place of case files, what `fn more(package: &Path) -> Result<Vec<Case>, String>` makes, such as a test for
/// each file of some directory. It is called to list the tests as well, so it should only look what there is.
#[macro_export]
macro_rules! main {
    () => {
        $crate::main!($crate::case_files);
    };
    ($more:expr) => {
        fn main() -> ::std::process::ExitCode {
            $crate::__private::run_all(::core::env!("CARGO_MANIFEST_DIR"), $more)
        }
    };
}

/// One run of the program.
#[derive(Debug)]
struct Run {
    screen: Screen,
    /// How often a test is tried again, whatever it says itself.
    retries: Option<u8>,
    records: Mutex<Vec<Record>>,
}

impl Run {
    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the tests of this program and `more`, of which the directory of the package is told, as the arguments choose.
pub fn run_all(manifest_dir: &str, more: impl FnOnce(&Path) -> Result<Vec<Case>, String>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or_else(threads_of_environment);
    let (retries, report) = match settings() {
        Ok(settings) => settings,
        Err(error) => return give_up(&format!("failed to {}", error_text(&error))),
    };
    let mut cases: Vec<Case> = inventory::iter::<Registered>.into_iter().map(Case::from).collect();
    match more(&package_dir(manifest_dir)) {
        Ok(more) => cases.extend(more),
        Err(error) => return give_up(&error),
    }
    // That of the registration is the linker's.
    cases.sort_by(|one, other| one.name.cmp(&other.name));

    let run = Arc::new(Run { screen: Screen::new(&arguments), retries, records: Mutex::default() });
    let trials = cases.into_iter().map(|case| trial(case, &arguments, &run)).collect();
    listen::catch_panics();
    let began = SystemTime::now();
    let conclusion = run.screen.with_output(&mut arguments, |arguments| libtest_mimic::run(arguments, trials));
    if arguments.list {
        return ExitCode::SUCCESS;
    }
    print_past_capture(&trial::flaky(&run.records()));
    let junit = Junit { program: &program(), began, records: &run.records() };
    let written = report.map_or(Ok(()), |path| junit.write(&path));
    match written {
        Ok(()) => conclusion.exit_code(),
        Err(error) => give_up(&format!("failed to {error}")),
    }
}

fn trial(case: Case, arguments: &Arguments, run: &Arc<Run>) -> Trial {
    // The flag hides the reason from whoever runs the others, so there a test says itself that it is ignored.
    let wanted = arguments.list || arguments.ignored || arguments.include_ignored;
    let is_ignored = case.ignored.is_some();
    let run = Arc::clone(run);
    let name = case.name.clone();
    let carry_out = move || trial::carry_out(case, is_ignored && !wanted, &run);
    Trial::ignorable_test(name, carry_out).with_ignored_flag(is_ignored && wanted)
}

fn settings() -> Result<(Option<u8>, Option<PathBuf>), EnvironmentError> {
    let environment = Environment::read()?;
    // nextest runs each test in a process of its own, and writes a report of all.
    let report = environment.junit.filter(|_| env::var_os("NEXTEST").is_none());
    Ok((environment.retries, report))
}

/// As libtest heeds it.
fn threads_of_environment() -> Option<usize> {
    env::var("RUST_TEST_THREADS").ok()?.parse().ok().filter(|threads| *threads > 0)
}

/// The name of this program, without what cargo adds to it.
fn program() -> String {
    let program = env::current_exe().ok();
    let name = program.as_deref().and_then(Path::file_stem).unwrap_or_default().to_string_lossy().into_owned();
    match name.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name.to_owned(),
        _ => name,
    }
}

fn give_up(why: &str) -> ExitCode {
    print_past_capture(&format!("{why}\n"));
    ExitCode::from(FAILED)
}
