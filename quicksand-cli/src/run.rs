//! `quicksand run`: a machine, a command in it, its streams and its exit code.

use std::time::Duration;

use quicksand_core::harness::BuilderExt;
use quicksand_core::{Child, Error, ExitStatus, Sandbox, SandboxBuilder, guest::GuestReader};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, stderr, stdin, stdout},
    signal::unix::{SignalKind, signal},
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    args::{MachineArgs, RunArgs},
    exit,
    failure::{Failure, Result},
};

/// How long a command that was killed may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a command may go on writing when nobody reads it any more. Each time after that it is told more plainly.
const UNREAD_PATIENCE: Duration = Duration::from_secs(2);
/// A time without end, for a command that has all it wants.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Runs a command in a machine of its own.
pub(crate) async fn run(args: RunArgs) -> Result {
    let mut builder = builder(&args.image, &args.machine);
    if let Some(name) = &args.save {
        builder = builder.save(name);
    }
    let sandbox = builder.start().await.map_err(|error| Failure::from(error).code(exit::NO_MACHINE))?;
    tell_ports(&sandbox, &args.machine);
    let code = command(&sandbox, &args).await?;
    sandbox.stop().await?;
    Ok(code)
}

/// A builder with the options of the command line.
pub(crate) fn builder(source: &str, args: &MachineArgs) -> SandboxBuilder {
    let mut builder = Sandbox::builder(source)
        .network_mode(args.network.into())
        .boot_timeout(args.boot_timeout)
        .kernel(args.kernel.into())
        .saves_dir(&args.saves_dir)
        // Somebody waits for it; and no test is to wait for a machine that somebody uses by hand.
        .at_once();
    if let Some(memory) = args.memory {
        builder = builder.memory(memory.to_string());
    }
    if let Some(cpus) = args.cpus {
        builder = builder.cpus(cpus);
    }
    if let Some(size) = args.disk {
        builder = builder.disk_size(size.to_string());
    }
    for mount in &args.mount {
        builder = builder.mount(mount.clone());
    }
    for port in &args.port {
        builder = builder.port_forward(*port);
    }
    for port in &args.host_port {
        builder = builder.allow_host_port(*port);
    }
    if let Some(accel) = args.accel {
        builder = builder.accel(accel.into());
    }
    if args.quiet { builder } else { builder.on_progress(quicksand_test::show_progress()) }
}

/// Tells the ports that were picked, where it was not known before which.
pub(crate) fn tell_ports(sandbox: &Sandbox, args: &MachineArgs) {
    if args.port.iter().any(|port| port.host() == 0) {
        for port in sandbox.port_forwards() {
            eprintln!("quicksand: {} leads to port {} of the guest", port.host_address(), port.guest());
        }
    }
}

async fn command(sandbox: &Sandbox, args: &RunArgs) -> Result {
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err(Failure::new("there is no command to run").code(exit::NOT_RUN));
    };
    let mut command = sandbox.command(program).args(arguments).piped_stdin();
    for (name, value) in &args.env {
        command = command.env(name, value);
    }
    if let Some(user) = &args.user {
        command = command.user(user);
    }
    if let Some(directory) = &args.workdir {
        command = command.current_dir(directory);
    }
    let child = command.spawn().await.map_err(|error| Failure::from(error).code(exit::NOT_RUN))?;
    let status = follow(child, args.timeout.unwrap_or(FOR_EVER)).await?;
    Ok(exit::of_guest(status))
}

/// Carries the streams of a child until it has ended, and hands signals on to it.
async fn follow(mut child: Child, limit: Duration) -> Result<ExitStatus> {
    if let Some(mut input) = child.stdin.take() {
        // Not waited for: the command may end without reading it. A read of the terminal can't be given up, which is why the
        // program ends without it.
        tokio::spawn(async move {
            let _ = copy(&mut stdin(), &mut input).await;
            let _ = input.shutdown().await;
        });
    }
    let outputs = (child.stdout.take(), child.stderr.take());
    let unread = Notify::new();
    let work = async {
        let (output, errors) = (pass(outputs.0, stdout(), &unread), pass(outputs.1, stderr(), &unread));
        let ((), (), status) = tokio::join!(output, errors, wait(&mut child, &unread));
        status
    };
    match timeout(limit, work).await {
        Ok(status) => status.map_err(of_command),
        Err(_) => {
            child.kill();
            let _ = timeout(KILL_PATIENCE, child.wait()).await;
            let message = format!("the command did not end within {}", humantime::format_duration(limit));
            Err(Failure::new(message).hint("--timeout gives it more").code(exit::TIMEOUT))
        }
    }
}

/// The code of a failure that befell a command.
fn of_command(error: Error) -> Failure {
    let code = if matches!(error, Error::Guest(_)) { exit::NOT_RUN } else { exit::NO_MACHINE };
    Failure::from(error).code(code)
}

/// Waits for a child's end. What asks us to end is handed on to it first, and kills it when it comes again; and so with the signal for
/// writing what nobody reads.
async fn wait(child: &mut Child, unread: &Notify) -> quicksand_core::Result<ExitStatus> {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [interrupt, terminate, hangup] = kinds.map(|kind| signal(kind).ok());
    let (mut interrupt, mut terminate, mut hangup) = (interrupt, terminate, hangup);
    let mut asked = false;
    loop {
        let number = tokio::select! {
            status = child.wait() => return status,
            () = came(&mut interrupt) => nix::libc::SIGINT,
            () = came(&mut terminate) => nix::libc::SIGTERM,
            () = came(&mut hangup) => nix::libc::SIGHUP,
            () = unread.notified() => nix::libc::SIGPIPE,
        };
        if std::mem::replace(&mut asked, true) { child.kill() } else { child.signal(number) }
    }
}

async fn came(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => sleep(FOR_EVER).await,
    }
}

/// Copies a stream of the guest to one of ours. Whoever reads ours may close it, as `head` does: the guest's is read on, since what
/// ends by itself is to end well, and what writes on for long is told of.
async fn pass(from: Option<GuestReader>, mut to: impl AsyncWrite + Unpin, unread: &Notify) {
    let Some(mut from) = from else { return };
    if copy(&mut from, &mut to).await.is_err() {
        let (mut since, mut buffer) = (Instant::now(), vec![0; 64 << 10]);
        while let Ok(1..) = from.read(&mut buffer).await {
            if since.elapsed() >= UNREAD_PATIENCE {
                unread.notify_one();
                since = Instant::now();
            }
        }
    }
    let _ = to.flush().await;
}
