//! The one way in which a running sandbox is written down: by a save, a checkpoint, a fork.

use std::{path::Path, sync::Arc, time::Duration};

use super::running::{Change, Running};
use crate::{
    base::blocking::blocking,
    error::{Error, Result},
    image::state::{self, Across, Description, State},
    vm::{DiskAlone, Rest, run_dir::RunDir},
};

/// How long a frozen machine is to be of use.
#[derive(Debug, Clone)]
pub(super) enum Use {
    /// As long as anyone wants, by its disk alone where its memory is of no use any more. With what it was made from, if that is known.
    Lasting { recipe: Option<String> },
    /// For as long as this process uses it.
    Passing,
    /// As long as anyone wants to look into it, just as it is now, whatever state the guest is in.
    Evidence,
}

impl Running {
    /// Writes its machine into `directory`, which is then a [`State`] on its own. Returns how long the guest stood still. To be
    /// carried [to its end](super::running::to_the_end).
    pub(super) async fn freeze(&self, directory: &Path, r#use: Use, change: &Change) -> Result<Duration> {
        match self.write_down(directory, r#use, change).await {
            // Whatever it was at when the machine ended, that end is what there is to be told.
            Err(error) => Err(self.vm().explain_any(error).await),
            done => done,
        }
    }

    async fn write_down(&self, directory: &Path, r#use: Use, _change: &Change) -> Result<Duration> {
        let vm = self.vm();
        let (disk_alone, rest, across, recipe) = match r#use {
            Use::Lasting { recipe } => (DiskAlone::Whole, Rest::Short, Across::Copy, recipe),
            Use::Passing => (DiskAlone::Useless, Rest::None, Across::Name, None),
            Use::Evidence => (DiskAlone::AsItStands, Rest::None, Across::Copy, None),
        };
        #[cfg(feature = "mounts")]
        self.take_mounts_off().await?;
        let frozen = vm.freeze(&self.host, directory, disk_alone, rest).await;
        #[cfg(feature = "mounts")]
        let frozen = self.put_mounts_on().await.and(frozen);
        let frozen = frozen?;
        let machine = vm.machine().clone();
        let machine_key = machine.key(self.host.version);
        let description = Description {
            machine,
            machine_key,
            disk_size: frozen.disk_size,
            user_network: vm.user_network(),
            cards: vm.cards(),
            in_frame: frozen.in_frame,
            recipe,
            kernel_fault: vm.kernel_fault(),
        };
        // What it came from is held until this is done.
        let origin = vm.origin().cloned().ok_or(Error::NotRunning)?;
        let directory = directory.to_owned();
        blocking(move || state::write(&directory, origin.image(), &frozen.layers, across, description)).await?;
        Ok(frozen.pause)
    }

    /// The machine as it is now, as a state that goes with its last clone. To be carried [to its end](super::running::to_the_end).
    pub(super) async fn passing_state(self: &Arc<Self>, change: &Change) -> Result<State> {
        let home = RunDir::create(&self.host.cache)?;
        let directory = home.frozen();
        std::fs::create_dir(&directory).map_err(Error::io("create", &directory))?;
        let pause = self.freeze(&directory, Use::Passing, change).await?;
        tracing::debug!(target: "quicksand::freeze", ?pause, "frozen for this process");
        let origin = self.vm().origin().cloned().ok_or(Error::NotRunning)?;
        State::read_passing(home, &directory, &origin)?.ok_or(Error::NotRunning)
    }
}
