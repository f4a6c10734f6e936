//! Starting a machine, from its kernel or from a frozen state.

use std::{
    ffi::OsString,
    fs::{self, File},
    future::Future,
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::Arc,
    time::Duration,
};

use quicksand_protocol::message::{Done, Exec, Network, Request, Settle, Wake};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::broadcast,
    time::{Instant, sleep, timeout},
};

use super::{
    Boot, Disk, Life, Outside, Vm, boot::boot_disk, cards::Cards, console::Console, end::LAST_WORDS,
    guest_watch::GuestWatch, restarts::Restarts, run_dir::RunDir, video, warnings::Warnings, way_out::WayOut,
};
use crate::{
    base::{
        cache::{Cache, CacheError, UNFINISHED, touch},
        printed::printable,
        random,
    },
    error::{
        Error,
        start::{Stage, StartCause, StartError},
    },
    guest::{Channel, ChannelError, Opening, Operation},
    host::Host,
    image::state::State,
    network::passt::{DNS, GATEWAY, GUEST_ADDRESS, PREFIX},
    qemu::{
        Process,
        machine::{Begin, Instance, Machine, NetworkMode, Plug, PrivateCard},
        qmp::{Event, Qmp},
    },
};

/// How long QEMU may take to answer on its control channel, and to load a state.
const QEMU_PATIENCE: Duration = Duration::from_secs(30);
/// How long a restored agent may take to answer. It has nothing to do but wake up.
const WAKE_PATIENCE: Duration = Duration::from_secs(15);
/// How long the guest is given to fall idle after its init says that it is up.
const IDLE_PATIENCE: Duration = Duration::from_secs(20);
/// A guest counts as idle when its QEMU uses less than this share of one core.
const IDLE_SHARE: f64 = 0.10;

/// How long a guest that does not come up may take to say what it waits for, how much of that is read, and how much told.
const JOBS_PATIENCE: Duration = Duration::from_secs(10);
const JOBS_LIMIT: u64 = 64 << 10;
const JOBS_SHOWN: usize = 10;

/// What our init prints on the console when it is run as a probe; see `quicksand-agent/guest/init.rs`.
const PROBE_WORD: &str = "quicksand: probe";

/// What a probe of an accelerator runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
}

/// Whether a clone is a machine of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// It gets a machine id of its own, as one of several clones of a state.
    New,
    /// It keeps its machine id: it is the machine that was frozen, which is no more.
    Same,
}

/// A QEMU that answers on its control channel, and the agent's socket.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) process: Process,
    pub(super) qmp: Qmp,
    pub(super) agent: UnixStream,
    pub(super) console: Console,
    pub(super) run_dir: Arc<RunDir>,
    pub(super) disk: Vec<PathBuf>,
}

/// A clone whose state is loaded and whose guest does not run yet.
#[derive(Debug)]
pub(crate) struct Loaded {
    launched: Launched,
    state: State,
    machine: Machine,
    memory_file: PathBuf,
    network: NetworkMode,
    way_out: WayOut,
    cards: Cards,
}

/// The same on no runtime. Dropping it throws it away.
#[derive(Debug)]
pub(crate) struct Aside {
    qmp: StdUnixStream,
    agent: StdUnixStream,
    process: Process,
    machine: Machine,
    memory_file: PathBuf,
    disk: Vec<PathBuf>,
    network: NetworkMode,
    way_out: WayOut,
    cards: Cards,
    console: Console,
    state: State,
    run_dir: Arc<RunDir>,
}

