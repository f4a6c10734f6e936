//! The user's project: where it is, what `quicksand.toml` in it says, and what `quicksand.lock` holds on to.
//!
//! Both files are beside the project's `Cargo.toml`, that of the workspace where there is one. `quicksand.toml` is written by the
//! user:
//!
//! ```toml
//! [images]
//! mirror = "https://mirror.example.org/images"   # asked before the publishers, see `image`
//!
//! [images.keyrings]                               # whose signatures are demanded, see `image::catalogue`
//! ubuntu = "keys/ubuntu.gpg"
//!
//! [images.mytools]                                # built here, see `image::recipe`
//! from = "debian"
//! run = ["apt-get update"]
//! ```
//!
//! `quicksand.lock` is written by quicksand and meant to be committed. It says for each name of an image which one that is, so that
//! it is the same tomorrow and for everybody.

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};

use crate::{
    base::{
        cache::{Cache, CacheError},
        digest::short_key,
        plain_file,
        versioned::{self, Unread},
    },
    image::recipe::Recipe,
};

const CONFIG: &str = "quicksand.toml";
const LOCK: &str = "quicksand.lock";
/// The lock's version. Raised with every change that an older reader would misread.
const VERSION: u32 = 1;
/// What the lock begins with.
const HEAD: &str =
    "# Which image each name stands for. Written by quicksand; commit it. `quicksand images update` moves it on.\n";
/// How long another process may take to change the lock.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a project's files can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectError {
    /// A file could not be read or written.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// A file says what means nothing.
    #[error("read {}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        source: Box<toml::de::Error>,
    },
    /// The lock is of a later quicksand.
    #[error("read {}: it has version {found}, and this quicksand reads up to {VERSION}; use a newer one", path.display())]
    Version {
        /// The lock.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The cache failed us.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    root: PathBuf,
}

/// What `quicksand.toml` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) images: ImagesConfig,
}

/// How images are got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImagesConfig {
    /// Where publishers' files are looked for first.
    pub(crate) mirror: Option<String>,
    /// Files of publishers' keys, by the name of the distribution, relative to the file that says so.
    pub(crate) keyrings: BTreeMap<String, PathBuf>,
    /// Images that are built here, by name.
    pub(crate) recipes: BTreeMap<String, Recipe>,
}

/// By hand, since a derived one that takes any name does not tell where a mistake stands.
impl<'de> Deserialize<'de> for ImagesConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ImagesConfig, D::Error> {
        struct Images;
        impl<'de> Visitor<'de> for Images {
            type Value = ImagesConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`mirror`, `keyrings`, and recipes of images by their names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ImagesConfig, A::Error> {
                let mut images = ImagesConfig::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "mirror" {
                        images.mirror = Some(map.next_value()?);
                    } else if name == "keyrings" {
                        images.keyrings = map.next_value()?;
                    } else {
                        images.recipes.insert(name, map.next_value()?);
                    }
                }
                Ok(images)
            }
        }
        from.deserialize_map(Images)
    }
}

/// Which image a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Locked {
    /// Where it is from: a URL, or how it is built.
    pub source: String,
    /// What is there, as an algorithm and hexadecimal digits. A build on this host has none: it is made of the packages of its day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Why the digest is believed: `signature of` a key's fingerprint, or `TLS`, where it came from its publisher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
    /// The day on which that was found out.
    pub date: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Lock {
    version: u32,
    #[serde(default)]
    images: BTreeMap<String, Locked>,
}

impl Locked {
    /// What was found out today.
    pub(crate) fn today(source: impl Into<String>, digest: Option<String>) -> Locked {
        Locked { source: source.into(), digest, trust: None, date: today() }
    }

    pub(crate) fn trusted(self, trust: Option<String>) -> Locked {
        Locked { trust, ..self }
    }
}

impl Project {
    /// The project that the current directory is in. `None` outside of any.
    pub fn find() -> Option<Project> {
        Project::above(&env::current_dir().ok()?)
    }

