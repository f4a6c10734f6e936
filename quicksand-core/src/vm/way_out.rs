//! A machine's way out to the internet, made while its QEMU starts.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use serde_json::json;

use crate::{
    host::Host,
    network::passt::{self, Passt},
    qemu::{
        machine::{NetworkMode, Plug, backends, plug_ids},
        qmp::{Qmp, QmpError},
    },
};

/// Where a running guest's own card leads.
#[derive(Debug)]
pub(super) enum WayOut {
    /// Nowhere.
    Nowhere,
    /// To the internet, by passt.
    Passt(#[expect(dead_code, reason = "held for as long as the machine runs")] Passt),
    /// To the internet and to this host, by QEMU's user network.
    User {
        /// What to say of that.
        warning: String,
    },
}

/// A way out that is being made.
#[derive(Debug)]
pub(super) struct Begun {
    wanted: Wanted,
    /// Whether the frozen state holds that of a user network, for which one must be there while it is loaded.
    user_state: bool,
}

#[derive(Debug)]
enum Wanted {
    Nowhere,
    /// With QEMU's end of its socket, until QEMU has that.
    Passt(Passt, Option<OwnedFd>),
    /// Since there is no passt.
    User(String),
}

impl WayOut {
    /// Begins to make the way out that a mode asks for.
    pub(super) async fn begin(host: &Host, mode: NetworkMode, user_state: bool, run_dir: &Path) -> Begun {
        let wanted = match mode {
            NetworkMode::None | NetworkMode::MountsOnly => Wanted::Nowhere,
            NetworkMode::Full => match Passt::start(host, run_dir).await {
                Ok((passt, socket)) => Wanted::Passt(passt, Some(socket)),
                Err(why) => Wanted::User(why),
            },
        };
        Begun { wanted, user_state }
    }
}

impl Begun {
    /// What QEMU is to be started with. To be called once.
    pub(super) fn plug(&mut self) -> Plug {
        match &mut self.wanted {
            _ if self.user_state => Plug::User,
            Wanted::Nowhere => Plug::Nowhere,
            Wanted::Passt(_, socket) => socket.take().map_or(Plug::Nowhere, Plug::Socket),
            Wanted::User(_) => Plug::User,
        }
    }

    /// Makes it, once QEMU has loaded its state and before the guest runs.
    pub(super) async fn finish(self, qmp: &Qmp) -> Result<WayOut, QmpError> {
        match self.wanted {
            Wanted::Nowhere => {
                if self.user_state {
                    exchange(qmp, &Plug::Nowhere).await?;
                }
                Ok(WayOut::Nowhere)
            }
            Wanted::User(why) => Ok(WayOut::User { warning: passt::warn(&why) }),
            Wanted::Passt(mut passt, socket) => match (passt.works().await, socket) {
                (Ok(()), None) => Ok(WayOut::Passt(passt)),
                (Ok(()), Some(socket)) => {
                    exchange(qmp, &Plug::Socket(socket)).await?;
                    Ok(WayOut::Passt(passt))
                }
                (Err(why), socket) => {
                    if socket.is_none() {
                        exchange(qmp, &Plug::User).await?;
                    }
                    Ok(WayOut::User { warning: passt::warn(&why) })
                }
            },
        }
    }
}

/// Puts another plug in the place of the one that QEMU was started with, which led somewhere.
async fn exchange(qmp: &Qmp, new: &Plug) -> Result<(), QmpError> {
    const SOCKET: &str = "plug";
    if let Plug::Socket(socket) = new {
        qmp.give_fd(SOCKET, socket.as_fd()).await?;
    }
    for mut backend in backends(new, 1) {
        if backend["type"] == "socket" {
            backend["fd"] = SOCKET.into();
        }
        qmp.execute("netdev_add", backend).await?;
    }
    // Last: the hub is never without a port beside the card's.
    let [behind, port] = plug_ids(0);
    qmp.execute("netdev_del", json!({ "id": port })).await?;
    qmp.execute("netdev_del", json!({ "id": behind })).await?;
    Ok(())
}