impl Vm {
    /// Boots a machine without network until its init has started everything and it is idle. Of `disk`, its files from the image up,
    /// none is written. One that reboots before that is booted again.
    pub(crate) async fn boot(
        host: &Host,
        machine: &Machine,
        (disk, disk_size): (Vec<PathBuf>, u64),
        boot: &Boot,
    ) -> Result<Vm, Error> {
        let of_image = disk.len() == 1;
        let run_dir = Arc::new(RunDir::create(&host.cache)?);
        let disk = with_overlay(host, &run_dir, disk, disk_size)?;
        // Its card gets its address here, so that clones find it done.
        let network = Network::Static { address: GUEST_ADDRESS, prefix: PREFIX, of_image };
        let (deadline, mut restarts) = (Instant::now() + boot.timeout, Restarts::default());
        loop {
            let (disk, run_dir) = ((disk.clone(), disk_size), Arc::clone(&run_dir));
            let (boot, settle) = (boot.until(deadline), Settle { after_reboot: restarts.count() > 0 });
            match Vm::boot_once(host, machine, run_dir, disk, &boot, (network.clone(), settle)).await {
                Err(error) => restarts.go_on_after(error)?,
                booted => return booted,
            }
        }
    }

    async fn boot_once(
        host: &Host,
        machine: &Machine,
        run_dir: Arc<RunDir>,
        disk: (Vec<PathBuf>, u64),
        boot: &Boot,
        (network, settle): (Network, Settle),
    ) -> Result<Vm, Error> {
        let deadline = Instant::now() + boot.timeout;
        let vm = boot_disk(host, machine, run_dir, disk, boot, &Outside::default()).await?;
        let settled = watch(&vm.process, Some(&vm.qmp), (&vm.run_dir, &vm.console), Stage::Settle, deadline, async {
            vm.wake_again(network, Identity::New).await?;
            vm.come_up(settle).await?;
            fall_idle(&vm).await
        });
        match settled.await {
            Ok(()) => Ok(vm),
            Err(error) => Err(name_jobs(&vm, error).await),
        }
    }

    /// Boots a machine that has ended from the disk that it left, until its init has started everything. One whose init does not get
    /// that far is still of use, and comes with what kept it. One that reboots before that is booted again, which is counted.
    pub(crate) async fn boot_again(
        host: &Host,
        ended: &Vm,
        boot: &Boot,
        outside: &Outside,
        restarts: &mut Restarts,
    ) -> Result<(Vm, Option<Error>), Error> {
        let deadline = Instant::now() + boot.timeout;
        loop {
            match Vm::boot_again_once(host, ended, &boot.until(deadline), outside).await {
                Err(error) => restarts.go_on_after(error)?,
                booted => return booted,
            }
        }
    }

    async fn boot_again_once(
        host: &Host,
        ended: &Vm,
        boot: &Boot,
        outside: &Outside,
    ) -> Result<(Vm, Option<Error>), Error> {
        let deadline = Instant::now() + boot.timeout;
        let (disk, size) = {
            let disk = ended.disk.lock().await;
            (disk.files.clone(), disk.size)
        };
        let run_dir = Arc::clone(&ended.run_dir);
        let mut vm = boot_disk(host, &ended.machine, run_dir, (disk, size), boot, outside).await?;
        vm.origin = ended.origin.clone();
        let address = Network::Static { address: GUEST_ADDRESS, prefix: PREFIX, of_image: false };
        let settled = watch(&vm.process, Some(&vm.qmp), (&vm.run_dir, &vm.console), Stage::Settle, deadline, async {
            vm.wake_again(address, Identity::Same).await?;
            let network = guest_network(outside.network);
            // What starts while it boots may need it.
            vm.wake_again(network.clone(), Identity::Same).await?;
            vm.come_up(Settle { after_reboot: true }).await?;
            if outside.network == NetworkMode::Full {
                // A resolver that came up with the boot has written its file.
                vm.warnings.forget();
                vm.wake_again(network, Identity::Same).await?;
            }
            Ok(())
        });
        let unsettled = match settled.await {
            Ok(()) => None,
            Err(error) if vm.process.is_running() => Some(name_jobs(&vm, error).await),
            Err(error) => return Err(error),
        };
        Ok((vm, unsettled))
    }

