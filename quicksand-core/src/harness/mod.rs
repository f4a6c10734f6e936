//! What the test harness needs of this crate. Not for anyone else: it changes without notice.
//!
//! Its traits give what a user has no business with to [`SandboxBuilder`], [`Sandbox`] and [`Child`].

pub mod fuzzing;

use std::{future::Future, time::Duration};

use tokio::runtime::Handle;

pub use crate::{
    base::{cache::Lock, tree},
    care::requirement::{kvm_fault, memory_for_machines},
    guest::hold,
    launch::standby::Standby,
    sandbox::{Activity, Evidence, Saved, source_identity},
    saves::kept::KeepNote,
};
use crate::{
    blocking,
    error::Result,
    sandbox::{Sandbox, SandboxBuilder},
    saves::kept::KeptMachine,
    verbs::command::Child,
};

/// What the harness asks of a builder.
pub trait BuilderExt: Sized {
    /// What the save is made from. Where it differs from that of a save that is there, the save counts as absent.
    fn recipe(self, recipe: impl Into<String>) -> Self;

    /// Waits its turn, even where this process has machines already: what they do does not depend on this one.
    fn in_turn(self) -> Self;

    /// Starts at once, whatever else runs: somebody is waiting for it.
    fn at_once(self) -> Self;

    /// Starts from that very save and no other that has its name by now.
    fn expecting(self, save: &Saved) -> Self;

    /// Starts by `standby`, where that is of the very state and machine that are asked for, and it is our turn.
    fn standby(self, standby: Standby) -> Self;

    /// Makes a machine ready for a later start with these options, where that takes nothing from anybody.
    ///
    /// # Errors
    ///
    /// All that can keep a machine from starting.
    fn make_ready(&self) -> impl Future<Output = Result<Option<Standby>>> + Send;

    /// The save that is to be written, where it is there already and made from the same recipe.
    ///
    /// # Errors
    ///
    /// [`Error::SaveInTheWay`](crate::Error::SaveInTheWay), [`Error::BadName`](crate::Error::BadName).
    fn saved(&self) -> Result<Option<Saved>>;

    /// The right to make the save that is to be written, once among all processes that want it at the same time.
    ///
    /// # Errors
    ///
    /// Where it is not had within `patience`, or the directory can't be made.
    fn lock_save(&self, patience: Duration) -> impl Future<Output = Result<Lock>> + Send;
}

impl BuilderExt for SandboxBuilder {
    fn recipe(self, recipe: impl Into<String>) -> Self {
        self.recipe(recipe)
    }

    fn in_turn(self) -> Self {
        self.in_turn()
    }

    fn at_once(self) -> Self {
        self.at_once()
    }

    fn expecting(self, save: &Saved) -> Self {
        self.expecting(save)
    }

    fn standby(self, standby: Standby) -> Self {
        self.standby(standby)
    }

    async fn make_ready(&self) -> Result<Option<Standby>> {
        self.make_ready().await
    }

    fn saved(&self) -> Result<Option<Saved>> {
        self.saved()
    }

    async fn lock_save(&self, patience: Duration) -> Result<Lock> {
        self.lock_save(patience).await
    }
}

/// What the harness asks of a sandbox.
pub trait SandboxExt: Sized {
    /// What is run in its machine, from now on.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`](crate::Error::NotRunning)
    fn activity(&self) -> Result<Activity>;

    /// A second handle to the same machine, which lives until both are dropped.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`](crate::Error::NotRunning)
    fn share(&self) -> Result<Self>;

    /// Ends the machine, whoever still uses it, without a save.
    fn abandon(&self);

    /// What is known of its machine, also where that has ended.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`](crate::Error::NotRunning)
    fn evidence(&self) -> Result<Evidence>;

    /// Keeps its machine as it is at this moment, in place of an older one of the same test, and removes all that are kept but the `most`
    /// newest. The machine runs on.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`](crate::Error::NotRunning), and whatever keeps a machine from being written down.
    fn keep(&self, note: KeepNote<'_>, most: usize) -> impl Future<Output = Result<KeptMachine>> + Send;
}

impl SandboxExt for Sandbox {
    fn activity(&self) -> Result<Activity> {
        self.activity()
    }

    fn share(&self) -> Result<Self> {
        self.share()
    }

    fn abandon(&self) {
        self.abandon();
    }

    fn evidence(&self) -> Result<Evidence> {
        self.evidence()
    }

    async fn keep(&self, note: KeepNote<'_>, most: usize) -> Result<KeptMachine> {
        self.keep(note, most).await
    }
}

/// What the harness asks of a running program.
pub trait ChildExt {
    /// Waits for the filters that the program has started and whose input has ended, while it runs on itself: for a shell whose command is
    /// over. Returns whether there were any.
    ///
    /// # Errors
    ///
    /// [`Error::Guest`](crate::Error::Guest) where the guest does not answer; [`Error::Ended`](crate::Error::Ended).
    fn await_filters(&self) -> impl Future<Output = Result<bool>> + Send;
}

impl ChildExt for Child {
    async fn await_filters(&self) -> Result<bool> {
        self.await_filters().await
    }
}

/// A sandbox for code without `async`, which lives on another runtime. That has several threads and outlives it.
pub fn blocking_on(runtime: Handle, inner: Sandbox) -> blocking::Sandbox {
    blocking::Sandbox::on(runtime, inner)
}
