//! Calling a setup function, be it `async` or one that blocks.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    thread,
};

use quicksand_core::harness::{SandboxExt, blocking_on};
use quicksand_core::{Sandbox, blocking};
use tokio::{runtime::Handle, sync::oneshot};

use crate::{current, meta::SetupOutcome};

/// What a call of a setup comes to.
pub type Called<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// A function that is a setup. `Kind` only tells the two apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no setup",
    note = "a setup is an `async fn(sb: &Sandbox)` or a `fn(sb: &blocking::Sandbox)`, which returns `()` or a `Result<(), E>`"
)]
pub trait SetupFunction<Kind> {
    /// Calls it.
    fn call(self, sandbox: &Sandbox) -> Called<'_>;
}

/// Of functions that are `async`.
#[derive(Debug)]
pub struct Async<O>(O);
/// Of functions that block.
#[derive(Debug)]
pub struct Blocking<O>(O);

impl<F, O> SetupFunction<Async<O>> for F
where
    F: AsyncFn(&Sandbox) -> O + 'static,
    O: SetupOutcome,
{
    fn call(self, sandbox: &Sandbox) -> Called<'_> {
        Box::pin(async move { self(sandbox).await.into_result() })
    }
}

impl<F, O> SetupFunction<Blocking<O>> for F
where
    F: Fn(&blocking::Sandbox) -> O + Send + 'static,
    O: SetupOutcome,
{
    fn call(self, sandbox: &Sandbox) -> Called<'_> {
        Box::pin(on_a_thread(sandbox, move |sandbox| self(sandbox).into_result()))
    }
}

/// Calls a setup of either kind.
pub fn call_setup<Kind>(setup: impl SetupFunction<Kind>, sandbox: &Sandbox) -> Called<'_> {
    setup.call(sandbox)
}

/// Runs a setup that blocks on a thread of its own, which nobody can end from outside. Its machine is ended when nobody waits for it any
/// more, with which fails whatever it waits for in it.
async fn on_a_thread(
    sandbox: &Sandbox,
    setup: impl FnOnce(&blocking::Sandbox) -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    let shared = || sandbox.share().map_err(|error| format!("failed to {error}"));
    let (mut machine, shared) = (Abandoned(Some(shared()?)), shared()?);
    let (outcome, ended) = oneshot::channel::<Result<_, Box<dyn Any + Send>>>();
    let (runtime, listener) = (Handle::current(), current::listener());
    let work = move || {
        if let Some(listener) = listener {
            current::listen(listener);
        }
        let sandbox = blocking_on(runtime, shared);
        let result = catch_unwind(AssertUnwindSafe(|| setup(&sandbox)));
        drop(sandbox);
        // Nobody waits for what is too late.
        let _ = outcome.send(result);
    };
    thread::Builder::new()
        .name("quicksand-setup".into())
        .spawn(work)
        .map_err(|error| format!("failed to start a thread: {error}"))?;
    let result = ended.await.map_err(|_| "its thread ended early".to_owned())?;
    machine.0 = None;
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// A machine that is ended when nobody waits any more for what works on it.
pub(crate) struct Abandoned(pub(crate) Option<Sandbox>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(machine) = &self.0 {
            machine.abandon();
        }
    }
}
