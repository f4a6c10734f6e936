//! `quicksand shell` on a real terminal, and without one.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::{Winsize, openpty},
    sys::termios::{LocalFlags, tcgetattr},
};

/// How long a machine may take to do what is asked of it, on a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with `quicksand shell` on it.
struct Terminal {
    child: Child,
    keys: File,
    /// The other end, by which its settings are seen after the program.
    device: File,
    shown: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn open(arguments: &[&str]) -> Terminal {
        let size = Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let device = File::from(pair.slave);
        let stdio = || Stdio::from(device.try_clone().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_quicksand"))
            .args(["shell", "debian", "--quiet"])
            .args(arguments)
            .env("TERM", "xterm")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let keys = File::from(pair.master);
        let (mut output, (sender, shown)) = (keys.try_clone().unwrap(), channel());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        Terminal { child, keys, device, shown, seen: String::new() }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until that is shown, and takes it with all before it.
    fn see(&mut self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let piece = self.shown.recv_timeout(left).unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.seen));
            self.seen += &String::from_utf8_lossy(&piece);
        }
    }

    fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end; it showed {:?}", self.seen);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // After an end as it should be there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_login_shell_with_its_size_its_keys_and_its_code() {
    let mut terminal = Terminal::open(&[]);
    terminal.see("# ");
    terminal.press("stty size; echo $TERM; id -un\r");
    terminal.see("33 99\r\nxterm\r\nroot\r\n");
    // It has the foreground when it says so.
    terminal.press("sh -c 'echo g\"\"o; exec sleep 1000'\r");
    terminal.see("go\r\n");
    terminal.press("\x03");
    // Ctrl-C was the guest's: its shell is there, and so are we.
    terminal.see("# ");
    terminal.press("echo st''ill; exit 4\r");
    terminal.see("still");
    assert_eq!(terminal.end().code(), Some(4));
    let flags = tcgetattr(&terminal.device).unwrap().local_flags;
    assert!(flags.contains(LocalFlags::ECHO | LocalFlags::ICANON), "the terminal is given back as it was");
}

#[test]
fn a_guest_that_does_not_answer_can_be_left() {
    let mut terminal = Terminal::open(&["--", "sh", "-c", "trap '' INT QUIT TSTP; echo deaf; exec sleep 1000"]);
    terminal.see("deaf");
    terminal.press("\x03\x1d\x1d\x1d");
    assert_eq!(terminal.end().code(), Some(137));
}

#[test]
fn a_terminal_that_goes_takes_its_machine_along() {
    let pair = openpty(None, None).unwrap();
    let (mut keys, device) = (File::from(pair.master), File::from(pair.slave));
    // Else the program would hold its own terminal open.
    fcntl(&keys, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    let stdio = || Stdio::from(device.try_clone().unwrap());
    let mut child = Command::new(env!("CARGO_BIN_EXE_quicksand"))
        .args(["shell", "debian", "--quiet", "--", "sh", "-c", "echo up; exec sleep 1000"])
        .stdin(stdio())
        .stdout(stdio())
        .stderr(stdio())
        .spawn()
        .unwrap();
    drop(device);
    let (mut seen, mut buffer) = (Vec::new(), [0; 256]);
    while !seen.windows(2).any(|word| word == b"up") {
        let len = keys.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..len]);
    }
    drop(keys);
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it goes on without a terminal");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn without_a_terminal_its_lines_come_from_a_pipe() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_quicksand"))
        .args(["shell", "debian", "--quiet", "--user", "nobody", "--", "sh"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"id -un; tty; stty size\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("nobody\r\n/dev/pts/") && said.contains("\r\n24 80\r\n"), "{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[test]
fn a_terminal_is_of_a_kind_that_the_guest_knows() {
    for (kind, expected) in
        [(Some("xterm-ghostty"), "xterm-256color"), (Some("dumb"), "dumb"), (None, "xterm-256color")]
    {
        let mut shell = Command::new(env!("CARGO_BIN_EXE_quicksand"));
        shell.args(["shell", "debian", "--quiet", "--", "sh", "-c", "echo is $TERM; tput cols; ulimit -Hn"]);
        match kind {
            Some(kind) => shell.env("TERM", kind),
            None => shell.env_remove("TERM"),
        };
        let output = shell.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, format!("is {expected}\r\n80\r\n524288\r\n"), "{kind:?}");
    }
}

#[test]
fn a_login_shell_whose_input_has_ended_ends() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_quicksand"))
        .args(["shell", "debian", "--quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it waits for more");
        }
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0));
}
