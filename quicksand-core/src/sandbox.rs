//! [`Sandbox`]: a virtual machine as its user sees it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use quicksand_protocol::message::Request;

use crate::{
    Command, Error, Output, Progress, Reporter, Result, Size, accel,
    cache::{CacheError, Unfinished},
    host::Host,
    machine::{Accel, Accelerator, LEAST_MEMORY, Machine, NetworkMode},
    source::{self, Source},
    state::{self, Description, State},
    vm::{Probe, Vm},
};

/// Memory of a guest unless it is told otherwise.
pub const DEFAULT_MEMORY: Size = Size::from_mib(512);
/// How long a boot may take unless it is told otherwise. Software emulation on a busy host takes a minute or two.
pub const DEFAULT_BOOT_TIMEOUT: Duration = Duration::from_secs(300);
/// Most processors that a guest may have: QEMU's limit for the machine.
const MOST_CPUS: u32 = 255;
/// How long another process may take to write the save that we want to write.
const SAVE_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long an agent may take to answer a ping.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// How a sandbox came to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartKind {
    /// Cloned from a frozen state that was there.
    Warm,
    /// Booted from a save's disk, since the save's memory could not be used.
    Disk,
    /// Booted from an image, whose state is now kept for the next time.
    Cold,
}

/// What a start did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StartReport {
    /// How the sandbox came to run.
    pub kind: StartKind,
    /// Why nothing faster was done, one reason for each thing that was tried or not possible.
    pub reasons: Vec<String>,
    /// The whole time of the start.
    pub elapsed: Duration,
}

/// What a save did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SaveReport {
    /// Where the save is.
    pub directory: PathBuf,
    /// How long the guest stood still.
    pub pause: Duration,
}

/// Options of a [`Sandbox`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build() or start()"]
pub struct SandboxBuilder {
    source: String,
    memory: Option<String>,
    cpus: Option<u32>,
    accel: Accel,
    network: NetworkMode,
    boot_timeout: Duration,
    save: Option<String>,
    saves_dir: Option<PathBuf>,
    recipe: Option<String>,
    extra_arguments: Vec<String>,
    reporter: Reporter,
}

/// A virtual machine of one's own.
///
/// Dropping it throws it away, with whatever it holds. [`stop`](Sandbox::stop) writes the save that the builder named.
#[derive(Debug)]
pub struct Sandbox {
    options: SandboxBuilder,
    life: Mutex<Life>,
}

enum Life {
    Built,
    Starting,
    Running(Arc<Running>),
    Stopped,
}

/// A sandbox that runs.
#[derive(Debug)]
struct Running {
    vm: Arc<Vm>,
    host: Host,
    why_not_better: Option<String>,
    report: StartReport,
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Life::Built => "Built",
            Life::Starting => "Starting",
            Life::Running(_) => "Running",
            Life::Stopped => "Stopped",
        })
    }
}

impl SandboxBuilder {
    /// Memory of the guest, as in `"512M"` or `"2G"`. Default: that of the save, or 512M.
    pub fn memory(mut self, memory: impl Into<String>) -> SandboxBuilder {
        self.memory = Some(memory.into());
        self
    }

    /// Processors of the guest. Default: those of the save, or 1.
    pub fn cpus(mut self, cpus: u32) -> SandboxBuilder {
        self.cpus = Some(cpus);
        self
    }

    /// How the guest's instructions are carried out. Default: [`Accel::Auto`].
    pub fn accel(mut self, accel: Accel) -> SandboxBuilder {
        self.accel = accel;
        self
    }

    /// What the guest reaches. Default: [`NetworkMode::MountsOnly`].
    pub fn network_mode(mut self, mode: NetworkMode) -> SandboxBuilder {
        self.network = mode;
        self
    }

    /// How long a boot may take, where one is needed. Default: [`DEFAULT_BOOT_TIMEOUT`].
    pub fn boot_timeout(mut self, timeout: Duration) -> SandboxBuilder {
        self.boot_timeout = timeout;
        self
    }

    /// Writes a save of that name when the sandbox is [stopped](Sandbox::stop).
    pub fn save(mut self, name: impl Into<String>) -> SandboxBuilder {
        self.save = Some(name.into());
        self
    }

