//! Sandboxes on private networks: they reach each other by name, and nothing else by that.

use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};

use quicksand::{Child, Error, Network, NetworkMode, Sandbox, SandboxBuilder, StartKind};

/// Generous: guests under software emulation on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);

fn debian() -> SandboxBuilder {
    Sandbox::builder("debian")
}

/// A server in the guest that says its own name to whoever connects to port 8080, at any address.
async fn serve(sb: &Sandbox, name: &str) -> Child {
    let greet = format!("printf 'HTTP/1.0 200 OK\\r\\n\\r\\nthis is {name}\\n'");
    let command = sb.command("systemd-socket-activate").args(["--accept", "--inetd", "-l", "0.0.0.0:8080"]);
    let server = command.args(["sh", "-c", &greet]).spawn().await.unwrap();
    sb.execute("until ss -ltnH | grep -qF :8080; do sleep 0.05; done").await.unwrap().check().unwrap();
    server
}

/// What the server of that name, or at that address, says; or nothing.
async fn ask(sb: &Sandbox, whom: &str) -> String {
    sb.execute(format!("curl -sS --max-time 5 http://{whom}:8080/")).await.unwrap().stdout
}

async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_reach_each_other_by_name_and_nothing_else() {
    let (network, other) = (Network::new(), Network::new());
    let db = debian().join(&network, "db").start().await.unwrap();
    let web = debian().join(&network, "web.example").network_mode(NetworkMode::None).start().await.unwrap();
    let outsider = debian().join(&other, "db").start().await.unwrap();
    let nobody = debian().start().await.unwrap();
    assert!([&web, &outsider, &nobody].iter().all(|sb| sb.start_report().unwrap().kind == StartKind::Warm));
    let _servers = [serve(&db, "db").await, serve(&web, "web").await, serve(&outsider, "the other").await];

    // By name, from warm starts, with no word between the two but by us; and also whoever was there first knows who came later.
    assert_eq!(ask(&web, "db").await, "this is db\n");
    assert_eq!(ask(&db, "web.example").await, "this is web\n");
    // Oneself, and on another network another of that name.
    assert_eq!(ask(&db, "db").await, "this is db\n");
    assert_eq!(ask(&outsider, "db").await, "this is the other\n");
    let members = network.members();
    let (name, address) = db.on_network(&network).unwrap();
    assert_eq!((&*name, members[0].clone()), ("db", ("db".to_owned(), address)));
    assert_eq!(db.on_network(&other), None);

    // No other network, whatever a guest makes itself believe.
    let (_, foreign) = outsider.on_network(&other).unwrap();
    let card = "ip -o -4 addr show to 10.77.0.0/16 | awk '{ print $2 }'";
    let lines = [
        format!("ip route add {foreign}/32 dev $({card})"),
        format!("ip addr add {}/24 dev $({card})", Ipv4Addr::from([foreign.octets()[0], 77, foreign.octets()[2], 99])),
    ];
    for line in lines {
        web.execute(line).await.unwrap().check().unwrap();
        assert_eq!(ask(&web, &foreign.to_string()).await, "");
    }
    // Nor this host: nobody there listens on the network.
    let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(|stream| drop(stream.unwrap().write_all(b"host"))));
    for host in [".1", ".2", ".254"] {
        let network = address.octets()[..3].iter().map(u8::to_string).collect::<Vec<_>>().join(".");
        let line = format!("curl -sS --max-time 3 http://{network}{host}:{port}/");
        assert_eq!(db.execute(line).await.unwrap().stdout, "");
    }
    // And who is on no network sees none.
    assert_eq!(
        nobody.execute("ls /sys/class/net | wc -l; grep -c quicksand /etc/hosts").await.unwrap().stdout,
        "2\n0\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_of_whom_some_leave() {
    let (network, second) = (Network::new(), Network::new());
    let start = |name: &str| debian().join(&network, name);
    // At the same time.
    let (a, b) = tokio::join!(start("a").start(), start("b").join(&second, "b").start());
    let (a, b) = (a.unwrap(), b.unwrap());
    let c = start("c").start().await.unwrap();
    assert!(matches!(start("C").start().await, Err(Error::NameTaken { .. })));
    let _servers = [serve(&a, "a").await, serve(&b, "b").await, serve(&c, "c").await];
    for (from, to) in [(&a, "b"), (&a, "c"), (&b, "a"), (&b, "c"), (&c, "a"), (&c, "b")] {
        assert_eq!(ask(from, to).await, format!("this is {to}\n"));
    }
    // A card for each network.
    assert_eq!(b.execute("ls /sys/class/net | wc -l").await.unwrap().stdout, "4\n");

    // By its own will, with its machine running on.
    let (_, address) = b.on_network(&network).unwrap();
    b.leave(&network).await.unwrap();
    assert_eq!(b.on_network(&network), None);
    assert_eq!(b.execute("ls /sys/class/net | wc -l").await.unwrap().stdout, "3\n");
    wait_until("a forgets b", async || !a.execute("getent hosts b").await.unwrap().success()).await;
    assert_eq!(ask(&a, &address.to_string()).await, "");
    assert_eq!(ask(&c, "a").await, "this is a\n");
    // With its machine.
    c.stop().await.unwrap();
    wait_until("a forgets c", async || !a.execute("getent hosts c").await.unwrap().success()).await;
    assert_eq!(network.members().len(), 1);
    // The name is free again.
    let again = start("c").start().await.unwrap();
    let _server = serve(&again, "another c").await;
    assert_eq!(ask(&a, "c").await, "this is another c\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_passes_for_another() {
    let network = Network::new();
    let (a, b) =
        (debian().join(&network, "a").start().await.unwrap(), debian().join(&network, "b").start().await.unwrap());
    let _server = serve(&a, "a").await;
    assert_eq!(ask(&b, "a").await, "this is a\n");
    let card = "$(ip -o -4 addr show to 10.77.0.0/16 | awk '{ print $2 }')";
    let received = format!("cat /sys/class/net/{card}/statistics/rx_packets");
    let own = b.execute(format!("cat /sys/class/net/{card}/address")).await.unwrap().stdout;

    // With another card's address as its own, a guest is not heard at all.
    b.execute(format!("ip link set {card} address 52:54:4d:00:00:aa")).await.unwrap().check().unwrap();
    let before = a.execute(&*received).await.unwrap().stdout;
    assert_eq!(ask(&b, "a").await, "");
    assert_eq!(a.execute(&*received).await.unwrap().stdout, before);
    // With its own again, it is.
    b.execute(format!("ip link set {card} address {}", own.trim())).await.unwrap().check().unwrap();
    assert_eq!(ask(&b, "a").await, "this is a\n");
}

/// A save, a checkpoint, a twin and a reboot of a member.
#[tokio::test(flavor = "multi_thread")]
async fn membership_is_the_sandboxs_and_not_its_machines() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let network = Network::new();
    let a = debian().saves_dir(saves.path()).join(&network, "a").start().await.unwrap();
    let b = debian().join(&network, "b").start().await.unwrap();
    let _servers = [serve(&a, "a").await, serve(&b, "b").await];

    a.checkpoint("here").await.unwrap();
    a.revert("here").await.unwrap();
    assert_eq!((ask(&a, "b").await, ask(&b, "a").await), ("this is b\n".into(), "this is a\n".into()));

    let twin = a.fork().await.unwrap();
    let (name, address) = twin.on_network(&network).unwrap();
    assert!(name == "a-2" && address != a.on_network(&network).unwrap().1);
    assert_eq!((ask(&b, "a-2").await, ask(&b, "a").await), ("this is a\n".into(), "this is a\n".into()));
    assert_eq!((ask(&twin, "b").await, ask(&a, "a-2").await), ("this is b\n".into(), "this is a\n".into()));
    drop(twin);

    a.save("member").await.unwrap();
    // Its clone is on a network of its own, with the guest's card of before; or on none, and sees none.
    let elsewhere = Network::new();
    let member = || Sandbox::builder("member").saves_dir(saves.path());
    let clone = member().join(&elsewhere, "x").start().await.unwrap();
    assert_eq!(clone.start_report().unwrap().kind, StartKind::Warm, "{:?}", clone.start_report());
    assert_eq!(ask(&clone, "x").await, "this is a\n");
    assert!(!clone.execute("getent hosts b").await.unwrap().success());
    let alone = member().start().await.unwrap();
    assert_eq!(alone.start_report().unwrap().kind, StartKind::Warm);
    assert_eq!(
        alone.execute("ls /sys/class/net | wc -l; grep -c quicksand /etc/hosts").await.unwrap().stdout,
        "2\n0\n"
    );
}

#[test]
fn what_can_not_be_is_refused_before_anything_starts() {
    let network = Network::new();
    let bad = |builder: SandboxBuilder| matches!(builder.build(), Err(Error::BadOption { option: "join", .. }));
    assert!(bad(debian().join(&network, "a b")));
    assert!(bad(debian().join(&network, "a").join(&network, "b")));
    let many = (0..9).fold(debian(), |builder, n| builder.join(&Network::new(), format!("n{n}")));
    assert!(bad(many));
    assert!(network.members().is_empty());
}