    /// Tests run in their package's directory, whose workspace may be above it. That is where `Cargo.lock` is, and where our own
    /// files are once there are any.
    fn above(directory: &Path) -> Option<Project> {
        let with = |files: &[&str]| {
            let has = |at: &&Path| files.iter().any(|file| at.join(file).is_file());
            directory.ancestors().find(has).map(|root| Project { root: root.to_owned() })
        };
        let cargo = |project: &Project| project.root.join("Cargo.toml").is_file();
        with(&[CONFIG, LOCK]).or_else(|| with(&["Cargo.lock"]).filter(cargo)).or_else(|| with(&["Cargo.toml"]))
    }

    /// The project in that directory.
    pub(crate) fn at(root: PathBuf) -> Project {
        Project { root }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What `quicksand.toml` says; nothing where there is none.
    pub(crate) fn config(&self) -> Result<Config, ProjectError> {
        let path = self.root.join(CONFIG);
        match read(&path)? {
            Some(text) => toml::from_str(&text).map_err(malformed(&path)),
            None => Ok(Config::default()),
        }
    }

    /// Which image a name stands for, where that is known.
    pub fn locked(&self, name: &str) -> Result<Option<Locked>, ProjectError> {
        Ok(self.lock()?.images.remove(name))
    }

    /// All names that are known, with what they stand for.
    pub fn all_locked(&self) -> Result<BTreeMap<String, Locked>, ProjectError> {
        Ok(self.lock()?.images)
    }

    /// Writes down which image a name stands for.
    pub(crate) async fn set_locked(&self, cache: &Cache, name: &str, locked: Locked) -> Result<(), ProjectError> {
        let path = self.root.join(LOCK);
        let _others = cache.lock(&format!("lock-{}", short_key(&path.to_string_lossy())), PATIENCE).await?;
        let mut lock = self.lock()?;
        lock.version = VERSION;
        lock.images.insert(name.to_owned(), locked);
        let text = toml::to_string(&lock).map_err(|error| io_error("write", &path)(io::Error::other(error)))?;
        let unfinished = self.root.join(format!(".{LOCK}.new"));
        let written = fs::write(&unfinished, format!("{HEAD}{text}")).and_then(|()| fs::rename(&unfinished, &path));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written.map_err(io_error("write", &path))
    }

    fn lock(&self) -> Result<Lock, ProjectError> {
        let path = self.root.join(LOCK);
        let Some(text) = read(&path)? else { return Ok(Lock::default()) };
        versioned::from_toml(&text, 0..=VERSION).map_err(|unread| match unread {
            Unread::Version(found) => ProjectError::Version { path, found },
            Unread::Malformed(source) => malformed(&path)(source),
        })
    }
}

fn read(path: &Path) -> Result<Option<String>, ProjectError> {
    match plain_file::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProjectError + use<> {
    let path = path.to_owned();
    move |source| ProjectError::Io { what, path, source }
}

fn malformed(path: &Path) -> impl Fn(toml::de::Error) -> ProjectError + use<> {
    let path = path.to_owned();
    move |source| ProjectError::Malformed { path: path.clone(), source: Box::new(source) }
}

/// The day, in UTC, as in `2025-02-28`.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    day(seconds / 86_400)
}

/// The day so many days after 1970-01-01. Years are counted from March, so that the odd day is a year's last.
fn day(days: u64) -> String {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month, late) = (of_year - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1, month >= 10);
    format!("{:04}-{month:02}-{day:02}", era * 400 + year_of_era + u64::from(late))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::versioned::assert_pinned;

    #[test]
    fn days_have_dates() {
        for (days, date) in [(0, "1970-01-01"), (11_016, "2000-02-29"), (11_017, "2000-03-01"), (20_147, "2025-02-28")]
        {
            assert_eq!(day(days), date);
        }
    }

