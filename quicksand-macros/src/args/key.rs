//! The keys of the attributes, and what is said of each where it is used wrongly.

use std::fmt::Write;

/// The attribute that a key stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    Test,
    Setup,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Image,
    Images,
    From,
    Save,
    Setup,
    Inputs,
    MaxAge,
    Memory,
    Cpus,
    Network,
    Accel,
    Kernel,
    DiskSize,
    Display,
    Timeout,
    Retries,
    Flavor,
    WorkerThreads,
    Requires,
}

/// How a key's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `key = value`.
    Value,
    /// `key(value, ..)`.
    List,
    /// One or the other.
    Either,
}

impl Key {
    pub(super) const ALL: [Key; 19] = [
        Key::Image,
        Key::Images,
        Key::From,
        Key::Save,
        Key::Setup,
        Key::Inputs,
        Key::MaxAge,
        Key::Memory,
        Key::Cpus,
        Key::Network,
        Key::Accel,
        Key::Kernel,
        Key::DiskSize,
        Key::Display,
        Key::Timeout,
        Key::Retries,
        Key::Flavor,
        Key::WorkerThreads,
        Key::Requires,
    ];

    /// The keys of an attribute.
    pub(super) fn all(on: On) -> impl Iterator<Item = Key> {
        let tests_own = [Key::Retries, Key::Flavor, Key::WorkerThreads, Key::Requires];
        Key::ALL.into_iter().filter(move |key| on == On::Test || !tests_own.contains(key))
    }

    pub(super) fn name(self) -> &'static str {
        self.grammar(On::Test).0
    }

    pub(super) fn form(self, on: On) -> Form {
        match self {
            Key::Setup if on == On::Test => Form::Either,
            Key::Setup | Key::Inputs | Key::Requires => Form::List,
            _ => Form::Value,
        }
    }

    /// Its name, how it is written, and what the value is.
    pub(super) fn grammar(self, on: On) -> (&'static str, &'static str, &'static str) {
        match self {
            Key::Image => ("image", r#"image = "debian""#, "the name of an image"),
            Key::Images if on == On::Setup => {
                ("images", r#"images = ["debian", "ubuntu"]"#, "the names of images, for each of which it is done")
            }
            Key::Images => (
                "images",
                r#"images = ["debian", ignore("ubuntu", "reason")]"#,
                "the names of images, for each of which there is a test",
            ),
            Key::From => ("from", r#"from = "base""#, "the save of another setup, which this one builds on"),
            Key::Save => ("save", r#"save = "base""#, "a name for the prepared machine"),
            Key::Setup if on == On::Setup => {
                ("setup", r#"setup("command", "command")"#, "lines of shell, where the function has no body")
            }
            Key::Setup => (
                "setup",
                r#"setup = path::to::function | setup("command", "command")"#,
                "the path of an `async fn(sb: &Sandbox)` or a `fn(sb: &blocking::Sandbox)`, or lines of shell",
            ),
            Key::Inputs => {
                ("inputs", r#"inputs("install.sh", "dist")"#, "files and directories of the package that it depends on")
            }
            Key::MaxAge => ("max_age", r#"max_age = "7d""#, "a number and a unit"),
            Key::Memory => ("memory", r#"memory = "512M""#, "a number and a unit"),
            Key::Cpus => ("cpus", "cpus = 2", "a number from 1 to 255"),
            Key::Network => ("network", r#"network = "none" | "mounts-only" | "full""#, "one of these words"),
            Key::Accel => ("accel", r#"accel = "auto" | "kvm" | "hvf" | "whpx" | "tcg""#, "one of these words"),
            Key::Kernel => ("kernel", r#"kernel = "guest" | "image""#, "one of these words"),
            Key::DiskSize => ("disk_size", r#"disk_size = "10G""#, "a number and a unit"),
            Key::Display => ("display", "display = true | false", "whether the machine has one"),
            Key::Timeout => ("timeout", r#"timeout = "30s""#, "a number and a unit"),
            Key::Retries => ("retries", "retries = 2", "a number from 1 to 255"),
            Key::Flavor => ("flavor", r#"flavor = "current_thread" | "multi_thread""#, "one of these words"),
            Key::WorkerThreads => ("worker_threads", "worker_threads = 2", "a number from 1"),
            Key::Requires => (
                "requires",
                r#"requires(kvm, network, memory = "4G", cpus = 4, command = "passt")"#,
                "what the host must have, any of these",
            ),
        }
    }

    /// What to write for the key.
    pub(super) fn usage(self, on: On) -> String {
        let (_, example, meaning) = self.grammar(on);
        format!("write `{example}`, {meaning}")
    }
}

/// All that an attribute accepts, a line each.
pub(super) fn accepted(on: On) -> String {
    let mut text = "accepted, separated by commas:".to_owned();
    for key in Key::all(on) {
        let _ = write!(text, "\n    {}", key.grammar(on).1);
    }
    text
}
