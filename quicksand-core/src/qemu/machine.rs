//! What a virtual machine consists of, and the QEMU command line that makes it.
//!
//! A frozen state fits only the machine that it was taken from, down to the order of its devices. So there is one function that
//! writes the command line, for boots and for clones alike, and a [key](Machine::key) made from what it writes.

use std::{
    ffi::OsString,
    fmt, fs,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
};

use quicksand_protocol::network::{FIRST_PRIVATE_SLOT, OWN_SLOT};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Version;
use crate::base::{random::hex, size::Size};

/// What carries out the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Accelerator {
    /// Linux's own virtualization.
    Kvm,
    /// macOS's own virtualization. Untested.
    Hvf,
    /// Windows's own virtualization. Untested.
    Whpx,
    /// Software emulation.
    Tcg,
}

impl Accelerator {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Hvf => "hvf",
            Accelerator::Whpx => "whpx",
            Accelerator::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a guest reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NetworkMode {
    /// Nothing: the guest has no network interface.
    None,
    /// Nothing but what is named to it: the guest has an interface that leads nowhere else.
    #[default]
    MountsOnly,
    /// The internet. By passt, where that is installed, and nothing of this host; else by QEMU's user network, and with that every
    /// service on the host's loopback as well, which [`Sandbox::network_warning`](crate::Sandbox::network_warning) then says.
    Full,
}

/// The first QEMU that has monitors as objects. It calls `-mon` deprecated.
const MONITOR_OBJECTS: Version = Version { major: 11, minor: 1, micro: 0 };

/// The parts of a machine that a frozen state is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) memory: u64,
    pub(crate) cpus: u32,
    pub(crate) accelerator: Accelerator,
    /// Whether it has a graphics card and a pointer; a keyboard each machine has.
    #[serde(default)]
    pub(crate) display: bool,
    pub(crate) extra_arguments: Vec<String>,
}

/// What differs between two starts of one machine.
#[derive(Debug)]
pub(crate) struct Instance<'a> {
    /// Shown by `ps`.
    pub(crate) name: &'a str,
    pub(crate) memory_file: &'a Path,
    /// The disk's files from the bottom up. The last is written, the others never.
    pub(crate) disk: Vec<&'a Path>,
    pub(crate) plug: &'a Plug,
    /// Cards beside its own. They are no part of the machine: a guest that has not seen them yet finds them when it looks.
    pub(crate) cards: &'a [PrivateCard],
    pub(crate) begin: Begin<'a>,
    /// The QEMU that reads the command line.
    pub(crate) qemu: Version,
    pub(crate) qmp: RawFd,
    pub(crate) agent: RawFd,
    pub(crate) console: RawFd,
}

/// What the guest's own card leads to.
#[derive(Debug)]
pub(crate) enum Plug {
    /// Nothing: what it sends is gone.
    Nowhere,
    /// The network that QEMU itself provides.
    User,
    /// A stream socket that takes Ethernet frames.
    Socket(OwnedFd),
}

/// A card of a private network.
#[derive(Debug)]
pub(crate) struct PrivateCard {
    pub(crate) mac: [u8; 6],
    /// What leads to the network, a stream socket that takes Ethernet frames. `None` where nothing does.
    pub(crate) socket: Option<OwnedFd>,
}

/// How a machine comes to life.
#[derive(Debug)]
pub(crate) enum Begin<'a> {
    /// From its kernel.
    Boot { kernel: &'a Path, initramfs: &'a Path, command_line: &'a str },
    /// From a frozen state, which is given over the control channel.
    Restore,
}

/// The name of the graphics card.
pub(crate) const SCREEN: &str = "screen";
/// The graphics card's memory in MiB: QEMU's own default.
const SCREEN_MEMORY: u32 = 16;

/// The name of the disk's topmost block node at the start.
pub(crate) const ROOT_NODE: &str = "root";

/// The agent's port, by which QEMU names it in events.
pub(crate) const AGENT_PORT: &str = "agent-port";

impl Machine {
    /// What tells this machine from every other that a frozen state might be of: all of its command line but paths and other
    /// things that may differ, QEMU's version, the host's processor where the guest sees it, and the agent in its memory.
    pub(crate) fn key(&self, qemu: Version) -> String {
        self.key_with(qemu, quicksand_agent::ID)
    }

