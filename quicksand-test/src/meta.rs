//! What the macros say of a test.

use std::{fmt, pin::Pin, time::Duration};

use quicksand_core::{Accel, NetworkMode, Sandbox};

/// A test, as its attribute describes it.
#[derive(Debug)]
pub struct TestMeta {
    /// Path of the test: module and function.
    pub name: &'static str,
    /// The package that it belongs to, where its saves are.
    pub manifest_dir: &'static str,
    /// Image, or save to start from.
    pub image: &'static str,
    /// The save that it starts from, and how that is made.
    pub save: Option<SaveMeta>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processors.
    pub cpus: Option<u32>,
    /// What the guest reaches.
    pub network: Option<NetworkMode>,
    /// How the guest's instructions are carried out.
    pub accel: Option<Accel>,
    /// How long the body may take.
    pub timeout: Option<Duration>,
}

/// A save, and how it is made.
#[derive(Debug)]
pub struct SaveMeta {
    /// Its name.
    pub name: &'static str,
    /// Changes with the code of the setup.
    pub fingerprint: &'static str,
    /// What is done to the machine before the save is taken.
    pub setup: Option<Setup>,
}

/// A setup function, its outcome as text.
pub type Setup = for<'a> fn(&'a Sandbox) -> Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// What a setup function may return.
pub trait SetupOutcome {
    /// The outcome, an error as text.
    fn into_result(self) -> Result<(), String>;
}

impl SetupOutcome for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: fmt::Debug> SetupOutcome for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        self.map_err(|error| format!("{error:?}"))
    }
}
