//! Who leads the session of a program on a terminal.
//!
//! The kernel ends whatever is in a terminal's foreground when the leader of its session ends. The filters of a script, as in
//! `exec > >(tee log)`, have not written its last lines by then. So the program leads a process group of its own in the foreground, and
//! the session is led by a keeper: a process of ours that does nothing, and that is ended once the program's output has come through.
//!
//! Both are children of the agent, and not the one of the other: a program whose parent is in its session could be stopped by Ctrl-Z,
//! and nobody would be there to continue it.

use std::{
    io::{self, PipeReader, PipeWriter, Read},
    os::{fd::BorrowedFd, unix::process::CommandExt},
    process::{Child, Command},
};

use nix::{
    errno::Errno,
    libc,
    sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    unistd::{Pid, chdir, getpid, pause, setpgid, setsid, tcsetpgrp, write},
};

use crate::{
    limits,
    session::{self, Program},
};

/// Tells who was started, by process number: the keeper, and then the program.
#[derive(Debug)]
pub(crate) struct Births {
    told: PipeReader,
    tell: PipeWriter,
}

impl Births {
    pub(crate) fn new() -> io::Result<Births> {
        let (told, tell) = io::pipe()?;
        Ok(Births { told, tell })
    }

    /// Has the program, whose standard input is to be a terminal, start with a keeper. The process that is spawned starts the keeper
    /// and ends, and the keeper starts the program.
    #[allow(unsafe_code)]
    pub(crate) fn announce(&self, command: &mut Command) -> io::Result<()> {
        let tell = self.tell.try_clone()?;
        let enter = move || {
            if fork_beside()? != 0 {
                // SAFETY: ends the process without running anything of the agent's.
                unsafe { libc::_exit(0) };
            }
            tell_of(&tell, getpid())?;
            setsid()?;
            // SAFETY: TIOCSCTTY takes a number; standard input is the terminal by now.
            Errno::result(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) })?;
            match fork_beside()? {
                0 => take_the_foreground().map_err(io::Error::from),
                program => {
                    // Who is not told ends both.
                    let _ = tell_of(&tell, Pid::from_raw(program));
                    keep()
                }
            }
        };
        // SAFETY: runs in children between fork and exec, where only async-signal-safe calls are allowed: these are system calls on
        // values made before the fork; nothing is allocated or locked.
        unsafe {
            command.pre_exec(enter);
        }
        Ok(())
    }

    /// The program that was spawned so. Where that failed, nothing of it is left. The command must have been dropped.
    pub(crate) fn program(self, spawned: io::Result<Child>) -> io::Result<Program> {
        let Births { mut told, tell } = self;
        // Else the end of what is told would not come.
        drop(tell);
        let spawned = spawned.and_then(|mut child| child.wait());
        let (mut born, mut pid) = (Vec::new(), [0; 4]);
        while told.read_exact(&mut pid).is_ok() {
            born.push(Pid::from_raw(i32::from_ne_bytes(pid)));
        }
        match (spawned, &born[..]) {
            (Ok(_), &[leader, pid]) => Ok(Program { pid, leader }),
            (spawned, _) => {
                born.into_iter().for_each(session::put_away);
                Err(spawned.err().unwrap_or_else(|| io::Error::other("it was killed before it had begun")))
            }
        }
    }
}

/// Forks, to a child of the parent. Returns 0 in there.
#[allow(unsafe_code)]
fn fork_beside() -> nix::Result<i32> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: as fork does it, with another parent. No memory is shared, and the arguments that are 0 ask for nothing.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) })?;
    Ok(pid as i32)
}

fn tell_of(tell: &PipeWriter, pid: Pid) -> nix::Result<()> {
    write(tell, &pid.as_raw().to_ne_bytes()).map(drop)
}

/// Makes the calling process the leader of the group that the terminal's keys send signals to.
#[allow(unsafe_code)]
fn take_the_foreground() -> nix::Result<()> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    // What is not in the foreground is stopped for such a change, unless it wants to hear nothing of that.
    let stop = SigSet::from(Signal::SIGTTOU);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stop), None)?;
    // SAFETY: standard input is the terminal, and stays open.
    let terminal = unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) };
    tcsetpgrp(terminal, getpid())?;
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&stop), None)
}

/// Does nothing until it is killed. It keeps neither a directory nor a descriptor of the agent's or the program's, so that no file
/// system is busy and no pipe open on its account.
fn keep() -> ! {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
    let _ = chdir(c"/");
    close_all();
    loop {
        pause();
    }
}

#[allow(unsafe_code)]
fn close_all() {
    // SAFETY: the process goes on without any descriptor, and owns nothing that has one.
    unsafe {
        // Kernels before 5.9 have no such call.
        if libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) != 0 {
            for descriptor in 0..limits::OWN_FILES {
                libc::close(descriptor as i32);
            }
        }
    }
}