    fn key_with(&self, qemu: Version, agent: &str) -> String {
        let nowhere = Path::new("");
        let instance = Instance {
            name: "",
            memory_file: nowhere,
            disk: vec![nowhere],
            plug: &Plug::Nowhere,
            cards: &[],
            begin: Begin::Restore,
            qemu,
            qmp: 0,
            agent: 0,
            console: 0,
        };
        let mut hash = Sha256::new();
        for argument in self.arguments(&instance) {
            hash.update(argument.as_encoded_bytes());
            hash.update([0]);
        }
        hash.update(qemu.to_string());
        hash.update(agent);
        if self.accelerator != Accelerator::Tcg {
            hash.update(host_processor());
        }
        hex(&hash.finalize())
    }

    /// QEMU's arguments. Their order is part of the machine.
    pub(crate) fn arguments(&self, instance: &Instance<'_>) -> Vec<OsString> {
        let mut arguments = Arguments::default();
        let cpu = if self.accelerator == Accelerator::Tcg { "max" } else { "host" };
        arguments
            .flag("-nodefaults")
            .flag("-no-user-config")
            .option("-name", format!("quicksand-{}", instance.name))
            // The stream of a freeze has no configuration section and no description, see docs/design.md.
            .option("-machine", "q35,memory-backend=memory,suppress-vmdesc=on,dump-guest-core=off,usb=off,vmport=off")
            .option("-global", "migration.send-configuration=off")
            .option("-accel", self.accelerator.name())
            .option("-cpu", cpu)
            .option("-smp", self.cpus.to_string())
            .option("-m", format!("size={}b", self.memory))
            .json(
                "-object",
                &json!({
                    "qom-type": "memory-backend-file",
                    "id": "memory",
                    "size": self.memory,
                    "mem-path": text(instance.memory_file),
                    "share": false,
                }),
            )
            .option("-rtc", "base=utc")
            .option("-display", "none")
            .option("-vga", "none")
            // A clone has no firmware to reset into, see docs/design.md.
            .option("-action", "reboot=shutdown")
            .option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
            .option("-chardev", format!("socket,id=qmp,fd={}", instance.qmp));
        monitor(instance.qemu, &mut arguments);
        arguments
            .option("-chardev", format!("socket,id=console,fd={}", instance.console))
            .option("-serial", "chardev:console");
        for (level, path) in instance.disk.iter().enumerate() {
            arguments.json("-blockdev", &block_node(level, instance.disk.len(), path));
        }
        arguments
            .json(
                "-device",
                &json!({
                    "driver": "virtio-blk-pci", "id": "disk", "drive": ROOT_NODE, "addr": "0x3", "romfile": "",
                }),
            )
            .json("-device", &json!({ "driver": "virtio-serial-pci", "id": "ports", "addr": "0x4" }))
            .option("-chardev", format!("socket,id=agent,fd={}", instance.agent))
            .json(
                "-device",
                &json!({
                    "driver": "virtserialport", "id": AGENT_PORT, "bus": "ports.0", "nr": 1, "chardev": "agent",
                    "name": "quicksand.agent",
                }),
            );
        for backend in backends(instance.plug, 0) {
            arguments.json("-netdev", &backend);
        }
        arguments.json("-netdev", &json!({ "type": "hubport", "id": "network", "hubid": 0 })).json(
            "-device",
            &json!({
                "driver": "virtio-net-pci", "id": "card", "addr": format!("{OWN_SLOT:#x}"), "romfile": "",
                "guest_announce": false, "netdev": "network",
            }),
        );
        if self.display {
            arguments
                .json(
                    "-device",
                    &json!({
                        "driver": "VGA", "id": SCREEN, "addr": "0x1", "vgamem_mb": SCREEN_MEMORY,
                    }),
                )
                .json("-device", &json!({ "driver": "virtio-tablet-pci", "id": "pointer", "addr": "0x2" }))
                // Serves nobody until it is given a socket to listen on.
                .option("-vnc", "none");
        }
        // Last, so that nothing of the machine depends on them.
        for (number, card) in instance.cards.iter().enumerate() {
            card.add(number, &mut arguments);
        }
        match instance.begin {
            Begin::Boot { kernel, initramfs, command_line } => {
                arguments.path("-kernel", kernel).path("-initrd", initramfs).option("-append", command_line);
            }
            Begin::Restore => {
                arguments.flag("-S").option("-incoming", "defer");
            }
        }
        for extra in &self.extra_arguments {
            arguments.flag(extra);
        }
        arguments.0
    }
}

