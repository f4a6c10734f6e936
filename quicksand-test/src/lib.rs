//! The harness behind `#[sandbox_test]`.
//!
//! A test function becomes a plain `#[test]` that calls [`__private::run`], which
//!
//! 1. makes the save that the attribute names and those that it builds on, each once among all processes that want it, and again when
//!    what it is made from changed;
//! 2. starts a sandbox from it, or from the image where no save is named;
//! 3. runs the function's body on it, within its time;
//! 4. throws the sandbox away, whatever came of the body.
//!
//! A test may instead be left out, where the host lacks what it requires.
//!
//! Nothing is shared between tests but files under kernel locks, so it is the same under `cargo test`, where tests are threads,
//! and under `cargo nextest run`, where each is a process.
#![forbid(unsafe_code)]

mod attempt;
mod body;
mod bundle;
#[cfg(feature = "runner")]
mod cases;
mod current;
mod describe;
mod failure;
#[cfg(any(feature = "insta", feature = "runner"))]
mod filters;
mod meta;
mod outcome;
mod place;
mod pool;
mod prepare;
mod progress;
mod requirement;
mod run;
#[cfg(feature = "runner")]
mod runner;
mod setups;
mod signals;
#[cfg(feature = "insta")]
mod snapshot;
mod test;
mod this_run;

pub use progress::show_progress;
#[cfg(feature = "runner")]
pub use runner::{Case, case_files};
#[cfg(feature = "insta")]
pub use snapshot::snapshot_settings;

/// What the macros need. Not for anyone else: it changes without notice.
#[doc(hidden)]
pub mod __private {
    #[cfg(feature = "insta")]
    pub use crate::snapshot::Tidy;
    pub use inventory;

    #[cfg(feature = "runner")]
    pub use crate::runner::{Registered, run_all};

    pub use crate::{
        meta::{
            Base, MachineMeta, Requirement, Runtime, Setup, SetupMeta, SetupOutcome, Start, TestMeta, Variant, Work,
        },
        outcome::{ByOutcome, ByTermination, ByWords, Returned, TestOutcome},
        requirement::is_skipped,
        run::{run, run_blocking},
        setups::{Called, SetupFunction, call_setup},
    };
    #[cfg(feature = "insta")]
    pub use insta;
}
