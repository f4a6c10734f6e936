//! What travels between host and guest, byte for byte. A warm state of last week holds last week's agent, so that a change here reaches
//! peers that do not know of it.

use quicksand_protocol::{
    VERSION,
    facts::{Account, Answer, Entry, File, Kind as FileKind, Listener, Package, Port, Question, Service, User},
    frame::{self, Kind},
    message::{
        Announce, Await, Condition, Done, Exec, Exit, Failure, Hello, Mount, NONCE_LEN, Network, Offer, Reply, Request,
        Settle, Wake, Welcome, Window, to_payload,
    },
    network::{Card, Connect},
};
use serde::Serialize;

const PINNED: &str = include_str!("pinned.txt");

/// One of each, in the order of their numbers.
fn requests() -> Vec<Request> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        Request::Ping,
        Request::Exec(Exec {
            argv: vec![text("a"), text("b")],
            env: vec![(text("K"), text("v"))],
            current_dir: Some(text("/d")),
            user: Some(text("u")),
            stdin: true,
            terminal: Some(Window { rows: 24, cols: 80 }),
            terminal_kind: Some(text("t")),
        }),
        Request::ReadFile { path: text("/f"), limit: 300 },
        Request::WriteFile { path: text("/f"), mode: 0o644 },
        Request::Upload { path: text("/f") },
        Request::Download { path: text("/f") },
        Request::Wake(Wake {
            time_ns: 300,
            seed: [7; 32],
            network: Network::Static { address: [10, 0, 2, 15], prefix: 24, of_image: true },
        }),
        Request::Rename { machine_id: [8; 16] },
        Request::Sync,
        Request::ExpectFreeze { sync: true },
        Request::Settle(Settle { after_reboot: true }),
        Request::Await(Await { condition: Condition::Port(300), within_ms: 300 }),
        Request::Follow { path: text("/f") },
        Request::CreateUser { name: "u".into() },
        Request::Connect(Connect { address: Some([10, 0, 0, 1]), port: 300, patience_ms: 300 }),
        Request::Listen { port: 300 },
        Request::Accept { connection: 300 },
        Request::Hosts { entries: vec![([10, 0, 0, 1], "n".into())] },
        Request::Cards { cards: vec![Card { slot: 9, mac: [1; 6], address: [10, 0, 0, 1], prefix: 24 }] },
        Request::Mount(Mount { port: "p".into(), path: text("/m"), read_only: true, cached: true }),
        Request::Unmount { port: "p".into() },
        Request::AwaitFilters { operation: 300 },
        Request::GoDown,
        Request::GrowRoot { size: 300 },
        Request::Facts {
            questions: vec![
                Question::Package { name: "p".into() },
                Question::Service { name: "s".into() },
                Question::File { path: text("/f") },
                Question::User { name: "u".into() },
                Question::Port { port: 300 },
            ],
        },
        Request::Index,
        Request::Attributes,
    ]
}

/// Does not compile once there is a request that is not named here: add it to [`requests`] as well.
fn is_named(request: &Request) {
    use Request::*;
    match request {
        Ping | Exec(_) | ReadFile { .. } | WriteFile { .. } | Upload { .. } | Download { .. } | Wake(_) => {}
        Rename { .. } | Sync | ExpectFreeze { .. } | Settle(_) | Await(_) | Follow { .. } | CreateUser { .. } => {}
        Connect(_) | Listen { .. } | Accept { .. } | Hosts { .. } | Cards { .. } | Mount(_) | Unmount { .. } => {}
        AwaitFilters { .. } | GoDown | GrowRoot { .. } | Facts { .. } | Index | Attributes => {}
    }
}

/// Each of them once, by the number that leads its payload.
#[test]
fn every_request_is_pinned() {
    let numbers: Vec<u8> = requests().iter().map(|request| to_payload(request).unwrap()[0]).collect();
    assert_eq!(numbers, (0..numbers.len() as u8).collect::<Vec<_>>());
    requests().iter().for_each(is_named);
}

