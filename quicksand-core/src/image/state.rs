//! Frozen machines on disk: warm states in the cache, and saves in a project. Both are the same kind of directory.
//!
//! ```text
//! manifest.json       written last
//! layers/0.qcow2 …    the disk above its image, from the bottom up
//! image/              the image at the bottom of the disk, with its kernel
//! memory              the guest's memory, sparse
//! devices             the state of its devices
//! video               what its display shows, where it has one, sparse
//! ```
//!
//! A state that is replaced or removed stays for as long as somebody uses it: whoever does holds its directory open, under a shared
//! lock, and reaches its files through that.
//!
//! A checkpoint or a fork is one, too, in a directory that goes with its last user in this process.
//!
//! Nothing in it is ever written again. Image and layers are shared with other states by hard links where the file
//! system can, so that a state costs what it changed and yet needs nothing outside its directory.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    unistd::linkat,
};
use serde::{Deserialize, Serialize, de::Error as _};

use crate::{
    base::{
        cache::hold,
        plain_file, random,
        versioned::{self, Unread},
    },
    image::Image,
    qemu::{Version, machine::Machine},
};

/// The manifest's version. Raised with every change that an older reader would misread.
const VERSION: u32 = 1;
/// Most files that a disk may have. QEMU opens them all at each start, so sane ones have a few dozen.
const MOST_LAYERS: usize = 1024;

/// What is written of a frozen machine beside its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: u32,
    /// Differs between any two states; what is made from this one is keyed by it.
    pub(crate) id: String,
    /// The image at the bottom of the disk.
    pub(crate) image: String,
    pub(crate) machine: Machine,
    /// [`Machine::key`] at the time of the freeze.
    pub(crate) machine_key: String,
    /// How many files the disk has in `layers`.
    pub(crate) layers: usize,
    /// The disk's size in bytes, where it was made larger than the image's.
    #[serde(default)]
    pub(crate) disk_size: Option<u64>,
    /// Whether its memory is there, too. Not so with what was imported.
    #[serde(default = "yes")]
    pub(crate) has_memory: bool,
    /// Whether a user network was at work, whose state is among the devices.
    pub(crate) user_network: bool,
    /// How many cards of private networks the guest had, for each of which there must be one.
    #[serde(default)]
    pub(crate) cards: u8,
    /// Whether the agent may have been frozen in the middle of a frame.
    pub(crate) in_frame: bool,
    /// What the state was made from, where it is remade when that changes.
    #[serde(default)]
    pub(crate) recipe: Option<String>,
    /// Why the machine does not run by the kernel that the guest asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel_fault: Option<String>,
}

impl Manifest {
    /// Reads the manifest that stands at `path`.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest, StateError> {
        let malformed = |source| StateError::Malformed { path: path.to_owned(), source };
        let manifest: Manifest = versioned::from_json(bytes, 0..=VERSION).map_err(|unread| match unread {
            Unread::Version(found) => StateError::Version { path: path.to_owned(), found },
            Unread::Malformed(source) => malformed(source),
        })?;
        if manifest.layers > MOST_LAYERS {
            let why = format!("it has {} layers, the limit is {MOST_LAYERS}", manifest.layers);
            return Err(malformed(serde_json::Error::custom(why)));
        }
        Ok(manifest)
    }

    /// That of the same machine's disk alone, under another id.
    pub(crate) fn imported(self, id: String) -> Manifest {
        Manifest { id, has_memory: false, ..self }
    }

    /// That of the same machine's disk alone.
    pub(crate) fn without_memory(self) -> Manifest {
        Manifest { has_memory: false, ..self }
    }

    /// Writes it to `path`, over what is there.
    pub(crate) fn write(&self, path: &Path) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| io_error("write", path)(e.into()))?;
        fs::write(path, text).map_err(io_error("write", path))
    }
}

fn yes() -> bool {
    true
}

/// What a manifest says of a machine that is being frozen.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    pub(crate) machine: Machine,
    pub(crate) machine_key: String,
    pub(crate) disk_size: u64,
    pub(crate) user_network: bool,
    pub(crate) cards: u8,
    pub(crate) in_frame: bool,
    pub(crate) recipe: Option<String>,
    pub(crate) kernel_fault: Option<String>,
}

/// What keeps the directory of a state until it is dropped.
pub(crate) trait Home: std::fmt::Debug + Send + Sync + 'static {}

