//! `quicksand shell`: a machine, and a terminal in it.

use std::{
    io::{IsTerminal, stdin},
    os::fd::AsFd,
    time::Duration,
};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use quicksand_core::{Child, Error, ExitStatus, KeptMachine, Sandbox, SandboxBuilder};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, copy},
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

use crate::{
    args::ShellArgs,
    exit,
    failure::{Failure, Result},
    run::{builder, tell_ports},
    show,
};

/// The login shell of the user, as the agent tells it by a variable.
const LOGIN: [&str; 3] = ["/bin/sh", "-c", "exec \"${SHELL:-/bin/sh}\" -l"];
/// The key that leaves a guest which no longer answers, where it is pressed three times in a row: Ctrl-].
const LEAVE: u8 = 0x1d;
const LEAVE_TIMES: usize = 3;
/// The size of a terminal that is none.
const NO_TERMINAL: (u16, u16) = (24, 80);
/// After how long a program that has not ended is told once more that no more is typed.
const END_AGAIN: Duration = Duration::from_secs(1);
/// How long what the program wrote last may take to come, once the program has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Opens a shell, or another program, on a terminal of a machine.
pub(crate) async fn shell(args: ShellArgs) -> Result {
    let mut builder = builder(&args.source, &args.machine);
    if let Some(name) = &args.save {
        builder = builder.save(name);
    }
    let sandbox = start(&args.source, builder).await?;
    tell_ports(&sandbox, &args.machine);
    let status = converse(&sandbox, &args).await?;
    sandbox.stop().await?;
    Ok(exit::of_guest(status))
}

/// Starts from an image or a save; else from the machine of a test of that name.
pub(crate) async fn start(source: &str, builder: SandboxBuilder) -> Result<Sandbox> {
    let unknown = match builder.start().await {
        Err(error @ Error::NoSuchSource { .. }) => error,
        started => return started.map_err(|error| Failure::from(error).code(exit::NO_MACHINE)),
    };
    let kept = match KeptMachine::find(source) {
        Ok(kept) => kept,
        Err(Error::NotKept { tests, .. }) => {
            let failure = Failure::from(unknown).code(exit::NO_MACHINE);
            return Err(if tests.is_empty() {
                failure
            } else {
                failure.hint(format!("machines of failed tests are kept of: {}", tests.join(", ")))
            });
        }
        Err(error) => return Err(Failure::from(error).code(exit::NO_MACHINE)),
    };
    eprintln!("quicksand: the machine of {} as it was {}: {}", kept.test(), show::ago(kept.at()), kept.end());
    if let Some(report) = kept.report() {
        eprintln!("quicksand: what is known of it: {}", report.display());
    }
    kept.resume().await.map_err(|error| Failure::from(error).code(exit::NO_MACHINE))
}

async fn converse(sandbox: &Sandbox, args: &ShellArgs) -> Result<ExitStatus> {
    let login = LOGIN.map(str::to_owned);
    let words = if args.command.is_empty() { &login[..] } else { &args.command };
    let mut command = sandbox.command(&words[0]).args(&words[1..]);
    if let Some(user) = &args.user {
        command = command.user(user);
    }
    let (rows, columns) = window();
    let mut terminal = command.pty(rows, columns);
    if let Some(kind) = std::env::var_os("TERM") {
        terminal = terminal.kind(kind);
    }
    let terminal = terminal.spawn().await.map_err(|error| Failure::from(error).code(exit::NOT_RUN))?;
    let _raw = Raw::enter()?;
    let ended = follow(terminal.into_child()).await;
    ended.map_err(|error| Failure::from(error).code(exit::NO_MACHINE))
}

/// Carries what is typed and what is shown until the program has ended.
async fn follow(mut child: Child) -> quicksand_core::Result<ExitStatus> {
    let (input, output) = (child.stdin.take(), child.stdout.take());
    // A read of the terminal can't be given up: it is left behind.
    let typed = tokio::spawn(async move {
        match input {
            Some(input) => pass_on(input).await,
            None => false,
        }
    });
    let shown = tokio::spawn(async move {
        if let Some(mut output) = output {
            let mut terminal = tokio::io::stdout();
            let _ = copy(&mut output, &mut terminal).await;
            let _ = terminal.flush().await;
        }
    });
    let mut resized = signal(SignalKind::window_change()).ok();
    let mut typed = Some(typed);
    let status = loop {
        let leave = async {
            match &mut typed {
                Some(task) => matches!(task.await, Ok(true)),
                None => std::future::pending().await,
            }
        };
        let change = async {
            match &mut resized {
                Some(resized) => resized.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            status = child.wait() => break status?,
            left = leave => {
                typed = None;
                if left {
                    child.kill();
                }
            }
            _ = change => {
                let (rows, columns) = window();
                child.resize(rows, columns);
            }
        }
    };
    let _ = timeout(LAST_WORDS, shown).await;
    Ok(status)
}

/// Passes on what is typed. Returns whether the person wants to leave.
async fn pass_on(mut input: impl AsyncWrite + Unpin) -> bool {
    let is_terminal = stdin().is_terminal();
    let mut typed = tokio::io::stdin();
    let (mut buffer, mut leaving) = ([0; 4096], 0);
    loop {
        let len = typed.read(&mut buffer).await.unwrap_or(0);
        if len == 0 && is_terminal {
            // The terminal is gone, and whoever sat before it.
            return true;
        }
        if len == 0 {
            // What a pipe ends with is what a person would press, and press again: a program takes no notice before it reads.
            while input.write_all(b"\x04").await.is_ok() {
                sleep(END_AGAIN).await;
            }
            return false;
        }
        for &byte in &buffer[..len] {
            leaving = if is_terminal && byte == LEAVE { leaving + 1 } else { 0 };
            if leaving == LEAVE_TIMES {
                return true;
            }
        }
        if input.write_all(&buffer[..len]).await.is_err() {
            return false;
        }
    }
}

/// Rows and columns of our terminal.
fn window() -> (u16, u16) {
    let size = terminal_size::terminal_size_of(stdin()).map(|(columns, rows)| (rows.0, columns.0));
    size.filter(|&(rows, columns)| rows > 0 && columns > 0).unwrap_or(NO_TERMINAL)
}

/// Our terminal in its raw mode, in which every key is the guest's. Dropping this gives it back as it was.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Result<Raw> {
        if !stdin().is_terminal() {
            return Ok(Raw(None));
        }
        let before = tcgetattr(stdin().as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin().as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Raw(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(stdin().as_fd(), SetArg::TCSANOW, before);
        }
    }
}