/// The control channel, in the form that this QEMU does not call deprecated.
fn monitor(qemu: Version, arguments: &mut Arguments) {
    if qemu < MONITOR_OBJECTS {
        arguments.option("-mon", "chardev=qmp,mode=control");
    } else {
        arguments.json("-object", &json!({ "qom-type": "monitor-qmp", "id": "control", "chardev": "qmp" }));
    }
}

impl PrivateCard {
    fn add(&self, number: usize, arguments: &mut Arguments) {
        let (id, slot) = (format!("private{number}"), usize::from(FIRST_PRIVATE_SLOT) + number);
        let mac = self.mac.map(|byte| format!("{byte:02x}")).join(":");
        let mut card = json!({
            "driver": "virtio-net-pci", "id": format!("card-{id}"), "addr": format!("{slot:#x}"), "romfile": "",
            "guest_announce": false, "mac": mac,
        });
        if let Some(fd) = &self.socket {
            arguments.json("-netdev", &json!({ "type": "socket", "id": id, "fd": fd.as_raw_fd().to_string() }));
            card["netdev"] = id.into();
        }
        arguments.json("-device", &card);
    }
}

/// What makes a plug in QEMU: what is behind it, and the port of the hub that the guest's card is at, in the order in which they
/// are made. The hub has another port at all times: without one, the card would not get rid of what the guest sends. Behind a hub,
/// one plug can be exchanged for another, while a card keeps what it was made with.
pub(crate) fn backends(plug: &Plug, number: usize) -> Vec<Value> {
    let [behind, port] = plug_ids(number);
    let behind = match plug {
        Plug::Nowhere => return vec![json!({ "type": "hubport", "id": port, "hubid": 0 })],
        Plug::User => json!({ "type": "user", "id": behind, "ipv6": false }),
        Plug::Socket(fd) => json!({ "type": "socket", "id": behind, "fd": fd.as_raw_fd().to_string() }),
    };
    let port = json!({ "type": "hubport", "id": port, "hubid": 0, "netdev": behind["id"] });
    vec![behind, port]
}

/// The names of what makes a plug.
pub(crate) fn plug_ids(number: usize) -> [String; 2] {
    [format!("behind{number}"), format!("plug{number}")]
}

/// One file of the disk. Each names the one below it by node, so that no name inside a file is followed.
fn block_node(level: usize, levels: usize, path: &Path) -> Value {
    let top = level + 1 == levels;
    let below = level.checked_sub(1).map(layer_node);
    let mut node = overlay_node(if top { ROOT_NODE.to_owned() } else { layer_node(level) }, path);
    node["backing"] = below.map_or(Value::Null, Value::from);
    if !top {
        node["read-only"] = true.into();
        node["file"]["read-only"] = true.into();
    }
    node
}

fn layer_node(level: usize) -> String {
    format!("layer{level}")
}

/// A block node that can be put over another.
pub(crate) fn overlay_node(name: String, path: &Path) -> Value {
    json!({
        "driver": "qcow2",
        "node-name": name,
        "backing": null,
        "discard": "unmap",
        // What a machine writes is thrown away or frozen while QEMU runs; nothing of it must survive the host's own crash.
        "cache": { "no-flush": true },
        "file": { "driver": "file", "filename": text(path), "cache": { "no-flush": true } },
    })
}

/// QEMU's arguments as they are put together.
#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, name: impl Into<OsString>) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.flag(name).flag(value)
    }

    fn path(&mut self, name: &str, path: &Path) -> &mut Self {
        self.option(name, path)
    }

    fn json(&mut self, name: &str, value: &Value) -> &mut Self {
        self.option(name, value.to_string())
    }
}

/// A path for JSON. The cache and project directories are refused where they are not UTF-8, so nothing is lost here.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// What a guest on hardware virtualization sees of the host's processor.
pub(crate) fn host_processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = text.split("\n\n").next().unwrap_or_default();
    let wanted = ["vendor_id", "cpu family", "model", "stepping", "microcode", "flags", "Features", "CPU part"];
    first.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).collect::<Vec<_>>().join("\n")
}

