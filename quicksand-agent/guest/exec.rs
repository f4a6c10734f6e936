//! Running a program for the host.

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::Child,
    sync::Arc,
    thread,
};

use nix::unistd::Pid;
use quicksand_protocol::message::{Exec, Exit, Failure, stream};

use crate::{
    operation::Operation,
    output::Pumps,
    pipe::Pipe,
    serve::STACK,
    session::Program,
    start,
    terminal::{self, Terminal},
    users,
};

/// Runs a program until it ends.
pub(crate) fn run(exec: Exec, operation: &Arc<Operation>) -> Result<Exit, Failure> {
    let user = users::find(exec.user.as_deref().unwrap_or(b"root"))?;
    let feed = exec.stdin;
    let name = exec.argv.first().map(|arg| String::from_utf8_lossy(arg).into_owned()).unwrap_or_default();
    let failed = |what: &str, error: &io::Error| Failure {
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("{what} {name:?}: {error}"),
    };
    let terminal = exec.terminal.map(|window| Terminal::open(window, &user)).transpose();
    let terminal = terminal.map_err(|error| failed("make a terminal for", &error))?;
    let mut command = start::command(exec, &user, terminal.as_ref()).map_err(|error| failed("run", &error))?;
    let spawned = command.spawn();
    let missing = spawned.as_ref().err().and_then(|_| start::missing_directory(&command));
    // With it go its copies of the terminal.
    drop(command);
    let started = match terminal {
        Some(terminal) => {
            let (ours, births) = terminal.into_ours();
            births.program(spawned).map(|program| (program, Streams::terminal(ours, operation)))
        }
        None => spawned.map(|mut child| {
            let pid = Pid::from_raw(child.id() as i32);
            (Program { pid, leader: pid }, Ok(Streams::pipes(&mut child)))
        }),
    };
    let (program, streams) = started.map_err(|error| match missing {
        Some((directory, error)) => failed(&format!("enter {} for", directory.display()), &error),
        None => failed("run", &error),
    })?;
    operation.set_program(program);

    let result = streams.and_then(|streams| follow(streams, program, feed, operation));
    operation.forget_program();
    let status = program.reap();
    operation.close_input();
    result.and(status).map(exit_of).map_err(|error| failed("follow", &error))
}

/// Our ends of a program's streams.
#[derive(Debug)]
struct Streams {
    input: Option<Feed>,
    outputs: Vec<(File, u8)>,
}

#[derive(Debug)]
enum Feed {
    Pipe(File),
    Terminal(File),
}

impl Streams {
    fn pipes(child: &mut Child) -> Streams {
        let outputs: [(Option<OwnedFd>, u8); 2] = [
            (child.stdout.take().map(OwnedFd::from), stream::STDOUT),
            (child.stderr.take().map(OwnedFd::from), stream::STDERR),
        ];
        let outputs = outputs.into_iter().filter_map(|(source, number)| Some((File::from(source?), number))).collect();
        let input = child.stdin.take().map(|stdin| Feed::Pipe(OwnedFd::from(stdin).into()));
        Streams { input, outputs }
    }

    fn terminal(ours: File, operation: &Operation) -> io::Result<Streams> {
        let input = Some(Feed::Terminal(ours.try_clone()?));
        operation.set_terminal(ours.try_clone()?);
        Ok(Streams { input, outputs: vec![(ours, stream::STDOUT)] })
    }
}

/// Carries the streams until the program has ended, and what is on its way by then. Leaves it unreaped, so that its number stays its
/// own.
fn follow(streams: Streams, program: Program, feed: bool, operation: &Arc<Operation>) -> io::Result<()> {
    let input = match &streams.input {
        Some(Feed::Pipe(pipe)) => Pipe::of(pipe),
        _ => None,
    };
    let pumps = Pumps::start(streams.outputs, input, operation)?;
    if let (true, Some(to)) = (feed, streams.input) {
        let mut input = operation.input();
        // Not joined: it ends when the host closes the stream, or the program its end of the pipe.
        thread::Builder::new().stack_size(STACK).spawn(move || match to {
            Feed::Pipe(mut pipe) => io::copy(&mut input, &mut pipe).map(drop),
            Feed::Terminal(terminal) => terminal::feed(input, terminal),
        })?;
    }
    program.await_end()?;
    pumps.await_tail(program, operation);
    program.hang_up();
    pumps.stop();
    Ok(())
}

fn exit_of(status: std::process::ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}
