//! What quicksand-fetch is told: it reads no environment and knows no cache.

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use quicksand_fetch::{
    Certificates, Proxies, RegistryError, Settings, SettingsError,
    download::Store,
    registry::{Access, Logins, Registry},
};

use super::{
    cache::{Cache, Lock, download_lock_name},
    environment::{Environment, EnvironmentError},
    plain_file,
    progress::Reporter,
};

/// How long another process may take to download the same file.
const OTHERS_PATIENCE: Duration = Duration::from_secs(6 * 60 * 60);

impl Store for Cache {
    type Lock = Lock;

    fn directory(&self) -> PathBuf {
        self.downloads()
    }

    async fn lock(&self, name: &str) -> Result<Lock, Box<dyn Error + Send + Sync>> {
        Ok(Cache::lock(self, &download_lock_name(name), OTHERS_PATIENCE).await?)
    }
}

/// What the variables say that have proxies and certificates. They are not ours alone, and other programs heed them, too.
pub(crate) fn settings(environment: &Environment) -> Result<Settings, SettingsError> {
    let mut settings = Settings::default();
    settings.offline = environment.offline;
    settings.proxies = Proxies::from_variables(|name| env::var(name).ok());
    settings.certificates = certificates(path("SSL_CERT_FILE"), path("SSL_CERT_DIR"))?;
    Ok(settings)
}

/// A place in a registry, which is named as images name it or as everybody else does.
pub(crate) async fn registry<E>(reference: &str, access: Access) -> Result<Registry, E>
where
    E: From<EnvironmentError> + From<RegistryError>,
{
    let settings = settings(&Environment::read()?).map_err(RegistryError::from)?;
    let reference = reference.strip_prefix("oci:").unwrap_or(reference);
    Ok(Registry::connect(reference, access, &settings, &logins()?).await?)
}

/// Has a download's stages reported.
pub(crate) fn report(reporter: &Reporter) -> impl Fn(&'static str, u64, u64) + Send + Sync + 'static + use<> {
    let reporter = reporter.clone();
    move |stage, current, total| reporter.report(stage, current, total)
}

/// An error of quicksand-fetch with all that led to it, as the messages of this crate are: its sentence without the words "failed to".
pub(crate) fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text.strip_prefix("failed to ").unwrap_or(&text).to_owned()
}

/// The certificates of a file and of a directory, where either is named.
fn certificates(file: Option<PathBuf>, directory: Option<PathBuf>) -> Result<Option<Certificates>, SettingsError> {
    let Some(shown) = file.clone().or(directory.clone()) else { return Ok(None) };
    let mut pem = match file {
        Some(path) => {
            let refused = |error: io::Error| SettingsError::Certificates { path: path.clone(), why: error.to_string() };
            plain_file::read(&path).map_err(refused)?
        }
        None => Vec::new(),
    };
    for entry in directory.and_then(|directory| fs::read_dir(directory).ok()).into_iter().flatten().flatten() {
        let path = entry.path();
        if is_hash(&path) {
            // A link there may lead to nothing.
            pem.extend(plain_file::read(&path).unwrap_or_default());
            pem.push(b'\n');
        }
    }
    Ok(Some(Certificates::from_pem(&shown, pem)))
}

/// Whether that is what OpenSSL looks for in a directory of certificates: a name such as `5ed36f99.0`. The same certificates lie there
/// under other names as well.
fn is_hash(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some((hash, number)) = name.split_once('.') else { return false };
    hash.len() == 8
        && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        && number.parse::<u32>().is_ok_and(|it| it < 100)
}

/// Docker's logins, where the user has any.
fn logins() -> Result<Logins, RegistryError> {
    let directory = path("DOCKER_CONFIG").or_else(|| Some(path("HOME")?.join(".docker")));
    let Some(path) = directory.map(|directory| directory.join("config.json")) else { return Ok(Logins::default()) };
    match plain_file::read(&path) {
        Ok(content) => Ok(Logins::of_docker(path, content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Logins::default()),
        Err(source) => Err(RegistryError::Io { what: "read", path, source }),
    }
}

fn path(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_those_of_the_file_and_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["bundle.pem", "0a1b2c3d.0", "0a1b2c3d.r0", "README.0"] {
            fs::write(at(name), name).unwrap();
        }
        std::os::unix::fs::symlink("nothing", at("ffffffff.1")).unwrap();
        assert!(certificates(None, None).unwrap().is_none());
        let both = certificates(Some(at("bundle.pem")), Some(directory.path().to_owned())).unwrap().unwrap();
        assert!(format!("{both:?}").contains("bundle.pem"));
        let error = certificates(Some(at("none.pem")), None).unwrap_err().to_string();
        assert!(error.contains("none.pem") && error.contains("SSL_CERT_FILE"), "{error}");
        let hashes = ["0a1b2c3d.0", "0a1b2c3d.r0", "README.0", "bundle.pem"].map(|name| is_hash(&at(name)));
        assert_eq!(hashes, [true, false, false, false]);
    }

    #[test]
    fn an_error_is_told_with_what_led_to_it() {
        let source = io::Error::other("it is a pipe");
        let error = RegistryError::Io { what: "read", path: "/x".into(), source };
        assert_eq!(told(&error), "read /x: it is a pipe");
    }
}