    /// The directory of the saves. Default: `.quicksand/sandboxes` in the current directory.
    pub fn saves_dir(mut self, directory: impl Into<PathBuf>) -> SandboxBuilder {
        self.saves_dir = Some(directory.into());
        self
    }

    /// Arguments for QEMU beside our own. Warm states are kept for each set of them.
    pub fn extra_qemu_args<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> SandboxBuilder {
        self.extra_arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Calls `report` as long steps come along. See [`Progress`].
    pub fn on_progress(mut self, report: impl Fn(&Progress) + Send + Sync + 'static) -> SandboxBuilder {
        self.reporter = Reporter::new(report);
        self
    }

    /// What a save is made from. Where it differs from that of a save that is there, the save counts as absent for the harness.
    #[doc(hidden)]
    pub fn recipe(mut self, recipe: impl Into<String>) -> SandboxBuilder {
        self.recipe = Some(recipe.into());
        self
    }

    /// Checks the options.
    ///
    /// # Errors
    ///
    /// [`Error::Size`], [`Error::BadOption`], [`Error::BadName`].
    pub fn build(self) -> Result<Sandbox> {
        self.memory_size()?;
        if self.cpus.is_some_and(|cpus| !(1..=MOST_CPUS).contains(&cpus)) {
            return Err(Error::BadOption { option: "cpus", why: format!("it must be 1 to {MOST_CPUS}") });
        }
        if let Some(name) = &self.save {
            check_name(name)?;
        }
        Ok(Sandbox { options: self, life: Mutex::new(Life::Built) })
    }

    /// Builds the sandbox and starts it.
    ///
    /// # Errors
    ///
    /// Those of [`build`](SandboxBuilder::build) and [`Sandbox::start`].
    pub async fn start(self) -> Result<Sandbox> {
        let sandbox = self.build()?;
        sandbox.start().await?;
        Ok(sandbox)
    }

    fn memory_size(&self) -> Result<Option<Size>> {
        let Some(memory) = self.memory.as_deref().map(str::parse::<Size>).transpose()? else { return Ok(None) };
        let mib = Size::from_mib(1).bytes();
        if memory < LEAST_MEMORY || !memory.bytes().is_multiple_of(mib) {
            let why = format!("it must be a whole number of MiB and at least {LEAST_MEMORY}, not {memory}");
            return Err(Error::BadOption { option: "memory", why });
        }
        Ok(Some(memory))
    }

    fn saves(&self) -> Result<PathBuf> {
        let directory = self.saves_dir.clone().unwrap_or_else(|| Path::new(".quicksand").join("sandboxes"));
        std::path::absolute(&directory).map_err(Error::io("find", &directory))
    }
}

impl Sandbox {
    /// A builder for a sandbox that starts from an image, a save of that name, or the directory of a save.
    pub fn builder(source: impl Into<String>) -> SandboxBuilder {
        SandboxBuilder {
            source: source.into(),
            memory: None,
            cpus: None,
            accel: Accel::default(),
            network: NetworkMode::default(),
            boot_timeout: DEFAULT_BOOT_TIMEOUT,
            save: None,
            saves_dir: None,
            recipe: None,
            extra_arguments: Vec::new(),
            reporter: Reporter::silent(),
        }
    }

    /// Starts it: from the frozen state where there is one, else from the disk of the save, else by booting the image.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyStarted`]; all that can keep a machine from starting, see [`Error`].
    pub async fn start(&self) -> Result<()> {
        {
            let mut life = self.life();
            if !matches!(*life, Life::Built) {
                return Err(Error::AlreadyStarted);
            }
            *life = Life::Starting;
        }
        let started = self.options.launch().await;
        let mut life = self.life();
        match started {
            Ok(running) => {
                *life = Life::Running(Arc::new(running));
                Ok(())
            }
            Err(error) => {
                *life = Life::Stopped;
                Err(error)
            }
        }
    }

    /// Stops it. Where the builder named a save, that is written first. Stopping a sandbox that does not run does nothing.
    ///
    /// # Errors
    ///
    /// Those of [`save`](Sandbox::save); the sandbox then runs on.
    pub async fn stop(&self) -> Result<()> {
        let Ok(running) = self.running() else { return Ok(()) };
        if let Some(name) = &self.options.save {
            self.save(name).await?;
        }
        *self.life() = Life::Stopped;
        running.vm.process().kill().await.map_err(Error::io("stop", Path::new("QEMU")))?;
        Ok(())
    }

