//! What a guest reaches in each network mode, and that one warm state serves all of them.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quicksand::{HOST_NAME, NetworkMode, Output, Sandbox, StartKind, sandbox_test};

/// How soon after its owner's end a passt must be gone.
const SOON: Duration = Duration::from_secs(30);

/// A server at an address of the host that greets whoever connects.
fn greeter(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.0 200 OK\r\n\r\nhello from the host\n");
        }
    });
    port
}

async fn fetch(sb: &Sandbox, host: &str, port: u16) -> quicksand::Result<Output> {
    sb.execute(format!("curl -sS --max-time 10 http://{host}:{port}/")).await
}

/// The name of a host that there is, as the guest's shell finds it: where its packages come from.
const MIRROR: &str = r#""$(sed -n 's|^deb [^/]*//\([^/ ]*\).*|\1|p' /etc/apt/sources.list | head -n 1)""#;

#[sandbox_test(image = "debian", network = "none")]
async fn none_has_no_interface(sb: Sandbox) -> quicksand::Result<()> {
    assert_eq!(sb.execute("ls /sys/class/net").await?.stdout, "lo\n");
    assert_eq!(sb.network_warning(), None);
    Ok(())
}

#[sandbox_test(image = "debian", network = "mounts-only")]
async fn mounts_only_reaches_nothing(sb: Sandbox) -> quicksand::Result<()> {
    let port = greeter(Ipv4Addr::LOCALHOST);
    assert_eq!(sb.execute("ls /sys/class/net | wc -l").await?.stdout, "2\n");
    assert_eq!(sb.execute("ip -4 route show default").await?.stdout, "");
    // Not even a neighbour answers, and there is nobody to ask for a name, also for a guest that asks for more than it was given.
    sb.execute("ip route add default via 10.0.2.2; echo nameserver 10.0.2.3 > /etc/resolv.conf").await?.check()?;
    let output = fetch(&sb, "10.0.2.2", port).await?;
    assert!(!output.success() && output.stdout.is_empty(), "{output:?}");
    assert!(!sb.execute(format!("timeout 10 getent ahostsv4 {MIRROR}")).await?.success());
    let neighbours = sb.execute("ip neigh show nud reachable").await?;
    assert_eq!(neighbours.stdout, "");
    // A card that nobody takes anything from does not fill up.
    let flood = r#"perl -MIO::Socket::INET -e '
        my $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => "10.0.2.255:9", Broadcast => 1) or die $!;
        $s->send("x" x 1000) // die $! for 1 .. 3000; print "sent"'"#;
    assert_eq!(sb.execute(flood).await?.stdout, "sent");
    assert_eq!(sb.network_warning(), None);
    Ok(())
}

fn passt_is_here() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::var_os("QUICKSAND_PASST").is_none() && std::env::split_paths(&path).any(|dir| dir.join("passt").is_file())
}

/// A frame with a UDP packet in it, sent by hand to an address where the guest's own kernel would never send it.
fn by_hand(address: Ipv4Addr, port: u16) -> String {
    let script = r#"
        my ($to, $port) = @ARGV;
        my ($name) = map { m{/net/(en\w+|eth\w+)$} ? $1 : () } glob "/sys/class/net/*";
        my $line = sub { open my $f, "<", "/sys/class/net/$name/$_[0]" or die; my $l = <$f>; chomp $l; $l };
        my $mac = pack "H12", $line->("address") =~ s/://gr;
        my $gateway = pack "H12", "52550a000202";
        my $sum = sub { my $s = 0; $s += $_ for unpack "n*", $_[0]; $s = ($s & 0xffff) + ($s >> 16) while $s > 0xffff; ~$s & 0xffff };
        my $payload = "by hand!";
        my $ip = pack "CCnnnCCna4a4", 0x45, 0, 28 + length $payload, 7, 0, 64, 17, 0, pack("C4", 10, 0, 2, 15), pack("C4", split /\./, $to);
        substr $ip, 10, 2, pack "n", $sum->($ip);
        my $frame = $gateway . $mac . pack("n", 0x0800) . $ip . pack("nnnn", 4444, $port, 8 + length $payload, 0) . $payload;
        socket my $s, 17, 3, 0x0300 or die $!;
        send($s, $frame, 0, pack "SnlSCCa8", 17, 0x0800, $line->("ifindex"), 1, 0, 6, $gateway) == length $frame or die $!;"#;
    format!("perl -e '{script}' {address} {port}")
}

/// How many packets of the guest's were refused.
async fn refusals(sb: &Sandbox) -> quicksand::Result<u64> {
    let counters = "awk '/^Icmp:/ { if (n++) print $5 }' /proc/net/snmp";
    Ok(sb.execute(counters).await?.stdout.trim().parse().unwrap_or_default())
}

