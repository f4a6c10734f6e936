//! What a test requires of the host, and what becomes of it where the host lacks that.

mod network;

use std::{
    env,
    io::{self, Write},
    thread::available_parallelism,
};

use quicksand_core::{
    Error, Size,
    environment::Environment,
    harness::{kvm_fault, memory_for_machines},
};
use tokio::runtime::Builder;

use crate::{
    current,
    describe::error_text,
    meta::{Requirement, TestMeta},
    prepare::saves_dir,
    setups,
};

/// Whether the test is left out, since the host lacks something that it requires. The reason is told to our own runner, or on standard
/// error, past the capturing of test output.
///
/// # Panics
///
/// Where `QUICKSAND_REQUIRE` has all that is required be there: the test fails.
pub fn is_skipped(meta: &TestMeta) -> bool {
    let Some(reason) = meta.requires.iter().find_map(|requirement| missing(*requirement, meta)) else { return false };
    let required = match Environment::read() {
        Ok(environment) => environment.require,
        Err(error) => panic!("{}: failed to {error}", meta.name),
    };
    assert!(!required, "{}: {reason}; with QUICKSAND_REQUIRE=0 the test is skipped instead", meta.name);
    match current::listener() {
        Some(listener) => listener.is_skipped(&reason),
        // Nothing is lost where standard error is closed.
        None => drop(writeln!(io::stderr(), "SKIP {}: {reason}", meta.name)),
    }
    true
}

/// What the host lacks, in words.
fn missing(requirement: Requirement, meta: &TestMeta) -> Option<String> {
    let fault = match fault(requirement, meta) {
        Ok(fault) => fault?,
        Err(error) => format!("failed to {}", error_text(&error)),
    };
    let name = match requirement {
        Requirement::Kvm => "KVM".to_owned(),
        Requirement::Network => "the network".to_owned(),
        Requirement::Memory(bytes) => format!("{} of memory", Size::from_bytes(bytes)),
        Requirement::Cpus(cpus) => format!("{cpus} processors"),
        Requirement::Command(program) => format!("the program {program}"),
    };
    Some(format!("it requires {name}: {fault}"))
}

/// What is wrong with the host, if anything is.
fn fault(requirement: Requirement, meta: &TestMeta) -> Result<Option<String>, Error> {
    Ok(match requirement {
        Requirement::Kvm => kvm(meta)?,
        Requirement::Network => network::fault()?,
        Requirement::Memory(wanted) => {
            let there = memory_for_machines()?.filter(|there| there.bytes() < wanted);
            there.map(|there| format!("there are {} MiB for machines", there.bytes() >> 20))
        }
        Requirement::Cpus(wanted) => {
            let there = available_parallelism().map_or(1, usize::from);
            (there < wanted as usize).then(|| format!("there are {there}"))
        }
        Requirement::Command(program) => (!is_on_path(program)).then(|| "it is not on the path".to_owned()),
    })
}

fn kvm(meta: &TestMeta) -> Result<Option<String>, Error> {
    // A test whose layers can't be found fails when it comes to them.
    let Ok(image) = setups::image(meta) else { return Ok(None) };
    let runtime = Builder::new_current_thread().enable_all().build().expect("a test can have a runtime");
    runtime.block_on(kvm_fault(image, &saves_dir(meta), &current::reporter()))
}

fn is_on_path(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|directory| directory.join(program).is_file())
}