    /// Boots a kernel as far as our init, which then switches the machine off.
    pub(crate) async fn probe(
        host: &Host,
        machine: &Machine,
        probe: Probe<'_>,
        patience: Duration,
    ) -> Result<(), Error> {
        let run_dir = Arc::new(RunDir::create(&host.cache)?);
        let memory_file = empty_memory(&run_dir, machine)?;
        let disk = with_overlay(host, &run_dir, vec![], 1 << 20)?;
        let command_line = "console=ttyS0 panic=-1 quicksand.probe";
        let begin = Begin::Boot { kernel: probe.kernel, initramfs: probe.initramfs, command_line };
        let deadline = Instant::now() + patience;
        let launched = launch(host, machine, run_dir, &memory_file, disk, (Plug::Nowhere, Vec::new()), begin).await?;
        let ended = launched.process.ended();
        let status = timeout(deadline.saturating_duration_since(Instant::now()), ended).await;
        match status {
            // The word of our init, not QEMU's status: a kernel that resets the machine ends QEMU as well.
            Ok(_) if launched.console.text().contains(PROBE_WORD) => Ok(()),
            status => {
                let cause = match status {
                    Ok(status) => end_of(status, Some(&launched.qmp)).await,
                    Err(_) => StartCause::AgentSilent(patience),
                };
                Err(StartError::gather(Stage::Boot, cause, &launched.run_dir.qemu_log(), &launched.console).into())
            }
        }
    }

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

impl Boot {
    /// The same as a boot that follows another, and has the rest of its time.
    fn until(&self, deadline: Instant) -> Boot {
        Boot { timeout: deadline.saturating_duration_since(Instant::now()), ..self.clone() }
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
        let memory_file = state.memory();
        let disk = with_overlay(host, &run_dir, state.disk(), state.disk_size())?;
        let machine = state.manifest.machine.clone();
        let mut way_out = WayOut::begin(host, outside.network, state.manifest.user_network, run_dir.path()).await;
        let (cards, sockets) = Cards::new(&outside.memberships, state.manifest.cards)?;
        let network = (way_out.plug(), sockets);
        let launched = launch(host, &machine, run_dir, &memory_file, disk, network, Begin::Restore).await?;
        let Launched { process, qmp, run_dir, console, .. } = &launched;

        let deadline = Instant::now() + QEMU_PATIENCE;
        let devices = state.devices();
        let way_out = watch(process, Some(qmp), (run_dir, console), Stage::Load, deadline, async {
            load(qmp, &devices).await?;
            way_out.finish(qmp).await.map_err(StartCause::Qmp)
        });
        let way_out = way_out.await?;
        if machine.display {
            video::load(qmp, process.pid(), &state.video()).await?;
        }
        Ok(Loaded { launched, state: state.clone(), machine, memory_file, network: outside.network, way_out, cards })
    }