/// With passt, nothing of this host but what is named to the guest.
#[sandbox_test(image = "debian", network = "full", timeout = "300s")]
async fn full_reaches_out_and_not_the_host(sb: Sandbox) -> quicksand::Result<()> {
    assert_eq!(sb.execute("cat /etc/resolv.conf").await?.stdout, "nameserver 10.0.2.3\n");
    // A mirror may hiccup.
    let install = "for n in 1 2 3; do apt-get -o Acquire::Languages=none update && \
                   apt-get install -y --no-install-recommends hello && exec hello; sleep 5; done";
    let installed = sb.execute(install).await?;
    assert!(installed.success() && installed.stdout.ends_with("Hello, world!\n"), "{installed:?}");

    let port = greeter(Ipv4Addr::LOCALHOST);
    if !passt_is_here() {
        assert!(sb.network_warning().unwrap().contains("10.0.2.2"));
        return Ok(());
    }
    assert_eq!(sb.network_warning(), None);
    for host in ["10.0.2.2", "10.0.2.3", "10.0.2.15"] {
        let output = fetch(&sb, host, port).await?;
        assert!(!output.success() && output.stdout.is_empty(), "{host}: {output:?}");
    }
    // Nor by the host's address on its own network, where a server listens at all addresses.
    let everywhere = greeter(Ipv4Addr::UNSPECIFIED);
    let own = UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| socket.connect("192.0.2.1:9").and(socket.local_addr()));
    let own = own.unwrap().ip().to_string();
    let output = fetch(&sb, &own, everywhere).await?;
    assert!(!output.success() && output.stdout.is_empty(), "{own}: {output:?}");

    // passt would take these packets to the host's loopback.
    let server = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    for address in [[127, 0, 0, 1], [0, 0, 0, 0]] {
        let before = refusals(&sb).await?;
        sb.execute(by_hand(address.into(), server.local_addr().unwrap().port())).await?.check()?;
        assert_eq!(server.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock, "{address:?}");
        // It did get as far as our filter.
        assert_eq!(refusals(&sb).await?, before + 1, "{address:?}");
    }

    sb.allow_host_port(port).await?;
    let output = fetch(&sb, HOST_NAME, port).await?;
    assert_eq!((&*output.stdout, &*output.stderr), ("hello from the host\n", ""));
    Ok(())
}

/// What this program does when it is run as a child of one of the tests.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the other tests in a process of its own"]
async fn child() {
    let saves = std::env::var("NETWORK_SAVES").unwrap();
    let source = std::env::var("NETWORK_SOURCE").unwrap();
    let full = Sandbox::builder(source).saves_dir(&saves).network_mode(NetworkMode::Full);
    let sb = full.start().await.unwrap();
    match std::env::var("NETWORK_THEN").unwrap().as_str() {
        // QEMU's own network, which leads here.
        "user" => {
            let warning = sb.network_warning().unwrap();
            assert!(
                warning.contains("10.0.2.2") && warning.contains("there is no program /nowhere/passt"),
                "{warning}"
            );
            let port = greeter(Ipv4Addr::LOCALHOST);
            assert_eq!(fetch(&sb, "10.0.2.2", port).await.unwrap().stdout, "hello from the host\n");
            assert_eq!(sb.execute("cat /etc/resolv.conf").await.unwrap().stdout, "nameserver 10.0.2.3\n");
            sb.save("by-user").await.unwrap();
        }
        _ => {
            println!("runs");
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
    }
}

fn start_child(source: &str, saves: &Path, then: &str, passt: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .envs([("NETWORK_SOURCE", source), ("NETWORK_THEN", then), ("NETWORK_SAVES", saves.to_str().unwrap())])
        .env("QUICKSAND_PASST", passt)
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap()
}

fn saves() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The state of QEMU's own network is in a save, which starts with any other all the same, and the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_is_of_no_network() {
    let saves = saves();
    let output = start_child("debian", saves.path(), "user", "/nowhere/passt").wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for mode in [NetworkMode::None, NetworkMode::MountsOnly, NetworkMode::Full] {
        let sb = Sandbox::builder("by-user").saves_dir(saves.path()).network_mode(mode).start().await.unwrap();
        assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm, "{mode:?}: {:?}", sb.start_report());
        let interfaces = if mode == NetworkMode::None { "1\n" } else { "2\n" };
        assert_eq!(sb.execute("ls /sys/class/net | wc -l").await.unwrap().stdout, interfaces);
        let name = sb.execute(format!("timeout 20 getent ahostsv4 {MIRROR}")).await.unwrap();
        assert_eq!(name.success(), mode == NetworkMode::Full, "{mode:?}: {name:?}");
        if mode == NetworkMode::Full {
            sb.save("by-any").await.unwrap();
        }
    }
    let output = start_child("by-any", saves.path(), "user", "/nowhere/passt").wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The processes named passt that a process has started.
fn passts_of(owner: u32) -> Vec<u32> {
    let children = |pid: u32| -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
        lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
    };
    children(owner).into_iter().filter(|&pid| is_passt(pid)).collect()
}

fn is_passt(pid: u32) -> bool {
    // It runs the variant for the processor at hand, as in passt.avx2. A zombie has no command line.
    fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split('\0').next().unwrap().contains("passt"))
}

#[test]
fn passt_holds_nothing_of_ours_and_dies_with_us() {
    if !passt_is_here() {
        return;
    }
    let saves = saves();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut owner = start_child("debian", saves.path(), "sleep", "");
        let mut output = BufReader::new(owner.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("runs") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended early");
        }
        let passts = passts_of(owner.id());
        assert_eq!(passts.len(), 1);
        for entry in fs::read_dir(format!("/proc/{}/fd", passts[0])).unwrap() {
            let path = entry.unwrap().path();
            let Ok(target) = fs::read_link(&path) else { continue };
            let allowed =
                ["/dev/null", "anon_inode:", "socket:", "pipe:"].iter().any(|start| target.starts_with(start))
                    || target.to_string_lossy().starts_with("socket:")
                    || target.to_string_lossy().starts_with("anon_inode:")
                    || target.ends_with("passt.log");
            assert!(allowed, "passt holds {}", target.display());
        }
        kill(Pid::from_raw(owner.id() as i32), signal).unwrap();
        owner.wait().unwrap();
        let begun = Instant::now();
        while is_passt(passts[0]) {
            assert!(begun.elapsed() < SOON, "passt {} survives its owner", passts[0]);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