    #[test]
    fn the_workspace_is_found_from_a_package() {
        let temp = tempfile::tempdir().unwrap();
        let package = temp.path().join("workspace/package");
        fs::create_dir_all(&package).unwrap();
        let write = |path: &str| fs::write(temp.path().join(path), "").unwrap();
        let found =
            || Project::above(&package).map(|project| project.root.strip_prefix(temp.path()).unwrap().to_owned());
        write("workspace/package/Cargo.toml");
        assert_eq!(found().unwrap(), Path::new("workspace/package"));
        write("workspace/Cargo.toml");
        write("workspace/Cargo.lock");
        assert_eq!(found().unwrap(), Path::new("workspace"));
        write("workspace/package/quicksand.toml");
        assert_eq!(found().unwrap(), Path::new("workspace/package"));
    }

    #[tokio::test]
    async fn what_is_locked_is_kept_and_sorted() {
        let temp = tempfile::tempdir().unwrap();
        let cache = Cache::at(&temp.path().join("cache")).unwrap();
        let project = Project { root: temp.path().to_owned() };
        assert_eq!(project.locked("debian").unwrap(), None);
        let fedora = Locked::today("https://example.org/f.qcow2", Some("sha256:00".into()));
        let debian =
            Locked { source: "packages of bookworm".into(), digest: None, trust: None, date: "2025-01-01".into() };
        let (one, two) = tokio::join!(
            project.set_locked(&cache, "fedora:42", fedora.clone()),
            project.set_locked(&cache, "debian", debian.clone())
        );
        one.and(two).unwrap();
        assert_eq!(project.locked("fedora:42").unwrap(), Some(fedora));
        let text = fs::read_to_string(temp.path().join(LOCK)).unwrap();
        let debian_first = "version = 1\n\n[images.debian]\nsource = \"packages of bookworm\"\ndate = \"2025-01-01\"\n\n\
                            [images.\"fedora:42\"]\n";
        assert!(text.starts_with(&format!("{HEAD}{debian_first}")), "{text}");
        assert_eq!(project.all_locked().unwrap().keys().collect::<Vec<_>>(), ["debian", "fedora:42"]);
    }

    #[test]
    fn the_lock_is_pinned() {
        let locked = Locked {
            source: "https://example.org/f.qcow2".into(),
            digest: Some("sha256:00".into()),
            trust: Some("TLS".into()),
            date: "2025-01-01".into(),
        };
        let lock = Lock { version: VERSION, images: BTreeMap::from([("fedora:42".into(), locked.clone())]) };
        let pinned = "version = 1\n\n[images.\"fedora:42\"]\nsource = \"https://example.org/f.qcow2\"\n\
                      digest = \"sha256:00\"\ntrust = \"TLS\"\ndate = \"2025-01-01\"\n";
        assert_pinned("quicksand.lock", "raise VERSION in project.rs", pinned, &toml::to_string(&lock).unwrap());
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(LOCK), format!("{HEAD}{pinned}")).unwrap();
        assert_eq!(Project::at(temp.path().to_owned()).locked("fedora:42").unwrap(), Some(locked));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let temp = tempfile::tempdir().unwrap();
        let project = Project { root: temp.path().to_owned() };
        assert_eq!(project.config().unwrap(), Config::default());
        fs::write(temp.path().join(CONFIG), "[images]\nmiror = 1\n").unwrap();
        let ProjectError::Malformed { source, .. } = project.config().unwrap_err() else { panic!() };
        assert!(source.to_string().contains("line 2") && source.to_string().contains("miror"), "{source}");
        fs::write(temp.path().join(LOCK), "version = 9\nimages = 3\n").unwrap();
        assert!(matches!(project.locked("x"), Err(ProjectError::Version { found: 9, .. })));
        fs::write(temp.path().join(CONFIG), "[images]\nmirror = \"https://x\"\n").unwrap();
        assert_eq!(project.config().unwrap().images.mirror.as_deref(), Some("https://x"));
    }
}