/// A frozen machine.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// As the user knows it.
    directory: PathBuf,
    /// The same directory, whatever has its name by now.
    held: PathBuf,
    lock: Arc<File>,
    /// What removes its directory when it is dropped, where it does not outlast this process.
    _home: Option<Arc<dyn Home>>,
    /// The one that it has files of by name alone, where it does not outlast this process.
    base: Option<Arc<State>>,
    image: Image,
    pub(crate) manifest: Manifest,
}

/// How a state comes by a file of another one that lies on another file system, where it can't be linked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Across {
    /// By a copy, so that it needs nothing else.
    Copy,
    /// By name. Whoever uses it holds the other one, too.
    Name,
}

/// Why a frozen machine can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file of it could not be read or written.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// The manifest is not one.
    #[error("read {}: it is no manifest of a save", path.display())]
    Malformed {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The manifest is of a later quicksand.
    #[error("read {}: it has version {found}, and this quicksand reads up to {VERSION}; use a newer one", path.display())]
    Version {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A file that the manifest names is not there.
    #[error("use the save {}: its file {file} is missing; remove the save and make it again", directory.display())]
    Incomplete {
        /// The save.
        directory: PathBuf,
        /// The file.
        file: String,
    },
}

impl State {
    /// Reads the state in a directory, and holds on to it. `None` where there is none.
    pub(crate) fn read(directory: &Path) -> Result<Option<State>, StateError> {
        let Some(lock) = hold(directory).map_err(io_error("open", directory))? else { return Ok(None) };
        // QEMU opens files by this path, too, which is ours as long as we live.
        let held = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), lock.as_raw_fd()));
        let path = held.join("manifest.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { what: "read", path, source }),
        };
        let manifest = Manifest::parse(&directory.join("manifest.json"), &bytes)?;
        let missing = |file: &str| StateError::Incomplete { directory: directory.to_owned(), file: file.to_owned() };
        let image = Image::at(&held.join("image"), &manifest.image).ok().flatten().ok_or_else(|| missing("image"))?;
        let (directory, lock) = (directory.to_owned(), Arc::new(lock));
        let state = State { directory, held, lock, _home: None, base: None, image, manifest };
        for file in state.layers() {
            if !file.is_file() {
                return Err(missing(&file.strip_prefix(&state.held).unwrap_or(&file).display().to_string()));
            }
        }
        Ok(Some(state))
    }

    /// Reads a state that was written into a run directory, with files of `origin` by name. It goes with its last clone.
    pub(crate) fn read_passing(home: impl Home, directory: &Path, origin: &State) -> Result<Option<State>, StateError> {
        let Some(state) = State::read(directory)? else { return Ok(None) };
        // What it does not have itself is never of another passing one, whose files can all be linked to.
        let base = origin.base.clone().unwrap_or_else(|| Arc::new(origin.clone()));
        Ok(Some(State { _home: Some(Arc::new(home)), base: Some(base), ..state }))
    }

    /// Notes that it is used now, by which those that nobody uses are found.
    pub(crate) fn touch(&self) {
        // A save on a file system that is only read is none the worse for it.
        let _ = self.lock.set_modified(std::time::SystemTime::now());
    }

    /// Whether its memory is of that machine. The key is a claim of the state's, and what it was made of is what would be run: both
    /// must fit.
    pub(crate) fn is_for(&self, machine: &Machine, qemu: Version) -> bool {
        self.manifest.machine == *machine && self.manifest.machine_key == machine.key(qemu)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// When it was written.
    pub(crate) fn made(&self) -> Result<SystemTime, StateError> {
        let path = self.held.join("manifest.json");
        path.metadata().and_then(|metadata| metadata.modified()).map_err(io_error("look at", &path))
    }

    /// The disk's files above the image, from the bottom up. By number: `10` comes after `9`.
    pub(crate) fn layers(&self) -> Vec<PathBuf> {
        (0..self.manifest.layers).map(|number| layer_path(&self.held, number)).collect()
    }

    /// The same, by their names in the state's directory.
    pub(crate) fn named_layers(&self) -> impl Iterator<Item = (String, PathBuf)> {
        self.layers().into_iter().enumerate().map(|(number, path)| (format!("layers/{number}.qcow2"), path))
    }

    /// The files of its memory, by their names in its directory.
    pub(crate) fn named_memory(&self) -> Vec<(String, PathBuf)> {
        let named = [("memory", self.memory()), ("devices", self.devices()), ("video", self.video())];
        named.into_iter().filter(|(_, path)| path.is_file()).map(|(name, path)| (name.to_owned(), path)).collect()
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// The disk's size as the guest sees it, in bytes.
    pub(crate) fn disk_size(&self) -> u64 {
        self.manifest.disk_size.unwrap_or(self.image.disk_size())
    }

    /// All of the disk's files, from the image up.
    pub(crate) fn disk(&self) -> Vec<PathBuf> {
        [self.image.disk()].into_iter().chain(self.layers()).collect()
    }

    /// Why the memory can't be used, if it can't. Asked before every use: QEMU would make a file that is missing.
    pub(crate) fn memory_fault(&self) -> Option<String> {
        let len = |path: &Path| fs::metadata(path).map(|metadata| metadata.len());
        match (len(&self.memory()), len(&self.devices())) {
            (Ok(len), Ok(devices)) if len == self.manifest.machine.memory && devices > 0 => None,
            (Ok(_), Ok(_)) => Some("its memory or its devices are cut short".to_owned()),
            _ => Some("its memory or its devices are missing".to_owned()),
        }
    }

    pub(crate) fn manifest_file(&self) -> PathBuf {
        self.held.join("manifest.json")
    }

    pub(crate) fn memory(&self) -> PathBuf {
        memory_path(&self.held)
    }

    pub(crate) fn devices(&self) -> PathBuf {
        devices_path(&self.held)
    }

    pub(crate) fn video(&self) -> PathBuf {
        video_path(&self.held)
    }
}

/// Puts a frozen machine's files into a directory: the memory and devices are there, the layers are linked.
pub(crate) fn write(
    directory: &Path,
    image: &Image,
    layers: &[PathBuf],
    across: Across,
    description: Description,
) -> Result<(), StateError> {
    link_tree(image.directory(), &directory.join("image"), across)?;
    let layers_directory = directory.join("layers");
    fs::create_dir(&layers_directory).map_err(io_error("create", &layers_directory))?;
    for (number, layer) in layers.iter().enumerate() {
        link(layer, &layer_path(directory, number), across)?;
    }
    let id: [u8; 16] = random::bytes().map_err(io_error("draw an id for", directory))?;
    let manifest = Manifest {
        version: VERSION,
        id: random::hex(&id),
        image: image.name().to_owned(),
        machine: description.machine,
        machine_key: description.machine_key,
        layers: layers.len(),
        disk_size: Some(description.disk_size).filter(|size| *size != image.disk_size()),
        has_memory: true,
        user_network: description.user_network,
        cards: description.cards,
        in_frame: description.in_frame,
        recipe: description.recipe,
        kernel_fault: description.kernel_fault,
    };
    manifest.write(&directory.join("manifest.json"))
}

/// Gives a file that nobody writes a second name, or does as `across` says where that can't be, as across file systems.
pub(crate) fn link(from: &Path, to: &Path, across: Across) -> Result<(), StateError> {
    // A file that is there by name alone is followed to where it is.
    if linkat(AT_FDCWD, from, AT_FDCWD, to, AtFlags::AT_SYMLINK_FOLLOW).is_ok() {
        return Ok(());
    }
    match across {
        Across::Copy => plain_file::copy(from, to).map_err(io_error("copy to", to)),
        Across::Name => {
            let name = fs::read_link(from).unwrap_or_else(|_| from.to_owned());
            std::os::unix::fs::symlink(name, to).map_err(io_error("make the link", to))
        }
    }
}

pub(crate) fn link_tree(from: &Path, to: &Path, across: Across) -> Result<(), StateError> {
    fs::create_dir(to).map_err(io_error("create", to))?;
    for entry in fs::read_dir(from).map_err(io_error("read", from))? {
        let entry = entry.map_err(io_error("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() { link_tree(&source, &target, across)? } else { link(&source, &target, across)? }
    }
    Ok(())
}

pub(crate) fn memory_path(directory: &Path) -> PathBuf {
    directory.join("memory")
}

pub(crate) fn devices_path(directory: &Path) -> PathBuf {
    directory.join("devices")
}

pub(crate) fn video_path(directory: &Path) -> PathBuf {
    directory.join("video")
}

fn layer_path(directory: &Path, number: usize) -> PathBuf {
    directory.join("layers").join(format!("{number}.qcow2"))
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError + use<> {
    let path = path.to_owned();
    move |source| StateError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::versioned::assert_pinned, qemu::machine::Accelerator};

    fn description() -> Description {
        Description {
            machine: Machine {
                memory: 1 << 29,
                cpus: 1,
                accelerator: Accelerator::Tcg,
                display: false,
                extra_arguments: vec![],
            },
            machine_key: "k".into(),
            disk_size: 1 << 20,
            user_network: false,
            cards: 0,
            in_frame: false,
            recipe: None,
            kernel_fault: None,
        }
    }

    fn whole(directory: &Path, layers: usize) {
        let sources: Vec<_> = (0..layers).map(|n| directory.with_extension(format!("src{n}"))).collect();
        for (number, source) in sources.iter().enumerate() {
            fs::write(source, number.to_string()).unwrap();
        }
        fs::create_dir(directory).unwrap();
        fs::write(memory_path(directory), "m").unwrap();
        fs::write(devices_path(directory), "d").unwrap();
        let image = Image::sample(&directory.with_extension("image"));
        write(directory, &image, &sources, Across::Copy, description()).unwrap();
    }

    #[test]
    fn what_is_written_is_read_in_order() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("s");
        whole(&directory, 12);
        let state = State::read(&directory).unwrap().unwrap();
        let contents: Vec<_> = state.layers().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!(contents, (0..12).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(fs::read(state.image().disk()).unwrap(), b"disk");
    }

    #[test]
    fn a_state_in_use_outlives_its_name() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("s");
        whole(&directory, 2);
        let state = State::read(&directory).unwrap().unwrap();
        crate::base::cache::discard(&directory).unwrap();
        assert!(State::read(&directory).unwrap().is_none());
        assert_eq!(fs::read(&state.layers()[1]).unwrap(), b"1");
        assert_eq!(fs::read(state.image().disk()).unwrap(), b"disk");
        drop(state);
        crate::base::cache::discard(&directory).unwrap();
        let left = fs::read_dir(temp.path()).unwrap().flatten();
        assert!(left.map(|entry| entry.file_name()).all(|name| !name.to_string_lossy().starts_with('.')));
    }

    #[test]
    fn the_manifest_is_pinned() {
        let manifest = Manifest {
            version: VERSION,
            id: "i".into(),
            image: "debian".into(),
            machine: Machine { extra_arguments: vec!["-x".into()], ..description().machine },
            machine_key: "k".into(),
            layers: 2,
            disk_size: Some(1 << 30),
            has_memory: true,
            user_network: true,
            cards: 1,
            in_frame: false,
            recipe: Some("r".into()),
            kernel_fault: Some("f".into()),
        };
        let pinned = r#"{"version":1,"id":"i","image":"debian","machine":{"memory":536870912,"cpus":1,"accelerator":"tcg","display":false,"extra_arguments":["-x"]},"machine_key":"k","layers":2,"disk_size":1073741824,"has_memory":true,"user_network":true,"cards":1,"in_frame":false,"recipe":"r","kernel_fault":"f"}"#;
        let now = serde_json::to_string(&manifest).unwrap();
        assert_pinned("the manifest of a save", "raise VERSION in state.rs", pinned, &now);
        assert_eq!(Manifest::parse(Path::new("m"), pinned.as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn absent_damaged_and_later_ones_are_told_apart() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("s");
        assert!(State::read(&directory).unwrap().is_none());
        whole(&directory, 2);
        fs::remove_file(directory.join("layers/1.qcow2")).unwrap();
        let error = State::read(&directory).unwrap_err();
        assert!(matches!(&error, StateError::Incomplete { file, .. } if file == "layers/1.qcow2"), "{error}");
        let manifest = directory.join("manifest.json");
        let manifest_text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, r#"{"version": 99, "new": true}"#).unwrap();
        assert!(matches!(State::read(&directory), Err(StateError::Version { found: 99, .. })));
        let other = manifest_text.replace("\"layers\": 2", "\"layers\": 18446744073709551615");
        fs::write(&manifest, other).unwrap();
        assert!(matches!(State::read(&directory), Err(StateError::Malformed { .. })));
        fs::write(&manifest, "{").unwrap();
        assert!(matches!(State::read(&directory), Err(StateError::Malformed { .. })));
    }
}