    /// Writes a save of the running sandbox: memory, devices and disk. It runs on, after a pause that the report tells.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], [`Error::NotRunning`], and whatever keeps the save from being written. An old save of that name then
    /// stays as it was.
    pub async fn save(&self, name: &str) -> Result<SaveReport> {
        check_name(name)?;
        let running = self.running()?;
        let directory = self.options.saves()?.join(name);
        make_saves_dir(&directory)?;
        let lock_name = format!("save-{}", source::short_key(&directory.to_string_lossy()));
        let _lock = running.host.cache.lock(&lock_name, SAVE_PATIENCE).await?;
        let unfinished = Unfinished::beside(&directory)?;
        let vm = &running.vm;
        let frozen = vm.freeze(&running.host, unfinished.path()).await?;
        let machine = vm.machine().clone();
        let machine_key = machine.key(running.host.version);
        let description = Description {
            machine,
            machine_key,
            user_network: vm.user_network(),
            in_frame: frozen.in_frame,
            recipe: self.options.recipe.clone(),
        };
        // The state that it is a clone of is held until this is done.
        let origin = vm.origin().cloned().ok_or(Error::NotRunning)?;
        let written = tokio::task::spawn_blocking(move || {
            state::write(unfinished.path(), origin.image(), &frozen.layers, description)?;
            unfinished.finish()?;
            Ok::<_, Error>(frozen.pause)
        });
        let pause = written.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        Ok(SaveReport { directory, pause })
    }

    /// Runs a line of shell in the guest, as root. `/bin/sh` is what the guest has under that name.
    ///
    /// # Errors
    ///
    /// Those of [`Command::output`].
    pub async fn execute(&self, line: impl Into<String>) -> Result<Output> {
        self.command("/bin/sh").arg("-c").arg(line.into()).output().await
    }

    /// A program to run in the guest, without a shell.
    pub fn command(&self, program: impl Into<std::ffi::OsString>) -> Command<'_> {
        Command::new(self, program.into())
    }

    /// Asks the agent for an answer and returns how long it took.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], [`Error::Guest`], [`Error::Ended`].
    pub async fn ping(&self) -> Result<Duration> {
        let vm = self.vm()?;
        let begun = Instant::now();
        match vm.channel().request(&Request::Ping, PING_PATIENCE).await {
            Ok(_) => Ok(begun.elapsed()),
            Err(error) => Err(vm.explain(error).await),
        }
    }

    /// Whether its machine runs.
    pub fn is_running(&self) -> bool {
        self.vm().is_ok_and(|vm| vm.process().is_running())
    }

    /// What carries out the guest's instructions. `None` unless it runs.
    pub fn accelerator(&self) -> Option<Accelerator> {
        self.vm().ok().map(|vm| vm.machine().accelerator)
    }

    /// Why nothing faster carries out the guest's instructions, where that was asked for and does not work here.
    pub fn why_not_better(&self) -> Option<String> {
        self.running().ok()?.why_not_better.clone()
    }

    /// How long a boot may take.
    pub fn boot_timeout(&self) -> Duration {
        self.options.boot_timeout
    }

    /// What its start did. `None` unless it runs.
    pub fn start_report(&self) -> Option<StartReport> {
        Some(self.running().ok()?.report.clone())
    }

    /// The last lines of the guest's console. `None` unless it runs.
    pub fn console_tail(&self, lines: usize) -> Option<String> {
        Some(self.vm().ok()?.console_tail(lines))
    }

    /// The process id of its QEMU, for measurements. `None` unless it runs.
    pub fn qemu_pid(&self) -> Option<u32> {
        Some(self.vm().ok()?.process().pid())
    }

    pub(crate) fn vm(&self) -> Result<Arc<Vm>> {
        Ok(Arc::clone(&self.running()?.vm))
    }