    /// Lets the guest run, as a machine of its own or as the one that was frozen.
    pub(crate) async fn wake(self, identity: Identity) -> Result<Vm, Error> {
        let Loaded { launched, state, machine, memory_file, network, way_out, cards } = self;
        let Launched { process, qmp, agent, console, run_dir, disk } = launched;
        let deadline = Instant::now() + WAKE_PATIENCE;
        let woken = watch(&process, Some(&qmp), (&run_dir, &console), Stage::Wake, deadline, async {
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
        let qmp = Arc::new(qmp);
        let _guest_watch = GuestWatch::over(&process, &qmp, &channel, &console);
        let disk = Disk::new(disk, state.disk_size());
        let origin = Some(state);
        Ok(Vm {
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
        })
    }

    /// Takes it from its runtime, so that it can be woken on another.
    pub(crate) fn put_aside(self) -> io::Result<Aside> {
        let Loaded { launched, state, machine, memory_file, network, way_out, cards } = self;
        let Launched { process, qmp, agent, console, run_dir, disk } = launched;
        let (qmp, agent) = (qmp.put_aside()?, agent.into_std()?);
        Ok(Aside { process, qmp, agent, console, run_dir, disk, state, machine, memory_file, network, way_out, cards })
    }
}

impl Aside {
    /// Its QEMU's process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether its QEMU has not ended.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_running()
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Takes it up on the runtime of the caller.
    pub(crate) fn take_up(self) -> io::Result<Loaded> {
        let Aside { process, qmp, agent, console, run_dir, disk, state, machine, memory_file, network, way_out, cards } =
            self;
        let (qmp, agent) = (Qmp::take_up(qmp)?, UnixStream::from_std(agent)?);
        let launched = Launched { process, qmp, agent, console, run_dir, disk };
        Ok(Loaded { launched, state, machine, memory_file, network, way_out, cards })
    }
}

/// What a guest is told of its network, whose card has its address.
fn guest_network(mode: NetworkMode) -> Network {
    match mode {
        NetworkMode::None => Network::None,
        NetworkMode::MountsOnly => Network::Keep,
        NetworkMode::Full => Network::Online { gateway: GATEWAY, dns: DNS },
    }
}

/// Starts QEMU. Of `disk` the last file will be written, the others not.
pub(super) async fn launch(
    host: &Host,
    machine: &Machine,
    run_dir: Arc<RunDir>,
    memory_file: &Path,
    disk: Vec<PathBuf>,
    (plug, cards): (Plug, Vec<PrivateCard>),
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
        memory_file,
        disk: disk.iter().map(PathBuf::as_path).collect(),
        plug: &plug,
        cards: &cards,
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
    inherit.extend(cards.into_iter().filter_map(|card| card.socket));
    let process = Process::launch(&host.qemu, arguments, inherit, &qemu_log).await?;
    let deadline = Instant::now() + QEMU_PATIENCE;
    let qmp = watch(&process, None, (&run_dir, &console), Stage::Launch, deadline, async {
        Qmp::open(qmp).await.map_err(StartCause::Qmp)
    });
    let qmp = qmp.await?;
    Ok(Launched { process, qmp, agent, console, run_dir, disk })
}

fn socket_pair() -> io::Result<(UnixStream, StdUnixStream)> {
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
async fn end_of(status: ExitStatus, qmp: Option<&Qmp>) -> StartCause {
    let reason = match qmp {
        Some(qmp) => timeout(LAST_WORDS, qmp.shutdown_reason()).await.ok().flatten(),
        None => None,
    };
    StartCause::of_end(status, reason.as_deref())
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

/// Asks the guest to take up a life of its own.
fn wake(channel: &Channel, network: Network) -> Result<Operation, StartCause> {
    let seed = draw()?;
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let time_ns = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
    channel.start(&Request::Wake(Wake { time_ns, seed, network })).map_err(StartCause::Channel)
}

/// The request to take a new machine id.
fn rename() -> Result<Request, StartCause> {
    let mut machine_id = draw::<16>()?;
    // A random UUID's version and variant bits, as systemd makes machine ids.
    machine_id[6] = machine_id[6] & 0x0f | 0x40;
    machine_id[8] = machine_id[8] & 0x3f | 0x80;
    Ok(Request::Rename { machine_id })
}

fn draw<const N: usize>() -> Result<[u8; N], StartCause> {
    random::bytes().map_err(|e| StartCause::BadState(format!("draw random bytes: {e}")))
}

/// Waits for what could not be done.
async fn replied(mut operation: Operation) -> Result<Done, StartCause> {
    operation.reply().await.map_err(StartCause::Channel)
}

impl Vm {
    /// Has a guest that was booted wake, with one thing after another done to its network.
    async fn wake_again(&self, network: Network, identity: Identity) -> Result<(), StartCause> {
        self.warnings.add(replied(wake(&self.channel, network)?).await?);
        if identity == Identity::New {
            let renamed = self.channel.start(&rename()?).map_err(StartCause::Channel)?;
            self.warnings.add(replied(renamed).await?);
        }
        Ok(())
    }

    /// Waits until the init has started what it is to start.
    async fn come_up(&self, settle: Settle) -> Result<(), StartCause> {
        let mut settled = self.channel.start(&Request::Settle(settle)).map_err(StartCause::Channel)?;
        settled.reply().await.map(drop).map_err(StartCause::Channel)
    }
}

/// Adds to the error of a guest that does not come up what its systemd still waits for, where it has one that says.
async fn name_jobs(vm: &Vm, error: Error) -> Error {
    let Error::Start(mut error) = error else { return error };
    if let (Stage::Settle, &StartCause::TooLong(waited)) = (error.stage, &error.cause)
        && let Ok(Some(jobs)) = timeout(JOBS_PATIENCE, running_jobs(vm)).await
    {
        error.cause = StartCause::Unfinished { waited, jobs };
    }
    error.into()
}

pub(super) async fn running_jobs(vm: &Vm) -> Option<String> {
    let argv = ["systemctl", "list-jobs", "--no-legend", "--plain"].map(|word| word.as_bytes().to_vec()).to_vec();
    let mut operation = vm.channel.start(&Request::Exec(Exec { argv, ..Exec::default() })).ok()?;
    let mut printed = Vec::new();
    operation.stdout.take()?.take(JOBS_LIMIT).read_to_end(&mut printed).await.ok()?;
    let printed = String::from_utf8_lossy(&printed);
    // Number, unit, kind and state: those that wait do so for one that runs.
    let units = printed.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let unit = words.next()?;
        (words.nth(1)? == "running").then(|| printable(unit))
    });
    let units = units.take(JOBS_SHOWN).collect::<Vec<_>>().join(", ");
    (!units.is_empty()).then_some(units)
}

/// Waits until the guest is idle. A freeze before that would make every clone slow.
async fn fall_idle(vm: &Vm) -> Result<(), StartCause> {
    let deadline = Instant::now() + IDLE_PATIENCE;
    let mut last = vm.process.cpu_time();
    let step = Duration::from_millis(400);
    while Instant::now() < deadline {
        sleep(step).await;
        let now = vm.process.cpu_time();
        if (now.saturating_sub(last)).as_secs_f64() < IDLE_SHARE * step.as_secs_f64() {
            break;
        }
        last = now;
    }
    // What the first command of a clone needs is then in the guest's page cache.
    for _ in 0..3 {
        warm_up(vm).await?;
    }
    Ok(())
}

/// Runs a program for the sake of running it. An image need not have a shell.
async fn warm_up(vm: &Vm) -> Result<(), StartCause> {
    let argv = ["/bin/sh", "-c", "/bin/true"].map(|word| word.as_bytes().to_vec()).to_vec();
    let exec = Exec { argv, ..Exec::default() };
    let mut operation = vm.channel.start(&Request::Exec(exec)).map_err(StartCause::Channel)?;
    match operation.reply().await {
        Ok(_) | Err(ChannelError::Guest { .. }) => Ok(()),
        Err(error) => Err(StartCause::Channel(error)),
    }
}

/// The memory of a machine that boots: an empty file, which is never written.
pub(super) fn empty_memory(run_dir: &RunDir, machine: &Machine) -> Result<PathBuf, CacheError> {
    let path = run_dir.memory();
    let made = File::create(&path).and_then(|file| file.set_len(machine.memory));
    made.map(|()| path.clone()).map_err(CacheError::io("create", &path))
}

/// A disk with an empty overlay over the files that it has.
fn with_overlay(host: &Host, run_dir: &RunDir, mut files: Vec<PathBuf>, size: u64) -> Result<Vec<PathBuf>, Error> {
    let overlay = run_dir.next_overlay();
    empty_overlay(&host.cache, size, &overlay)?;
    files.push(overlay);
    Ok(files)
}

/// Puts an empty overlay of that size at `path`, as a copy of one that is made once.
pub(super) fn empty_overlay(cache: &Cache, size: u64, path: &Path) -> Result<(), Error> {
    let template = cache.overlays().join(format!("{size}.qcow2"));
    // One that was just used is not pruned.
    if touch(&template).is_err() {
        // Several threads and processes may make it at once.
        let name = random::name().map_err(CacheError::io("name a file beside", &template))?;
        let made = template.with_file_name(format!("{UNFINISHED}{name}"));
        let output =
            Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&made).arg(size.to_string()).output();
        let output = output.map_err(|source| Error::QemuImg { said: source.to_string() })?;
        if !output.status.success() {
            let _ = fs::remove_file(&made);
            return Err(Error::QemuImg { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
        }
        fs::rename(&made, &template).map_err(CacheError::io("rename", &made))?;
    }
    fs::copy(&template, path).map_err(CacheError::io("create", path))?;
    Ok(())
}
