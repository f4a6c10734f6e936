//! How a program of the host's begins: its streams, its environment, its limits and whose it is.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStringExt, process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
    unistd::{Gid, Uid, setgid, setgroups, setuid, write},
};
use quicksand_protocol::message::Exec;

use crate::{environment, limits, session, terminal::Terminal, users::User};

/// What is to be run, ready to be.
pub(crate) fn command(exec: Exec, user: &User, terminal: Option<&Terminal>) -> io::Result<Command> {
    let os = OsString::from_vec;
    let mut argv = exec.argv.into_iter().map(os);
    let program = argv.next().ok_or_else(|| io::Error::other("there is no program"))?;
    let kind = terminal.map(|_| exec.terminal_kind.as_deref().unwrap_or_default());
    let mut command = Command::new(program);
    command
        .args(argv)
        .env_clear()
        .envs(environment::of(user, kind))
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
    become_ordinary(&mut command, user);
    Ok(command)
}

/// The directory that a program was to begin in, where that is what keeps it from running: its error could as well be of the program.
pub(crate) fn missing_directory(command: &Command) -> Option<(PathBuf, io::Error)> {
    let directory = command.get_current_dir()?;
    let found = fs::metadata(directory).and_then(|metadata| match metadata.is_dir() {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(nix::libc::ENOTDIR)),
    });
    Some((directory.to_owned(), found.err()?))
}

/// Takes from the program what is the agent's alone, and gives it the user's identity, with the supplementary groups that the
/// standard library can't set.
#[allow(unsafe_code)]
fn become_ordinary(command: &mut Command, user: &User) {
    let limits = limits::of_programs();
    let identity = (!user.is_plain_root())
        .then(|| (user.groups.iter().copied().map(Gid::from_raw).collect::<Vec<_>>(), user.gid, user.uid));
    let enter = move || {
        // The agent's own protection from the guest's memory pressure. A guest without /proc gets along with it.
        if let Ok(file) = open(c"/proc/self/oom_score_adj", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) {
            let _ = write(file, b"0");
        }
        for limit in &limits {
            // More than the guest's kernel allows, by a setting of the guest's own, is refused: then it stays at what the agent has.
            let _ = limit.take();
        }
        if let Some((groups, gid, uid)) = &identity {
            // Groups first: without root they can't be set. The standard library's own `uid` would come before this.
            setgroups(groups)?;
            setgid(Gid::from_raw(*gid))?;
            setuid(Uid::from_raw(*uid))?;
        }
        Ok(())
    };
    // SAFETY: runs in the child between fork and exec, where only async-signal-safe calls are allowed: these are system calls on
    // values made before the fork; nothing is allocated or locked.
    unsafe {
        command.pre_exec(enter);
    }
}
