//! Starting QEMU, and watching it until a stage of the start is done.

use std::{
    ffi::OsString,
    future::Future,
    io,
    os::{fd::AsRawFd, unix::net::UnixStream as StdUnixStream},
    path::PathBuf,
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UnixStream,
    time::{Instant, timeout},
};

use super::{
    Disk, Life, Vm, cards::Cards, console::Console, end::LAST_WORDS, guest_watch::GuestWatch, run_dir::RunDir,
    warnings::Warnings, way_out::WayOut,
};
use crate::{
    base::cache::CacheError,
    error::{
        Error,
        start::{Stage, StartCause, StartError},
    },
    guest::{Channel, ChannelError},
    host::Host,
    image::state::State,
    qemu::{
        Process,
        machine::{Begin, Instance, Machine, Plug, PrivateCard},
        qmp::Qmp,
    },
};

/// How long QEMU may take to answer on its control channel, and to load a state.
pub(super) const QEMU_PATIENCE: Duration = Duration::from_secs(30);

/// A QEMU that answers on its control channel, and the agent's socket.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) body: Body,
    pub(super) qmp: Qmp,
    pub(super) agent: UnixStream,
}

/// What a machine consists of on the host, whether somebody talks to it or not. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) process: Process,
    pub(super) console: Console,
    pub(super) run_dir: Arc<RunDir>,
    /// The disk's files from the image up, of which the last is written.
    pub(super) disk: Vec<PathBuf>,
    pub(super) disk_size: u64,
    pub(super) machine: Machine,
    /// What its memory was before it ran.
    pub(super) memory_file: PathBuf,
    pub(super) cards: Cards,
}

/// What comes to a machine once its agent answers.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) qmp: Qmp,
    pub(super) channel: Channel,
    pub(super) warnings: Arc<Warnings>,
    pub(super) way_out: WayOut,
    /// What it is a clone of.
    pub(super) origin: Option<State>,
}

impl Body {
    /// Carries out a stage until it is done, QEMU has ended, or its time is over.
    pub(super) async fn watch<T>(
        &self,
        qmp: &Qmp,
        stage: Stage,
        deadline: Instant,
        work: impl Future<Output = Result<T, StartCause>>,
    ) -> Result<T, Error> {
        watch(&self.process, Some(qmp), (&self.run_dir, &self.console), stage, deadline, work).await
    }

    /// The machine that runs.
    pub(super) fn into_vm(self, answered: Answered) -> Vm {
        let Body { process, console, run_dir, disk, disk_size, machine, memory_file, cards } = self;
        let Answered { qmp, channel, warnings, way_out, origin } = answered;
        let (qmp, disk) = (Arc::new(qmp), Disk::new(disk, disk_size));
        let _guest_watch = GuestWatch::over(&process, &qmp, &channel, &console);
        Vm {
            _guest_watch,
            channel,
            life: Life::default(),
            warnings,
            qmp,
            process,
            machine,
            memory_file,
            disk,
            way_out,
            cards,
            console,
            origin,
            run_dir,
        }
    }
}

/// Starts QEMU. Of `disk` the last file will be written, the others not.
pub(super) async fn launch(
    host: &Host,
    machine: &Machine,
    run_dir: Arc<RunDir>,
    memory_file: PathBuf,
    (disk, disk_size): (Vec<PathBuf>, u64),
    (plug, (cards, private)): (Plug, (Cards, Vec<PrivateCard>)),
    begin: Begin<'_>,
) -> Result<Launched, Error> {
    let qemu_log = run_dir.qemu_log();
    let socket_error = || CacheError::io("make sockets for", &qemu_log);
    let (qmp, qemu_qmp) = socket_pair().map_err(socket_error())?;
    let (agent, qemu_agent) = socket_pair().map_err(socket_error())?;
    let (console, qemu_console) = StdUnixStream::pair().map_err(socket_error())?;
    let console = Console::follow(console).map_err(socket_error())?;
    let instance = Instance {
        name: run_dir.name(),
        memory_file: &memory_file,
        disk: disk.iter().map(PathBuf::as_path).collect(),
        plug: &plug,
        cards: &private,
        begin,
        qemu: host.version,
        qmp: qemu_qmp.as_raw_fd(),
        agent: qemu_agent.as_raw_fd(),
        console: qemu_console.as_raw_fd(),
    };
    let arguments: Vec<OsString> = machine.arguments(&instance);
    tracing::debug!(target: "quicksand::qemu", program = %host.qemu.display(), ?arguments, "launch");
    let mut inherit = vec![qemu_qmp.into(), qemu_agent.into(), qemu_console.into()];
    if let Plug::Socket(fd) = plug {
        inherit.push(fd);
    }
    inherit.extend(private.into_iter().filter_map(|card| card.socket));
    let process = Process::launch(&host.qemu, arguments, inherit, &qemu_log).await?;
    let deadline = Instant::now() + QEMU_PATIENCE;
    let qmp = watch(&process, None, (&run_dir, &console), Stage::Launch, deadline, async {
        Qmp::open(qmp).await.map_err(StartCause::Qmp)
    });
    let qmp = qmp.await?;
    let machine = machine.clone();
    let body = Body { process, console, run_dir, disk, disk_size, machine, memory_file, cards };
    Ok(Launched { body, qmp, agent })
}

pub(super) fn socket_pair() -> io::Result<(UnixStream, StdUnixStream)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs))
}

/// Carries out a stage until it is done, QEMU has ended, or its time is over.
pub(super) async fn watch<T>(
    process: &Process,
    qmp: Option<&Qmp>,
    (run_dir, console): (&RunDir, &Console),
    stage: Stage,
    deadline: Instant,
    work: impl Future<Output = Result<T, StartCause>>,
) -> Result<T, Error> {
    let begun = Instant::now();
    let late = || match stage {
        Stage::Boot | Stage::Wake => StartCause::AgentSilent(begun.elapsed()),
        _ => StartCause::TooLong(begun.elapsed()),
    };
    let cause = tokio::select! {
        biased;
        done = work => match done {
            Ok(done) => return Ok(done),
            // On a busy host its own deadline is seen together with ours.
            Err(StartCause::Channel(ChannelError::NoAnswer(_))) => late(),
            Err(cause) => {
                // QEMU's end closes its channels first; how it ended says more than that.
                match timeout(Duration::from_millis(500), process.ended()).await {
                    Ok(status) => end_of(status, qmp).await,
                    Err(_) => cause,
                }
            }
        },
        status = process.ended() => end_of(status, qmp).await,
        () = tokio::time::sleep_until(deadline) => late(),
    };
    Err(StartError::gather(stage, cause, &run_dir.qemu_log(), console).into())
}

/// What the end of a QEMU means, as it said itself on its control channel.
pub(super) async fn end_of(status: ExitStatus, qmp: Option<&Qmp>) -> StartCause {
    let reason = match qmp {
        Some(qmp) => timeout(LAST_WORDS, qmp.shutdown_reason()).await.ok().flatten(),
        None => None,
    };
    StartCause::of_end(status, reason.as_deref())
}