/// Most processors that a guest may have: QEMU's limit for the machine.
pub(crate) const MOST_CPUS: u32 = 255;

/// The least memory that a guest may have: below it, kernels of distributions do not reach their init.
pub(crate) const LEAST_MEMORY: Size = Size::from_mib(64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::versioned::assert_pinned;

    const VERSION: Version = Version { major: 7, minor: 2, micro: 22 };

    fn machine() -> Machine {
        Machine { memory: 512 << 20, cpus: 1, accelerator: Accelerator::Tcg, display: false, extra_arguments: vec![] }
    }

    fn instance<'a>(disk: Vec<&'a Path>, plug: &'a Plug) -> Instance<'a> {
        let memory_file = Path::new("/m");
        let (begin, qemu) = (Begin::Restore, VERSION);
        Instance { name: "x", memory_file, disk, plug, cards: &[], begin, qemu, qmp: 3, agent: 4, console: 5 }
    }

    fn line(machine: &Machine, instance: &Instance<'_>) -> String {
        let words: Vec<_> = machine.arguments(instance).into_iter().map(|word| word.into_string().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn the_key_is_pinned() {
        let machine = Machine { display: true, extra_arguments: vec!["-x".into()], ..machine() };
        let now = machine.key_with(VERSION, "agent");
        let pinned = "167585daf184fa92157fe462ee6661cba8d4a7ccffb8c05920a8dad73ad6e3cd";
        assert_pinned("the key of a machine", "say in CHANGELOG.md that saves boot once", pinned, &now);
    }

    #[test]
    fn the_key_covers_the_machine_and_nothing_else() {
        let key = |change: fn(&mut Machine)| {
            let mut machine = machine();
            change(&mut machine);
            machine.key(VERSION)
        };
        let own = key(|_| {});
        assert_eq!(own, machine().key(VERSION));
        for change in [
            (|m| m.memory += 1 << 20) as fn(&mut Machine),
            |m| m.cpus = 2,
            |m| m.accelerator = Accelerator::Kvm,
            |m| m.display = true,
            |m| m.extra_arguments.push("-s".into()),
        ] {
            assert_ne!(key(change), own);
        }
        assert_ne!(machine().key(Version { micro: 23, ..VERSION }), own);
    }

    #[test]
    fn the_control_channel_is_asked_for_as_the_version_has_it() {
        for (major, minor, old) in [(7, 2, true), (10, 0, true), (11, 0, true), (11, 1, false), (12, 0, false)] {
            let mut instance = instance(vec![Path::new("/d")], &Plug::Nowhere);
            instance.qemu = Version { major, minor, micro: 0 };
            let line = line(&machine(), &instance);
            assert_eq!(line.contains("-mon chardev=qmp"), old, "{line}");
            assert_eq!(line.contains("monitor-qmp"), !old, "{line}");
        }
    }

    #[test]
    fn odd_paths_stay_one_value() {
        let odd = Path::new("/a b,c\"d/x");
        let line = line(&machine(), &instance(vec![odd], &Plug::Nowhere));
        assert!(line.contains(r#""filename":"/a b,c\"d/x""#), "{line}");
    }

    #[test]
    fn layers_name_the_one_below_and_only_the_top_is_written() {
        let paths = ["/0", "/1", "/2"].map(Path::new);
        let nodes: Vec<_> = paths.iter().enumerate().map(|(n, path)| block_node(n, 3, path)).collect();
        let names: Vec<_> =
            nodes.iter().map(|node| (&node["node-name"], &node["backing"], &node["read-only"])).collect();
        assert_eq!(
            names,
            [
                (&json!("layer0"), &Value::Null, &json!(true)),
                (&json!("layer1"), &json!("layer0"), &json!(true)),
                (&json!("root"), &json!("layer1"), &Value::Null),
            ]
        );
    }

    #[test]
    fn no_port_is_opened_and_no_secret_told() {
        for plug in [Plug::Nowhere, Plug::User] {
            let line = line(&machine(), &instance(vec![Path::new("/d")], &plug));
            for word in ["tcp:", "hostfwd", "-vnc", "server=on", "127.0.0.1"] {
                assert!(!line.contains(word), "{word} in {line}");
            }
            assert_eq!(line.contains(r#""type":"user""#), matches!(plug, Plug::User));
        }
    }
}
