//! Connections between host and guest without any network: forwarded ports, and ports of the host that the guest was given.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use quicksand::{Child, Error, HOST_NAME, PortForward, Sandbox, StartKind, sandbox_test};

/// Generous: a guest under software emulation on a busy host starts a process for each connection.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server in the guest that sends back what it gets, until its client has no more to say.
async fn echo_server(sb: &Sandbox, address: &str) -> quicksand::Result<Child> {
    server(sb, address, &["cat"]).await
}

/// A server in the guest that runs a program on each connection.
async fn server(sb: &Sandbox, address: &str, program: &[&str]) -> quicksand::Result<Child> {
    let command = sb.command("systemd-socket-activate").args(["--accept", "--inetd", "-l", address]);
    let server = command.args(program.iter().copied()).spawn().await?;
    let listening = format!("until ss -ltnH | grep -qF ' {address} '; do sleep 0.05; done");
    sb.execute(listening).await?.check()?;
    Ok(server)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes back of `bytes`, after our own end is closed.
fn echoed(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let stream = connect(address);
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        (&stream).read_to_end(&mut back)
    })?;
    Ok(back)
}

/// Bytes in which a piece that is lost, doubled or moved shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32 / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[sandbox_test(image = "debian", network = "none")]
async fn a_guest_without_a_network_is_reached(sb: Sandbox) -> quicksand::Result<()> {
    let _server = echo_server(&sb, "127.0.0.1:7000").await?;
    let forward = sb.forward_port(PortForward::new(0, 7000)).await?;
    assert_ne!(forward.host(), 0);
    assert_eq!(sb.port_forwards(), [forward]);

    // Longer than all windows on the way, and the end of one way alone is passed on: the answer comes after it.
    let sent = pattern(3_000_000);
    assert!(echoed(forward.host_address(), &sent).unwrap() == sent);

    // On 127.0.0.1 and no other address.
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], forward.host()));
    assert_eq!(TcpStream::connect(elsewhere).unwrap_err().kind(), ErrorKind::ConnectionRefused);

    // Connections do not wait for each other.
    let open: Vec<TcpStream> = (0..20).map(|_| connect(forward.host_address())).collect();
    for (n, mut stream) in open.iter().enumerate().rev() {
        stream.write_all(format!("{n:02}").as_bytes()).unwrap();
        let mut back = [0; 2];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, *format!("{n:02}").as_bytes());
    }

    // Its end is that of its connections.
    sb.unforward_port(forward);
    assert!(sb.port_forwards().is_empty());
    let left = (&open[0]).read(&mut [0]).map_err(|e| e.kind());
    assert!(matches!(left, Ok(0) | Err(ErrorKind::ConnectionReset)), "{left:?}");
    let begun = Instant::now();
    while TcpStream::connect(forward.host_address()).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it still listens");
    }
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_server_at_the_interface_alone_is_found(sb: Sandbox) -> quicksand::Result<()> {
    let _server = echo_server(&sb, "10.0.2.15:7000").await?;
    let found = sb.forward_port(PortForward::new(0, 7000)).await?;
    assert_eq!(echoed(found.host_address(), b"hello").unwrap(), b"hello");
    // Unless another address is named.
    let named = PortForward::new(0, 7000).guest_address([127, 0, 0, 1].into());
    let named = sb.forward_port(named).await?;
    assert_eq!(echoed(named.host_address(), b"hello").unwrap_err().kind(), ErrorKind::ConnectionReset);
    Ok(())
}

/// A server that says half of it and then resets.
const RESETS: &str = r#"perl -MIO::Socket::INET -e '
    my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:7000", Listen => 5, ReuseAddr => 1) or die;
    $| = 1; print "listening\n";
    my $client = $listener->accept;
    $client->sysread(my $said, 100);
    $client->syswrite("half");
    setsockopt($client, SOL_SOCKET, SO_LINGER, pack("ll", 1, 0));
    close $client;
    sleep 1000;'"#;