fn answers() -> Vec<Answer> {
    let account = Account {
        uid: 1000,
        gid: 1000,
        groups: vec!["u".into()],
        comment: "c".into(),
        home: b"/h".to_vec(),
        shell: b"/s".to_vec(),
    };
    let listener = Listener { udp: true, address: [10, 0, 0, 1].into(), port: 300, process: Some((300, "n".into())) };
    let service = Service {
        manager: Some("systemd".into()),
        exists: true,
        running: true,
        enabled: true,
        state: "s".into(),
        enablement: "e".into(),
        pid: Some(300),
        log: vec!["l".into()],
    };
    let entry = Entry {
        kind: FileKind::Link,
        mode: 0o777,
        uid: 300,
        gid: 300,
        owner: Some("o".into()),
        group: Some("g".into()),
        size: 300,
        modified: -1,
        target: Some(b"t".to_vec()),
        dangling: true,
        content: Some(b"c".to_vec()),
    };
    vec![
        Answer::Package(Package {
            manager: Some("dpkg".into()),
            installed: true,
            state: "s".into(),
            version: Some("1".into()),
            architecture: Some("amd64".into()),
            similar: vec!["q".into()],
        }),
        Answer::Service(service),
        Answer::File(File { entry: Some(entry), nearest: Some((b"/".to_vec(), vec![b"n".to_vec()])) }),
        Answer::User(User { account: Some(account), others: vec!["o".into()] }),
        Answer::Port(Port { listeners: vec![listener] }),
        Answer::Failed("f".into()),
    ]
}

#[test]
fn the_protocol_is_pinned() {
    let mut now = format!("version {VERSION}\n");
    let mut add = |what: &str, payload: Vec<u8>| {
        let digits: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        now += &format!("{what} {digits}\n");
    };
    for kind in Kind::ALL {
        let mut bytes = Vec::new();
        frame::encode(kind, 1, 0x0403_0201, b"xy", &mut bytes).unwrap();
        add(&format!("frame {kind:?}"), bytes);
    }
    let nonce = [6; NONCE_LEN];
    add("hello", bytes(&Hello { version: 300, nonce }));
    add("welcome", bytes(&Welcome { version: 300, nonce }));
    add("announce", bytes(&Announce { version: 300, kernel_fault: Some("f".into()) }));
    add("offer", bytes(&Offer { version: 300, release: "r".into(), kernel: 300, modules: vec![("m".into(), 300)] }));
    add("resize", Window { rows: 24, cols: 80 }.to_bytes().to_vec());
    for request in requests() {
        let name = format!("{request:?}");
        let name: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
        add(&format!("request {name}"), bytes(&request));
    }
    for network in [
        Network::None,
        Network::Static { address: [10, 0, 2, 15], prefix: 24, of_image: false },
        Network::Keep,
        Network::Online { gateway: [10, 0, 2, 2], dns: [10, 0, 2, 3] },
    ] {
        add("network", bytes(&network));
    }
    add("condition", bytes(&Condition::File(b"/f".to_vec())));
    for done in [
        Done::Nothing,
        Done::ButFor(vec!["w".into()]),
        Done::Exited(Exit::Code(-1)),
        Done::Exited(Exit::Signal(9)),
        Done::Filtered,
        Done::NotYet { seen: "s".into() },
    ] {
        add("reply", bytes::<Reply>(&Ok(done)));
    }
    add("reply", bytes::<Reply>(&Err(Failure { errno: 2, message: "m".into() })));
    for answer in answers() {
        add("answer", bytes(&answer));
    }
    assert!(
        PINNED == now,
        "what host and guest say to each other is no longer what it was.\nA warm state may hold an agent of an older version: see \"What to \
         do on a change\" in docs/on-disk.md, raise VERSION in quicksand-protocol/src/lib.rs, and only then make this \
         tests/pinned.txt:\n{now}"
    );
}

fn bytes<T: Serialize>(message: &T) -> Vec<u8> {
    to_payload(message).unwrap()
}
