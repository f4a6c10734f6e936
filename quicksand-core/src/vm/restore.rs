//! Restoring a machine from a frozen state: QEMU loads it, the guest wakes.

use std::{
    fs, io,
    os::{fd::AsFd, unix::net::UnixStream as StdUnixStream},
    path::Path,
    sync::Arc,
};

use quicksand_protocol::message::Done;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::UnixStream, sync::broadcast, time::Instant};

use super::{
    Outside, Vm,
    cards::Cards,
    console::Console,
    files::with_overlay,
    launch::{Answered, Body, Launched, QEMU_PATIENCE, launch, socket_pair},
    run_dir::RunDir,
    settle::guest_network,
    video,
    wake::{Identity, WAKE_PATIENCE, rename, replied, wake},
    warnings::Warnings,
    way_out::WayOut,
};
use crate::{
    error::{
        Error,
        start::{Stage, StartCause, StartError},
    },
    guest::{Channel, ChannelError, Opening},
    host::Host,
    image::state::State,
    qemu::{
        machine::{Begin, NetworkMode},
        qmp::{Event, Qmp},
    },
};

/// A clone whose state is loaded and whose guest does not run yet.
#[derive(Debug)]
pub(crate) struct Loaded {
    clone: Clone,
    qmp: Qmp,
    agent: UnixStream,
}

/// The same on no runtime. Dropping it throws it away.
#[derive(Debug)]
pub(crate) struct Aside {
    clone: Clone,
    qmp: StdUnixStream,
    agent: StdUnixStream,
}

/// What both have.
#[derive(Debug)]
struct Clone {
    body: Body,
    state: State,
    network: NetworkMode,
    way_out: WayOut,
}

impl Vm {
    /// Starts a clone of a frozen machine.
    pub(crate) async fn restore(
        host: &Host,
        state: &State,
        outside: &Outside,
        identity: Identity,
    ) -> Result<Vm, Error> {
        Loaded::load(host, state, outside).await?.wake(identity).await
    }
}

impl Loaded {
    /// Starts QEMU and has it load the state.
    pub(crate) async fn load(host: &Host, state: &State, outside: &Outside) -> Result<Loaded, Error> {
        let run_dir = Arc::new(RunDir::create(&host.cache)?);
        if let Some(fault) = state.memory_fault() {
            let cause = StartCause::BadState(fault);
            return Err(StartError::gather(Stage::Load, cause, &run_dir.qemu_log(), &Console::default()).into());
        }
        state.touch();
        let disk = with_overlay(host, &run_dir, state.disk(), state.disk_size())?;
        let machine = &state.manifest.machine;
        let mut way_out = WayOut::begin(host, outside.network, state.manifest.user_network, run_dir.path()).await;
        let cards = Cards::new(&outside.memberships, state.manifest.cards)?;
        let (network, disk) = ((way_out.plug(), cards), (disk, state.disk_size()));
        let launched = launch(host, machine, run_dir, state.memory(), disk, network, Begin::Restore).await?;
        let Launched { body, qmp, agent } = launched;

        let deadline = Instant::now() + QEMU_PATIENCE;
        let devices = state.devices();
        let way_out = body.watch(&qmp, Stage::Load, deadline, async {
            load(&qmp, &devices).await?;
            way_out.finish(&qmp).await.map_err(StartCause::Qmp)
        });
        let way_out = way_out.await?;
        if machine.display {
            video::load(&qmp, body.process.pid(), &state.video()).await?;
        }
        let clone = Clone { body, state: state.clone(), network: outside.network, way_out };
        Ok(Loaded { clone, qmp, agent })
    }