#[sandbox_test(image = "debian")]
async fn failures_are_not_taken_for_ends(sb: Sandbox) -> quicksand::Result<()> {
    // Nobody listens.
    let forward = sb.forward_port(PortForward::new(0, 7000)).await?;
    assert_eq!(echoed(forward.host_address(), b"").unwrap_err().kind(), ErrorKind::ConnectionReset);

    let mut resets = sb.command("/bin/sh").args(["-c", RESETS]).spawn().await?;
    let mut word = [0; 10];
    tokio::io::AsyncReadExt::read_exact(resets.stdout.as_mut().unwrap(), &mut word).await.unwrap();
    let mut stream = connect(forward.host_address());
    stream.write_all(b"x").unwrap();
    let mut said = Vec::new();
    assert_eq!(stream.read_to_end(&mut said).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(b"half".starts_with(&said[..]), "{said:?}");

    // And a client of the host's that resets is a reset in the guest: cat would take an end for success.
    let script = "echo > /root/begun; cat > /dev/null; echo $? > /root/how";
    let _server = server(&sb, "127.0.0.1:7001", &["sh", "-c", script]).await?;
    let forward = sb.forward_port(PortForward::new(0, 7001)).await?;
    let mut stream = connect(forward.host_address());
    stream.write_all(b"x").unwrap();
    sb.execute("until [ -e /root/begun ]; do sleep 0.05; done").await?.check()?;
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &at_once).unwrap();
    drop(stream);
    let how = sb.execute("until [ -s /root/how ]; do sleep 0.05; done; cat /root/how").await?;
    assert_eq!(how.stdout, "1\n", "{how:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn forwards_are_there_from_the_start() {
    let builder = || Sandbox::builder("debian").port_forward(PortForward::new(0, 7000));
    let sb = builder().start().await.unwrap();
    let _server = echo_server(&sb, "0.0.0.0:7000").await.unwrap();
    let [forward] = sb.port_forwards()[..] else { panic!("{:?}", sb.port_forwards()) };
    assert_eq!(echoed(forward.host_address(), b"hello").unwrap(), b"hello");

    // Its port is taken now, also by a second forward of the same machine.
    let taken = PortForward::new(forward.host(), 7000);
    assert!(matches!(sb.forward_port(taken).await, Err(Error::Listen { port, .. }) if port == forward.host()));
    let refused = Sandbox::builder("debian").port_forward(taken).start().await;
    assert!(matches!(refused, Err(Error::Listen { .. })), "{refused:?}");
    assert!(matches!(builder().port_forward(PortForward::new(1, 0)).build(), Err(Error::BadOption { .. })));

    // It ends with its machine.
    sb.stop().await.unwrap();
    assert_eq!(TcpStream::connect(forward.host_address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// A server on the host's loopback that says `hello` to the first line of whoever connects, and sends back what follows.
fn greeter() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                let _ = stream.write_all(b"hello\n").and_then(|()| std::io::copy(&mut reader, &mut stream).map(drop));
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

/// What a connection from the guest brings when it sends `input` and closes its way.
async fn from_guest(sb: &Sandbox, port: u16, input: &str) -> quicksand::Result<quicksand::Output> {
    let script = format!(
        r#"use IO::Socket::INET; local $/;
           my $s = IO::Socket::INET->new(PeerAddr => "{HOST_NAME}:{port}", Timeout => 20) or do {{ warn "$!\n"; exit 3 }};
           print $s <STDIN>; shutdown $s, 1; my $all = <$s>; if ($!) {{ warn "$!\n"; exit 4 }} print $all;"#
    );
    sb.command("perl").args(["-e".to_owned(), script]).stdin(input).output().await
}

#[sandbox_test(image = "debian", network = "none")]
async fn named_ports_of_the_host_are_reached_and_no_other(sb: Sandbox) -> quicksand::Result<()> {
    let (port, other) = (greeter(), greeter());
    sb.allow_host_port(port).await?;
    assert_eq!(sb.execute(format!("getent hosts {HOST_NAME}")).await?.stdout, format!("127.20.26.1     {HOST_NAME}\n"));
    assert_eq!(from_guest(&sb, port, "and back").await?.stdout, "hello\nand back");
    let sent: String = (0..400_000).map(|n| format!("{n} ")).collect();
    let back = from_guest(&sb, port, &sent).await?;
    assert!(back.stdout.strip_prefix("hello\n") == Some(&sent), "{} bytes: {}", back.stdout.len(), back.stderr);

    let refused = from_guest(&sb, other, "").await?;
    assert_eq!((refused.exit_code, &*refused.stderr), (3, "Connection refused\n"));
    // A service of the guest's own has the same port on the guest's own loopback.
    let _server = echo_server(&sb, &format!("127.0.0.1:{port}")).await?;
    assert_eq!(from_guest(&sb, port, "").await?.stdout, "hello\n");

    // Twice is once; what is taken away is gone.
    sb.allow_host_port(port).await?;
    sb.disallow_host_port(port).await?;
    let begun = Instant::now();
    while from_guest(&sb, port, "").await?.success() {
        assert!(begun.elapsed() < PATIENCE, "the port is still there");
    }
    assert!(matches!(sb.allow_host_port(0).await, Err(Error::BadOption { .. })));
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn what_the_host_refuses_is_reset(sb: Sandbox) -> quicksand::Result<()> {
    // A port where nobody listens.
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    sb.allow_host_port(port).await?;
    let refused = from_guest(&sb, port, "").await?;
    // At which of its calls the guest's client hears of it is chance.
    assert!(["Connection reset by peer\n", "Broken pipe\n"].contains(&&*refused.stderr), "{refused:?}");

    // A service at all addresses of the guest leaves no room, which is said.
    let _server = echo_server(&sb, "0.0.0.0:7000").await?;
    let error = sb.allow_host_port(7000).await.unwrap_err();
    assert!(error.to_string().contains("listen at 127.20.26.1:7000"), "{error}");
    Ok(())
}

/// The agent listens when its machine is saved, and again in each clone.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_keeps_no_hold_of_a_port() {
    let port = greeter();
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sb = Sandbox::builder("debian").saves_dir(saves.path()).allow_host_port(port).start().await.unwrap();
    assert_eq!(from_guest(&sb, port, "a").await.unwrap().stdout, "hello\na");
    sb.save("with-port").await.unwrap();
    drop(sb);
    for allowed in [true, false] {
        let mut builder = Sandbox::builder("with-port").saves_dir(saves.path());
        if allowed {
            builder = builder.allow_host_port(port);
        }
        let sb = builder.start().await.unwrap();
        assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
        let output = from_guest(&sb, port, "a").await.unwrap();
        assert_eq!(output.success(), allowed, "{output:?}");
    }
}

/// Forwards and host ports are the sandbox's, not its machine's.
#[sandbox_test(image = "debian")]
async fn they_outlast_a_return_to_a_checkpoint_and_a_twin_has_its_own(sb: Sandbox) -> quicksand::Result<()> {
    let port = greeter();
    let _server = echo_server(&sb, "127.0.0.1:7000").await?;
    let forward = sb.forward_port(PortForward::new(0, 7000)).await?;
    sb.allow_host_port(port).await?;
    sb.checkpoint("serving").await?;
    sb.revert("serving").await?;
    assert_eq!(echoed(forward.host_address(), b"again").unwrap(), b"again");
    assert_eq!(from_guest(&sb, port, "").await?.stdout, "hello\n");

    let twin = sb.fork().await?;
    let [own] = twin.port_forwards()[..] else { panic!("{:?}", twin.port_forwards()) };
    assert!(own.host() != forward.host() && own.guest() == forward.guest(), "{own:?}");
    for address in [own.host_address(), forward.host_address()] {
        assert_eq!(echoed(address, b"both").unwrap(), b"both");
    }
    assert_eq!(from_guest(&twin, port, "").await?.stdout, "hello\n");
    Ok(())
}
