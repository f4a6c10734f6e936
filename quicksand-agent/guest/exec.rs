//! Running a program for the host.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStringExt, process::CommandExt, process::ExitStatusExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use nix::{
    sys::wait::{Id, WaitPidFlag, waitid},
    unistd::{Gid, Pid},
};
use quicksand_protocol::message::{Exec, Exit, Failure, stream};

use crate::{
    operation::Operation,
    output::Pumps,
    serve::STACK,
    session,
    tail::{self, Tail},
    terminal::{self, Terminal},
    users::{self, User},
};

/// What every program finds in its environment unless the host sets it: the same in each guest and from run to run, so that
/// its output can be compared.
pub(crate) const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C.UTF-8")];
/// The same for one without a terminal, which nobody answers.
const UNATTENDED: [(&str, &str); 4] = [
    ("TERM", "dumb"),
    // Of a wide terminal: what is cut off is lost to a test, while what is not wrapped is only long.
    ("COLUMNS", "200"),
    ("LINES", "50"),
    ("DEBIAN_FRONTEND", "noninteractive"),
];
/// The same for one with a terminal: the kind that every image knows which knows more than one.
const ATTENDED: [(&str, &str); 1] = [("TERM", "xterm-256color")];
/// Runs a program until it ends.
pub(crate) fn run(exec: Exec, operation: &Arc<Operation>) -> Result<Exit, Failure> {
    let user = users::find(exec.user.as_deref().unwrap_or(b"root"))?;
    let feed = exec.stdin;
    let program = exec.argv.first().map(|arg| String::from_utf8_lossy(arg).into_owned()).unwrap_or_default();
    let failed = |what: &str, error: &io::Error| Failure {
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("{what} {program:?}: {error}"),
    };
    let terminal = exec.terminal.map(|window| Terminal::open(window, &user)).transpose();
    let terminal = terminal.map_err(|error| failed("make a terminal for", &error))?;
    let mut command = command(exec, &user, terminal.as_ref()).map_err(|error| failed("run", &error))?;
    let mut child = command.spawn().map_err(|error| match missing_directory(&command) {
        Some((directory, error)) => failed(&format!("enter {} for", directory.display()), &error),
        None => failed("run", &error),
    })?;
    // With it go its copies of the terminal.
    drop(command);
    let streams = match terminal {
        Some(terminal) => Streams::terminal(terminal.into_ours(), operation),
        None => Ok(Streams::pipes(&mut child)),
    };
    let pid = Pid::from_raw(child.id() as i32);
    operation.set_leader(pid);
    // The agent's own protection from the guest's memory pressure is not for what it runs.
    let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), "0");

    let result = streams.and_then(|streams| follow(streams, pid, feed, operation));
    operation.forget_leader();
    let status = child.wait();
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
fn follow(streams: Streams, pid: Pid, feed: bool, operation: &Arc<Operation>) -> io::Result<()> {
    let pumps = Pumps::start(streams.outputs, operation)?;
    if let (true, Some(to)) = (feed, streams.input) {
        let mut input = operation.input();
        // Not joined: it ends when the host closes the stream, or the program its end of the pipe.
        thread::Builder::new().stack_size(STACK).spawn(move || match to {
            Feed::Pipe(mut pipe) => io::copy(&mut input, &mut pipe).map(drop),
            Feed::Terminal(terminal) => terminal::feed(input, terminal),
        })?;
    }
    while let Err(error) = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
        if error != nix::errno::Errno::EINTR {
            return Err(error.into());
        }
    }
    let mut tail = Tail::of(pid);
    while !pumps.have_ended_within(tail::STEP) && operation.is_wanted() && pumps.await_more(&mut tail) {}
    pumps.stop();
    Ok(())
}

fn command(exec: Exec, user: &User, terminal: Option<&Terminal>) -> io::Result<Command> {
    let os = OsString::from_vec;
    let mut argv = exec.argv.into_iter().map(os);
    let program = argv.next().ok_or_else(|| io::Error::other("there is no program"))?;
    let mut command = Command::new(program);
    command
        .args(argv)
        .env_clear()
        .envs(ENVIRONMENT)
        .envs(if terminal.is_some() { &ATTENDED[..] } else { &UNATTENDED }.iter().copied())
        .env("HOME", &user.home)
        .env("USER", &user.name)
        .env("LOGNAME", &user.name)
        .env("SHELL", &user.shell)
        .envs(exec.env.into_iter().map(|(name, value)| (os(name), os(value))));
    match terminal {
        Some(terminal) => terminal.give_to(&mut command)?,
        None => {
            let input = if exec.stdin { Stdio::piped() } else { Stdio::null() };
            command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
            session::lead(&mut command);
        }
    }
    match exec.current_dir {
        Some(directory) => command.current_dir(os(directory)),
        None if user.home.is_dir() => command.current_dir(&user.home),
        None => command.current_dir("/"),
    };
    if user.uid != 0 {
        become_user(&mut command, user);
    }
    Ok(command)
}

/// The directory that a program was to begin in, where that is what keeps it from running: its error could as well be of the program.
fn missing_directory(command: &Command) -> Option<(&Path, io::Error)> {
    let directory = command.get_current_dir()?;
    let found = fs::metadata(directory).and_then(|metadata| match metadata.is_dir() {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(nix::libc::ENOTDIR)),
    });
    Some((directory, found.err()?))
}

/// Gives the program the user's identity, with the supplementary groups that the standard library can't set.
#[allow(unsafe_code)]
fn become_user(command: &mut Command, user: &User) {
    let (groups, uid, gid) = (user.groups.iter().copied().map(Gid::from_raw).collect::<Vec<_>>(), user.uid, user.gid);
    let enter = move || {
        // Groups first: without root they can't be set. The standard library's own `uid` would come before this.
        nix::unistd::setgroups(&groups)?;
        nix::unistd::setgid(Gid::from_raw(gid))?;
        nix::unistd::setuid(nix::unistd::Uid::from_raw(uid))?;
        Ok(())
    };
    // SAFETY: runs in the child between fork and exec, where only async-signal-safe calls are allowed: these are three system
    // calls on values made before the fork; nothing is allocated or locked.
    unsafe {
        command.pre_exec(enter);
    }
}

fn exit_of(status: std::process::ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}
