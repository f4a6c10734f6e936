//! The server as a process of its own, and as an ordinary user where the tests are run by root.
#![cfg(not(feature = "server"))]

use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, fs::PermissionsExt, net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::{dup, geteuid},
};

/// Nobody, on Debian and its kin.
const ORDINARY: u32 = 65_534;

struct Server {
    process: Child,
    socket: UnixStream,
    user: u32,
}

/// Starts the server for `share`, which is given to its user.
fn start(share: &std::path::Path, program: &std::path::Path) -> Server {
    fs::write(program, quicksand_mounts::BYTES).unwrap();
    fs::set_permissions(program, Permissions::from_mode(0o755)).unwrap();
    let (socket, theirs) = UnixStream::pair().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Copies are inherited, unlike what the standard library opens.
    let inherited: [OwnedFd; 2] = [dup(&theirs).unwrap(), dup(File::open(share).unwrap()).unwrap()];
    drop(theirs);
    let mut command = Command::new(program);
    command.args(inherited.each_ref().map(|fd| fd.as_raw_fd().to_string())).stdin(Stdio::null());
    let mut user = geteuid().as_raw();
    if user == 0 {
        user = ORDINARY;
        std::os::unix::fs::chown(share, Some(user), None).unwrap();
        command.uid(user).gid(user);
    }
    Server { process: command.spawn().unwrap(), socket, user }
}

impl Server {
    /// The reply to a request of the guest's user 1000: its error number and what follows.
    fn call(&mut self, opcode: u32, node: u64, body: &[&[u8]]) -> (i32, Vec<u8>) {
        let body = body.concat();
        let mut message = [40 + body.len() as u32, opcode].map(u32::to_ne_bytes).concat();
        message.extend_from_slice(&[7, node].map(u64::to_ne_bytes).concat());
        message.extend_from_slice(&[1000u32, 1000, 1, 0].map(u32::to_ne_bytes).concat());
        self.socket.write_all(&[message, body].concat()).unwrap();
        let mut header = [0; 16];
        self.socket.read_exact(&mut header).unwrap();
        let word = |at: usize| i32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let mut rest = vec![0; word(0) as usize - 16];
        self.socket.read_exact(&mut rest).unwrap();
        (-word(4), rest)
    }
}

#[test]
fn it_serves_as_its_user_and_ends_with_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let share = directory.path().join("share");
    fs::create_dir(&share).unwrap();
    let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let mut server = start(&share, &directory.path().join("server"));

    let offer = [7u32, 31, 0, !(1 << 30)].map(u32::to_ne_bytes).concat();
    assert_eq!(server.call(26, 0, &[&offer]).0, 0, "INIT");
    let modes = [nix::libc::O_RDWR as u32, 0o664, 0, 0].map(u32::to_ne_bytes).concat();
    let (errno, created) = server.call(35, 1, &[&modes, b"made\0"]);
    assert_eq!(errno, 0, "CREATE");
    // Shown as the asking user's in the guest, and as the server's on the host; with the mode that was asked for, whatever the umask.
    assert_eq!(created[40 + 68..40 + 76], [1000u32; 2].map(u32::to_ne_bytes).concat());
    let made = fs::metadata(share.join("made")).unwrap();
    assert_eq!((made.uid(), made.mode() & 0o777), (server.user, 0o664));
    assert_eq!(server.call(13, 1, &[&created[..8], b"linked\0"]).0, 0, "LINK");
    assert_eq!(fs::metadata(share.join("linked")).unwrap().nlink(), 2);

    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!((field("NoNewPrivs:"), field("Umask:")), (Some("1"), Some("0000")));
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.process.id())).unwrap();
    let open = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let soft: u64 = open.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(soft, before.1.min(65_536), "as many descriptors as it may have");
    assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), before);

    drop(server.socket);
    let begun = Instant::now();
    while server.process.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it stays");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(server.process.wait().unwrap().success());
}
