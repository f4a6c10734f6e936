//! The front matter of a case file: what its machine is like, in TOML between two lines of `+++`.

use std::{collections::BTreeMap, time::Duration};

use quicksand_core::{Accel, Kernel, NetworkMode, Size};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::meta::{MachineMeta, Requirement, Start, TestMeta, Variant};

/// How long a session may take unless its front matter says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// What the front matter says. The keys and their values are those of `#[sandbox_test]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FrontMatter {
    image: Option<String>,
    save: Option<String>,
    #[serde(default, deserialize_with = "size")]
    memory: Option<u64>,
    cpus: Option<u32>,
    #[serde(default, deserialize_with = "size")]
    disk_size: Option<u64>,
    display: Option<bool>,
    #[serde(default, deserialize_with = "network")]
    network: Option<NetworkMode>,
    #[serde(default, deserialize_with = "accel")]
    accel: Option<Accel>,
    #[serde(default, deserialize_with = "kernel")]
    kernel: Option<Kernel>,
    #[serde(default, deserialize_with = "time")]
    timeout: Option<Duration>,
    #[serde(default)]
    requires: Requires,
    /// Who runs the commands.
    pub(super) user: Option<String>,
    /// Where they begin.
    pub(super) directory: Option<String>,
    /// What runs them.
    pub(super) shell: Option<String>,
    /// Variables that they see.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
}

/// What the host must have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requires {
    #[serde(default)]
    kvm: bool,
    #[serde(default)]
    network: bool,
    #[serde(default, deserialize_with = "size")]
    memory: Option<u64>,
    cpus: Option<u32>,
    command: Option<String>,
}

impl FrontMatter {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and on which of its lines, from 0.
    pub(super) fn parse(text: &str) -> Result<FrontMatter, (usize, String)> {
        let front: FrontMatter = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count());
            (line, error.message().to_owned())
        })?;
        if front.image.is_none() && front.save.is_none() {
            return Err((0, "name an `image` or a `save` to start from".to_owned()));
        }
        Ok(front)
    }

    /// How long the session may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }

    /// The test that the session is. What it names stays in memory to the end of the process, as what tests name does.
    pub(super) fn test(&self, name: &str, package: &str) -> TestMeta {
        let image = self.image.as_deref().map(|image| Variant::only(leak(image)));
        let start = match (&self.save, image) {
            (Some(save), image) => Start::Save { name: leak(save), image },
            (None, image) => Start::Image(image.unwrap_or(Variant::only(""))),
        };
        let Requires { kvm, network, memory, cpus, command } = &self.requires;
        let requires = [
            kvm.then_some(Requirement::Kvm),
            network.then_some(Requirement::Network),
            memory.map(Requirement::Memory),
            cpus.map(Requirement::Cpus),
            command.as_deref().map(|command| Requirement::Command(leak(command))),
        ];
        TestMeta {
            machine: MachineMeta {
                memory: self.memory,
                cpus: self.cpus,
                network: self.network,
                accel: self.accel,
                kernel: self.kernel,
                disk_size: self.disk_size,
                display: self.display,
            },
            requires: requires.into_iter().flatten().collect::<Vec<_>>().leak(),
            ..TestMeta::new(leak(name), leak(package), start)
        }
    }
}

fn leak(text: &str) -> &'static str {
    text.to_owned().leak()
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let size: Size = String::deserialize(from)?.parse().map_err(D::Error::custom)?;
    Ok(Some(size.bytes()))
}

fn network<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NetworkMode>, D::Error> {
    one_of(from, &[("none", NetworkMode::None), ("mounts-only", NetworkMode::MountsOnly), ("full", NetworkMode::Full)])
}

fn accel<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Accel>, D::Error> {
    let all =
        [("auto", Accel::Auto), ("kvm", Accel::Kvm), ("hvf", Accel::Hvf), ("whpx", Accel::Whpx), ("tcg", Accel::Tcg)];
    one_of(from, &all)
}

fn kernel<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Kernel>, D::Error> {
    one_of(from, &[("guest", Kernel::Guest), ("image", Kernel::Image)])
}

fn one_of<'de, D: Deserializer<'de>, T: Copy>(from: D, all: &[(&str, T)]) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(from)?;
    let found = all.iter().find(|(name, _)| *name == text).map(|(_, value)| Some(*value));
    let names = || all.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| D::Error::custom(format!("{text:?} is none of {}", names())))
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit.trim() {
        "ms" => Some(0.001),
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    let time = seconds.zip(number.parse().ok()).and_then(|(seconds, number): (f64, f64)| {
        Duration::try_from_secs_f64(seconds * number).ok().filter(|time| !time.is_zero())
    });
    time.map(Some)
        .ok_or_else(|| D::Error::custom(format!("{text:?} is no time: write a number and one of ms, s, m, h")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let front = FrontMatter::parse(
            r#"
            image = "debian"
            save = "base"
            memory = "1G"
            cpus = 2
            disk_size = "10G"
            display = true
            network = "full"
            accel = "tcg"
            kernel = "image"
            timeout = "1.5m"
            user = "nobody"
            directory = "/srv"
            shell = "bash"
            env = { A = "b" }
            requires = { network = true, kvm = true, memory = "2G", cpus = 2, command = "passt" }
            "#,
        )
        .unwrap();
        assert_eq!(front.timeout(), Duration::from_secs(90));
        assert_eq!(front.env["A"], "b");
        let test = front.test("cases::x", "/package");
        assert_eq!((test.name, test.manifest_dir), ("cases::x", "/package"));
        let Start::Save { name: "base", image: Some(image) } = test.start else { panic!("{:?}", test.start) };
        assert_eq!(image, Variant::only("debian"));
        let machine = MachineMeta {
            memory: Some(1 << 30),
            cpus: Some(2),
            network: Some(NetworkMode::Full),
            accel: Some(Accel::Tcg),
            kernel: Some(Kernel::Image),
            disk_size: Some(10 << 30),
            display: Some(true),
        };
        assert_eq!(test.machine, machine);
        let requires = [
            Requirement::Kvm,
            Requirement::Network,
            Requirement::Memory(2 << 30),
            Requirement::Cpus(2),
            Requirement::Command("passt"),
        ];
        assert_eq!(test.requires, requires);
    }

    #[test]
    fn little_is_enough() {
        let front = FrontMatter::parse("image = 'debian'").unwrap();
        assert_eq!(front.timeout(), DEFAULT_TIMEOUT);
        assert!(matches!(front.test("x", "/p").start, Start::Image(Variant { image: "debian", suffix: None })));
    }

    #[test]
    fn mistakes_are_explained_where_they_are() {
        for (text, line, reason) in [
            ("cpus = 2", 0, "name an `image` or a `save`"),
            ("image = 'a'\nmemroy = '1G'", 1, "unknown field `memroy`, expected one of `image`, `save`, `memory`"),
            ("image = 'a'\n\nnetwork = 'some'", 2, r#""some" is none of "none", "mounts-only", "full""#),
            ("image = 'a'\nkernel = 'newest'", 1, r#""newest" is none of "guest", "image""#),
            ("timeout = '3'", 0, r#""3" is no time"#),
            ("timeout = '0s'", 0, r#""0s" is no time"#),
            ("memory = 'much'", 0, "much"),
            ("image = debian", 0, ""),
            ("cpus = '2'", 0, "expected u32"),
        ] {
            let (at, why) = FrontMatter::parse(text).unwrap_err();
            assert!(at == line && why.contains(reason), "{text}: {at}: {why}");
        }
    }
}
