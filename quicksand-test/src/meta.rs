//! What the macros say of tests and setups.

use std::{fmt, time::Duration};

use quicksand_core::{Accel, Kernel, NetworkMode, Sandbox};

use crate::setups::Called;

/// A test, as its attribute describes it.
#[derive(Debug)]
pub struct TestMeta {
    /// Path of the test: module and function.
    pub name: &'static str,
    /// The package that it belongs to, where its saves are.
    pub manifest_dir: &'static str,
    /// What its machine starts from.
    pub start: Start,
    /// Options of its machine.
    pub machine: MachineMeta,
    /// How long the body may take.
    pub timeout: Option<Duration>,
    /// What it runs on.
    pub runtime: Runtime,
    /// What the host must have.
    pub requires: &'static [Requirement],
    /// Whether the body is to panic.
    pub should_panic: bool,
}

impl TestMeta {
    /// A test that asks for nothing else.
    pub const fn new(name: &'static str, manifest_dir: &'static str, start: Start) -> TestMeta {
        let machine = MachineMeta {
            memory: None,
            cpus: None,
            network: None,
            accel: None,
            kernel: None,
            disk_size: None,
            display: None,
        };
        let (timeout, runtime, requires) = (None, Runtime::Default, [].as_slice());
        TestMeta { name, manifest_dir, start, machine, timeout, runtime, requires, should_panic: false }
    }
}

/// What a test's machine starts from.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// An image, or a save that nothing here makes.
    Image(Variant),
    /// A save, which the setup of that name makes. Where there is none, it is the image as it starts.
    Save {
        /// The name that the setup gives it.
        name: &'static str,
        /// The image, where the test names one.
        image: Option<Variant>,
    },
    /// A save that the test's own attribute tells how to make.
    Own(SetupMeta),
}

/// An image, maybe one of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub image: &'static str,
    /// What the names of saves made from it end with, where it is one of several.
    pub suffix: Option<&'static str>,
}

impl Variant {
    /// The only image.
    pub const fn only(image: &'static str) -> Variant {
        Variant { image, suffix: None }
    }
}

/// A setup: how a save is made.
#[derive(Debug, Clone, Copy)]
pub struct SetupMeta {
    /// What it is called where it fails: path and file.
    pub name: &'static str,
    /// The package that it belongs to, where its inputs are.
    pub manifest_dir: &'static str,
    /// The name of the save, to which the suffix of the image comes.
    pub save: &'static str,
    /// What its machine starts from.
    pub base: Base,
    /// What is done to the machine.
    pub work: Work,
    /// Files and directories of the package that it depends on.
    pub inputs: &'static [&'static str],
    /// How old the save may become.
    pub max_age: Option<Duration>,
    /// Options of its machine.
    pub machine: MachineMeta,
    /// How long the work may take.
    pub timeout: Option<Duration>,
}

inventory::collect!(SetupMeta);

/// What a setup's machine starts from.
#[derive(Debug, Clone, Copy)]
pub enum Base {
    /// One image.
    Image(Variant),
    /// Each of several images, for each of which there is a save.
    Images(&'static [Variant]),
    /// The save of another setup.
    Save(&'static str),
}

/// What a setup does.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// Calls a function.
    Function {
        /// Changes with the function's code.
        fingerprint: &'static str,
        /// The function.
        setup: Setup,
    },
    /// Runs lines of shell, each of which must succeed.
    Commands(&'static [&'static str]),
}

/// Options of a machine, each as that of the save or the default where it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MachineMeta {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Processors.
    pub cpus: Option<u32>,
    /// What the guest reaches.
    pub network: Option<NetworkMode>,
    /// How the guest's instructions are carried out.
    pub accel: Option<Accel>,
    /// Which kernel it boots.
    pub kernel: Option<Kernel>,
    /// The size of its disk in bytes.
    pub disk_size: Option<u64>,
    /// Whether it has a display.
    pub display: Option<bool>,
}

/// The runtime of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// A few threads beside the test's own.
    Default,
    /// The test's own thread.
    CurrentThread,
    /// That many threads, or one for each processor. The body still runs on the test's own.
    MultiThread(Option<usize>),
}

/// What a test requires of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Guests run under KVM.
    Kvm,
    /// Guests reach the network.
    Network,
    /// That much memory, in bytes.
    Memory(u64),
    /// That many processors.
    Cpus(u32),
    /// A program on the path.
    Command(&'static str),
}

/// A setup function, its outcome as text.
pub type Setup = for<'a> fn(&'a Sandbox) -> Called<'a>;

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