    fn running(&self) -> Result<Arc<Running>> {
        match &*self.life() {
            Life::Running(running) => Ok(Arc::clone(running)),
            _ => Err(Error::NotRunning),
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SandboxBuilder {
    /// Whether the save that is to be written is there, made from the same recipe.
    #[doc(hidden)]
    pub fn is_saved(&self) -> Result<bool> {
        let Some(name) = &self.save else { return Ok(false) };
        check_name(name)?;
        let directory = self.saves()?.join(name);
        let state = match State::read(&directory) {
            Ok(Some(state)) => state,
            // Damaged, or of another version: made again where we know how.
            Ok(None) | Err(_) => return Ok(false),
        };
        match (&state.manifest.recipe, &self.recipe) {
            (None, Some(_)) => Err(Error::SaveInTheWay { name: name.clone(), directory }),
            (have, want) => Ok(have == want),
        }
    }

    /// Makes the save, once among all processes that want it at the same time: boots the source, lets `setup` work on it, stops it.
    #[doc(hidden)]
    pub async fn ensure_saved<E: From<Error>>(
        &self,
        setup: impl AsyncFnOnce(&Sandbox) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.is_saved()? {
            return Ok(false);
        }
        let host = Host::discover()?;
        let directory = self.saves()?.join(self.save.as_deref().unwrap_or_default());
        let lock_name = format!("make-{}", source::short_key(&directory.to_string_lossy()));
        let _lock = host.cache.lock(&lock_name, SAVE_PATIENCE).await.map_err(Error::from)?;
        if self.is_saved()? {
            return Ok(false);
        }
        let sandbox = self.clone().start().await?;
        setup(&sandbox).await?;
        sandbox.stop().await?;
        Ok(true)
    }

    async fn launch(&self) -> Result<Running> {
        let begun = Instant::now();
        let host = Host::discover()?;
        let source = Source::find(&host, &self.source, &self.saves()?, &self.reporter).await?;
        if let (Source::Save(state), Some(recipe)) = (&source, &self.recipe)
            && state.manifest.recipe.as_ref() != Some(recipe)
        {
            return Err(Error::SaveChanged { name: self.source.clone() });
        }
        let image = source.image();
        let saved = match &source {
            Source::Save(state) => Some(&state.manifest.machine),
            Source::Image(_) => None,
        };
        let own = saved.map(|machine| Size::from_bytes(machine.memory));
        let memory = self.memory_size()?.or(own).unwrap_or(DEFAULT_MEMORY);
        host.check_room(memory)?;
        let probe_files = source::probe_files(&host, &image)?;
        let choice = accel::choose(&host, self.accel, Probe::of(&probe_files)).await?;
        let machine = Machine {
            memory: memory.bytes(),
            cpus: self.cpus.or(saved.map(|machine| machine.cpus)).unwrap_or(1),
            accelerator: choice.accelerator,
            extra_arguments: self.extra_arguments.clone(),
        };

        let (vm, kind, reasons) = self.bring_up(&host, &source, &machine).await?;
        for reason in &reasons {
            tracing::warn!(source = self.source, reason, "a slower start");
        }
        let report = StartReport { kind, reasons, elapsed: begun.elapsed() };
        tracing::debug!(source = self.source, ?report, "started");
        Ok(Running { vm: Arc::new(vm), host, why_not_better: choice.why_not_better, report })
    }

    /// Tries what is fastest first.
    async fn bring_up(&self, host: &Host, source: &Source, machine: &Machine) -> Result<(Vm, StartKind, Vec<String>)> {
        let mut reasons = Vec::new();
        if let Source::Save(state) = source {
            if state.manifest.machine_key == machine.key(host.version) {
                match Vm::restore(host, state, self.network).await {
                    Ok(vm) => return Ok((vm, StartKind::Warm, reasons)),
                    Err(error) => reasons.push(format!("the save's memory could not be used: failed to {error}")),
                }
            } else {
                reasons.push(format!(
                    "the save's memory is of another machine: {}",
                    difference(&state.manifest.machine, machine)
                ));
            }
        }
        let booted_kind = if matches!(source, Source::Save(_)) { StartKind::Disk } else { StartKind::Cold };
        let warm = source::warm_state(host, source, machine, self.boot_timeout, &self.reporter).await?;
        let kind = if warm.booted { booted_kind } else { StartKind::Warm };
        if warm.booted && reasons.is_empty() {
            reasons.push("there was no warm state yet".to_owned());
        }
        match Vm::restore(host, &warm.state, self.network).await {
            Ok(vm) => return Ok((vm, kind, reasons)),
            Err(error) if warm.booted => return Err(error),
            Err(error) => reasons.push(format!("the warm state could not be used: failed to {error}")),
        }
        source::quarantine(host, &warm.state);
        let warm = source::warm_state(host, source, machine, self.boot_timeout, &self.reporter).await?;
        let vm = Vm::restore(host, &warm.state, self.network).await?;
        Ok((vm, if warm.booted { booted_kind } else { StartKind::Warm }, reasons))
    }
}

/// In what a saved machine differs from the one that is wanted, for people.
fn difference(saved: &Machine, wanted: &Machine) -> String {
    let size = |machine: &Machine| Size::from_bytes(machine.memory).to_string();
    let fields = [
        ("memory", size(saved), size(wanted)),
        ("cpus", saved.cpus.to_string(), wanted.cpus.to_string()),
        ("accelerator", saved.accelerator.to_string(), wanted.accelerator.to_string()),
        ("QEMU arguments", saved.extra_arguments.join(" "), wanted.extra_arguments.join(" ")),
    ];
    let differing: Vec<_> = fields
        .into_iter()
        .filter(|(_, saved, wanted)| saved != wanted)
        .map(|(what, saved, wanted)| format!("{what} {saved:?}, now {wanted:?}"))
        .collect();
    if differing.is_empty() {
        "QEMU, quicksand or the host's processor changed".to_owned()
    } else {
        differing.join("; ")
    }
}

fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    let mut bytes = name.bytes();
    let fits = bytes.next().is_some_and(plain) && bytes.all(|b| plain(b) || b"._-".contains(&b)) && name.len() <= 64;
    if fits { Ok(()) } else { Err(Error::BadName { name: name.to_owned() }) }
}

/// Makes the directory of the saves, and keeps it out of version control: saves are large, and made from what is under it.
fn make_saves_dir(save: &Path) -> Result<()> {
    let Some(saves) = save.parent() else { return Ok(()) };
    std::fs::create_dir_all(saves).map_err(Error::io("create", saves))?;
    let Some(project) = saves.parent().filter(|parent| parent.ends_with(".quicksand")) else { return Ok(()) };
    let ignore = project.join(".gitignore");
    match std::fs::File::create_new(&ignore).and_then(|mut file| io::Write::write_all(&mut file, b"*\n")) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(CacheError::io("write", &ignore)(e).into()),
        _ => Ok(()),
    }
}

/// Which image or save a name means, and what its frozen memory is bound to on this host; for the harness's key of a save.
#[doc(hidden)]
pub async fn source_identity(source: &str, saves: &Path, reporter: &Reporter) -> Result<String> {
    let host = Host::discover()?;
    let source = Source::find(&host, source, saves, reporter).await?.id();
    Ok(format!("{source}; QEMU {}; agent {}", host.version, quicksand_agent::ID))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_before_anything_starts() {
        let build = |change: fn(SandboxBuilder) -> SandboxBuilder| change(Sandbox::builder("x")).build();
        assert!(build(|b| b.memory("2G").cpus(4).save("my-env.1")).is_ok());
        assert!(matches!(build(|b| b.memory("lots")), Err(Error::Size(_))));
        assert!(matches!(build(|b| b.memory("1M")), Err(Error::BadOption { option: "memory", .. })));
        assert!(matches!(build(|b| b.memory("512.5K")), Err(Error::BadOption { option: "memory", .. })));
        assert!(matches!(build(|b| b.cpus(0)), Err(Error::BadOption { option: "cpus", .. })));
        for name in ["", "..", ".x", "a/b", "a b", "a,b", "é", &"x".repeat(65)] {
            assert!(matches!(Sandbox::builder("x").save(name).build(), Err(Error::BadName { .. })), "{name}");
        }
    }

    #[test]
    fn a_difference_is_told_in_words() {
        let machine = |memory: u64, cpus| Machine {
            memory: memory << 20,
            cpus,
            accelerator: Accelerator::Tcg,
            extra_arguments: vec![],
        };
        assert_eq!(difference(&machine(512, 1), &machine(1024, 1)), r#"memory "512M", now "1G""#);
        assert!(difference(&machine(512, 1), &machine(512, 1)).contains("QEMU"));
    }

    #[tokio::test]
    async fn a_sandbox_that_does_not_run_says_so() {
        let sandbox = Sandbox::builder("x").build().unwrap();
        assert!(!sandbox.is_running());
        assert!(matches!(sandbox.execute("true").await, Err(Error::NotRunning)));
        sandbox.stop().await.unwrap();
    }
}