    /// Lets the guest run, as a machine of its own or as the one that was frozen.
    pub(crate) async fn wake(self, identity: Identity) -> Result<Vm, Error> {
        let Loaded { clone: Clone { body, state, network, way_out }, qmp, agent } = self;
        let deadline = Instant::now() + WAKE_PATIENCE;
        let woken = body.watch(&qmp, Stage::Wake, deadline, async {
            let opening = Opening::Restored { in_frame: state.manifest.in_frame };
            // At once, so that the guest finds our hello when it begins to run.
            let (running, channel) =
                tokio::join!(qmp.execute("cont", json!({})), Channel::open(agent, opening, WAKE_PATIENCE));
            running.map_err(StartCause::Qmp)?;
            let channel = channel.map_err(StartCause::Channel)?;
            // Both at once, and only the first is waited for: without it the guest is of no use.
            let woken = wake(&channel, guest_network(network))?;
            let warnings = Arc::new(Warnings::for_good(state.manifest.kernel_fault.clone()));
            if identity == Identity::New {
                let listening = Arc::clone(&warnings);
                let told = move |reply: Result<Done, ChannelError>| {
                    reply.into_iter().for_each(|done| listening.add_late(done))
                };
                channel.start_and_tell(&rename()?, told).map_err(StartCause::Channel)?;
            }
            warnings.add(replied(woken).await?);
            Ok((channel, warnings))
        });
        let (channel, warnings) = woken.await?;
        Ok(body.into_vm(Answered { qmp, channel, warnings, way_out, origin: Some(state) }))
    }

    /// Takes it from its runtime, so that it can be woken on another.
    pub(crate) fn put_aside(self) -> io::Result<Aside> {
        Ok(Aside { clone: self.clone, qmp: self.qmp.put_aside()?, agent: self.agent.into_std()? })
    }
}

impl Aside {
    /// Its QEMU's process.
    pub(crate) fn pid(&self) -> u32 {
        self.clone.body.process.pid()
    }

    /// Whether its QEMU has not ended.
    pub(crate) fn is_running(&self) -> bool {
        self.clone.body.process.is_running()
    }

    pub(crate) fn state(&self) -> &State {
        &self.clone.state
    }

    /// Takes it up on the runtime of the caller.
    pub(crate) fn take_up(self) -> io::Result<Loaded> {
        Ok(Loaded { clone: self.clone, qmp: Qmp::take_up(self.qmp)?, agent: UnixStream::from_std(self.agent)? })
    }
}

/// Has QEMU load a state. It comes through a socket: QEMU 11 takes no migration out of a regular file's descriptor any more.
async fn load(qmp: &Qmp, devices: &Path) -> Result<(), StartCause> {
    let unreadable = |e: io::Error| StartCause::BadState(format!("{}: {e}", devices.display()));
    let state = fs::read(devices).map_err(unreadable)?;
    let (mut ours, theirs) = socket_pair().map_err(unreadable)?;
    let mut events = qmp.events();
    let told = json!({ "capabilities": [{ "capability": "events", "state": true }] });
    let work = async {
        qmp.execute("migrate-set-capabilities", told).await?;
        qmp.give_fd("devices", theirs.as_fd()).await?;
        // QEMU has its own copy of it by now. With ours closed, it is told when QEMU reads no more.
        drop(theirs);
        qmp.execute("migrate-incoming", json!({ "uri": "fd:devices" })).await
    };
    work.await.map_err(StartCause::Qmp)?;
    let send = async {
        // A state that QEMU refuses is not read to its end; its answer says why.
        let _ = ours.write_all(&state).await;
        let _ = ours.shutdown().await;
    };
    tokio::join!(send, loaded(qmp, &mut events)).1
}

/// Waits until QEMU has loaded the state, or says why it can't.
async fn loaded(qmp: &Qmp, events: &mut broadcast::Receiver<Event>) -> Result<(), StartCause> {
    loop {
        match events.recv().await {
            Ok(event) if event.name != "MIGRATION" => continue,
            Ok(event) => match event.data["status"].as_str() {
                Some("completed") => return Ok(()),
                // The answer says why.
                Some("failed") => {}
                _ => continue,
            },
            // Its channel is closed, or more was told than is kept: the answer says which.
            Err(_) => {}
        }
        let answer = qmp.execute("query-migrate", json!({})).await.map_err(StartCause::Qmp)?;
        match answer["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed") => {
                let said = answer["error-desc"].as_str().unwrap_or("it does not say why");
                return Err(StartCause::BadState(said.to_owned()));
            }
            _ => {}
        }
    }
}
