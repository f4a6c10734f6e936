//! Terminals for programs that are run for the host: a pseudo-terminal, whose one end is the program's and the other ours.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Command,
};

use nix::{
    fcntl::{OFlag, open},
    libc,
    mount::{MsFlags, mount},
    pty::{Winsize, grantpt, posix_openpt, ptsname_r, unlockpt},
    sys::{
        stat::Mode,
        termios::{InputFlags, SetArg, tcgetattr, tcsetattr},
    },
    unistd::{Uid, fchown},
};
use quicksand_protocol::message::Window;

use crate::{keeper::Births, users::User};

/// What a terminal types where its input has ended: the end of a file, Ctrl-D.
const END_OF_FILE: u8 = 4;

/// A terminal whose program has not started yet.
#[derive(Debug)]
pub(crate) struct Terminal {
    ours: OwnedFd,
    programs: OwnedFd,
    births: Births,
}

impl Terminal {
    /// Makes a terminal of that size for that user.
    pub(crate) fn open(window: Window, user: &User) -> io::Result<Terminal> {
        let opened = pair().or_else(|_| {
            // An image without an init of its own has nobody else who does this.
            fs::create_dir_all("/dev/pts")?;
            let options = Some("gid=5,mode=620,ptmxmode=666");
            mount(Some("devpts"), "/dev/pts", Some("devpts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, options)?;
            pair()
        });
        let (ours, programs) = opened?;
        resize(&ours, window)?;
        let mut settings = tcgetattr(&programs)?;
        // Else erasing a letter of two bytes would erase half of it.
        settings.input_flags |= InputFlags::IUTF8;
        tcsetattr(&programs, SetArg::TCSANOW, &settings)?;
        // A program may open its terminal by name.
        fchown(&programs, Some(Uid::from_raw(user.uid)), None)?;
        Ok(Terminal { ours, programs, births: Births::new()? })
    }

    /// Makes this the program's terminal, with all of its streams and the keys that send signals.
    pub(crate) fn give_to(&self, command: &mut Command) -> io::Result<()> {
        let end = || self.programs.try_clone();
        command.stdin(end()?).stdout(end()?).stderr(end()?);
        self.births.announce(command)
    }

    /// Our end, and who tells of the program. The program's end is closed here, so that reading ours tells when the last program has
    /// closed it.
    pub(crate) fn into_ours(self) -> (File, Births) {
        (self.ours.into(), self.births)
    }
}

/// Both ends of a new terminal. No program inherits them: `openpty` would leave them open in every one that begins, which then
/// never hears that its terminal is gone.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let ours = posix_openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let programs = open(&*ptsname_r(&ours)?, flags, Mode::empty())?;
    Ok((ours.into(), programs))
}

/// Types what the host sends, and the end of a file where that ends.
pub(crate) fn feed(mut input: impl io::Read, mut terminal: File) -> io::Result<()> {
    io::copy(&mut input, &mut terminal)?;
    io::Write::write_all(&mut terminal, &[END_OF_FILE])
}

/// Changes a terminal's size, which its programs are told with a signal.
#[allow(unsafe_code)]
pub(crate) fn resize(terminal: &impl AsFd, window: Window) -> io::Result<()> {
    nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, Winsize);
    let size = winsize(window);
    // SAFETY: TIOCSWINSZ reads one `winsize`, which is there.
    unsafe { set_size(terminal.as_fd().as_raw_fd(), &size) }?;
    Ok(())
}

fn winsize(window: Window) -> Winsize {
    Winsize { ws_row: window.rows, ws_col: window.cols, ws_xpixel: 0, ws_ypixel: 0 }
}
