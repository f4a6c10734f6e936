//! [`Saves`]: the saves of a project, and their way to another one as a file.

pub(crate) mod artifact;
pub(crate) mod image_share;
pub(crate) mod kept;

pub(crate) mod archive;
mod export;
pub(crate) mod import;
mod share;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::base::blocking::blocking;

pub use crate::error::archive::ArchiveError;

use crate::{
    base::{
        cache::{Cache, Lock, discard},
        environment::Environment,
        progress::Reporter,
        size::Size,
    },
    error::{Error, Result},
    image::state::State,
    sandbox::{DEFAULT_SAVES_DIR, make_saves_dir, save::check_name, save_lock_name},
};

/// How long another process may take to write the save that we want to write.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The saves in a directory.
///
/// ```no_run
/// # async fn f() -> quicksand_core::Result<()> {
/// use quicksand_core::{Reporter, Saves};
///
/// let saves = Saves::in_project();
/// for save in saves.list()? {
///     println!("{} of {}, {}", save.name(), save.image(), save.size());
/// }
/// saves.export("with-jq", "with-jq.tar.gz", &Reporter::silent()).await?;
/// // Elsewhere:
/// saves.import("with-jq.tar.gz", "with-jq", &Reporter::silent()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Saves {
    directory: PathBuf,
}

/// A save that is there.
#[derive(Debug, Clone)]
pub struct Save {
    name: String,
    state: State,
}

impl Saves {
    /// Those in a directory, which need not be there.
    pub fn at(directory: impl Into<PathBuf>) -> Saves {
        Saves { directory: directory.into() }
    }

    /// Those of the project in the current directory: `.quicksand/sandboxes`.
    pub fn in_project() -> Saves {
        Saves::at(DEFAULT_SAVES_DIR)
    }

    /// All of them, by name. One that is damaged or of a later version is left out.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the directory can't be read.
    pub fn list(&self) -> Result<Vec<Save>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("read", &self.directory))?,
        };
        let mut saves = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io("read", &self.directory))?.file_name();
            // What is half made or on its way out has a name that no save has.
            let Some(name) = name.to_str().filter(|name| check_name(name).is_ok()) else { continue };
            match self.open(name) {
                Ok(save) => saves.push(save),
                Err(error) => tracing::warn!(name, %error, "a save is left out"),
            }
        }
        saves.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(saves)
    }

    /// The save of that name.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], [`Error::NoSuchSave`], and [`Error::State`] where it can't be used.
    pub fn open(&self, name: &str) -> Result<Save> {
        check_name(name)?;
        match State::read(&self.directory.join(name))? {
            Some(state) => Ok(Save { name: name.to_owned(), state }),
            None => Err(self.no_such(name)),
        }
    }

    /// Removes the save of that name. Machines that run from it run on; what it takes on disk is free when they have ended and another
    /// save is written or removed.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], [`Error::NoSuchSave`], [`Error::Cache`].
    pub fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let directory = self.directory.join(name);
        if !directory.is_dir() {
            return Err(self.no_such(name));
        }
        Ok(discard(&directory)?)
    }

    /// Writes a save to one compressed file (a tar under gzip), in place of one that is there. It holds the disk and all that belongs
    /// to it, but not the memory: that fits one version of QEMU and one kind of processor, and QEMU is not to read a stranger's.
    ///
    /// `reporter` hears of the stages `digest` and `pack`, in bytes.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Saves::open); [`Error::Archive`] where a file can't be read or written. No half of a file stays.
    pub async fn export(&self, name: &str, file: impl AsRef<Path>, reporter: &Reporter) -> Result<()> {
        let (save, file, reporter) = (self.open(name)?, file.as_ref().to_owned(), reporter.clone());
        blocking(move || Ok(export::write(&save.state, &file, &reporter)?)).await
    }

    /// Makes a save of an exported file. Its first start boots it from its disk, and keeps the warm state: later ones are fast.
    ///
    /// The file is not trusted: sizes and digests are checked, every path stays in the save, no disk names another file, and no more
    /// is written than the file announced at its beginning. Still, what boots is a stranger's system: [`NetworkMode`](crate::NetworkMode)
    /// says what it reaches.
    ///
    /// `reporter` hears of the stage `unpack`, in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`]; [`Error::SaveExists`] where there is one of that name; [`Error::NoSpace`]; [`Error::Archive`] where the
    /// file is cut short, damaged or hostile. Nothing of it stays then.
    pub async fn import(&self, file: impl AsRef<Path>, name: &str, reporter: &Reporter) -> Result<Save> {
        check_name(name)?;
        let directory = std::path::absolute(self.directory.join(name)).map_err(Error::io("find", &self.directory))?;
        make_saves_dir(&directory)?;
        let cache = Cache::chosen(Environment::read()?.cache_dir)?;
        let lock: Lock = cache.lock(&save_lock_name(&directory), PATIENCE).await?;
        if directory.exists() {
            return Err(Error::SaveExists { name: name.to_owned(), directory });
        }
        let (file, reporter) = (file.as_ref().to_owned(), reporter.clone());
        blocking(move || {
            let _lock = lock;
            import::read(&file, &directory, &reporter)
        })
        .await?;
        self.open(name)
    }

    fn no_such(&self, name: &str) -> Error {
        Error::NoSuchSave { name: name.to_owned(), saves: self.directory.clone() }
    }
}

impl Save {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.state.directory()
    }

    /// The image at the bottom of its disk.
    pub fn image(&self) -> &str {
        self.state.image().name()
    }

    /// The memory of its machine.
    pub fn memory(&self) -> Size {
        Size::from_bytes(self.state.manifest.machine.memory)
    }

    /// The processors of its machine.
    pub fn cpus(&self) -> u32 {
        self.state.manifest.machine.cpus
    }

    /// The size of its disk, as the guest sees it.
    pub fn disk_size(&self) -> Size {
        Size::from_bytes(self.state.disk_size())
    }

    /// Whether it holds the memory of a machine. One that was imported, or pulled where its memory does not fit, does not: it starts from
    /// its disk, or the warm state of that.
    pub fn has_memory(&self) -> bool {
        self.state.memory_fault().is_none()
    }

    /// When it was written.
    ///
    /// # Errors
    ///
    /// [`Error::State`] where the file system does not tell.
    pub fn made(&self) -> Result<SystemTime> {
        Ok(self.state.made()?)
    }

    /// What its own files take on disk: memory and layers, but not the image, which saves share where they can.
    pub fn size(&self) -> Size {
        use std::os::unix::fs::MetadataExt;
        let own = self.state.layers().into_iter().chain([self.state.memory(), self.state.devices()]);
        // In units of 512 bytes, whatever the file system's blocks are.
        let blocks = own.filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.blocks());
        Size::from_bytes(blocks.sum::<u64>() * 512)
    }
}
