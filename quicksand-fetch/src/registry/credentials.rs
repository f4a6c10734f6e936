//! The user's logins: those of Docker's `config.json` and of the programs that it names.

use std::{fmt, io::Cursor, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};

use super::{DockerConfig, Logins, RegistryError};

/// How long the program that keeps credentials may take. It may ask its user something.
const PATIENCE: Duration = Duration::from_secs(60);
/// By what name Docker keeps the login for its own registry, and what that registry is called else.
const DOCKER: &str = "https://index.docker.io/v1/";
const DOCKER_HOSTS: [&str; 3] = ["index.docker.io", "docker.io", "registry-1.docker.io"];

/// A name and a password.
#[derive(Clone)]
pub(super) struct Login {
    user: String,
    password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Login {
    /// As HTTP's scheme `Basic` has it.
    pub(super) fn in_basic(&self) -> String {
        BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password))
    }
}

impl Logins {
    /// The login for a registry. Where there is none the registry is asked without.
    pub(super) async fn find(&self, registry: &str) -> Result<Option<Login>, RegistryError> {
        let failed = |why: String| RegistryError::Credentials { registry: registry.to_owned(), why };
        let Some(DockerConfig { path, content }) = self.0.clone() else { return Ok(None) };
        let name = if DOCKER_HOSTS.contains(&registry) { DOCKER } else { registry }.to_owned();
        let asked = tokio::task::spawn_blocking(move || get_credential_from_reader(Cursor::new(content), &name));
        let found = tokio::time::timeout(PATIENCE, asked).await;
        let found = found.map_err(|_| failed(format!("no answer in {} s", PATIENCE.as_secs())))?;
        let found = found.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        match found {
            Ok(DockerCredential::UsernamePassword(user, password)) => Ok(Some(Login { user, password })),
            Ok(DockerCredential::IdentityToken(_)) => {
                let why = "they are an identity token, which is not supported: log in with a name and a password";
                Err(failed(why.to_owned()))
            }
            Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
            Err(CredentialRetrievalError::ConfigReadError) => {
                Err(failed(format!("{} is not a configuration of Docker's", path.display())))
            }
            // What all of these programs say where they have none, on either stream.
            Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
                if [&stdout, &stderr].iter().any(|said| said.contains("credentials not found")) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed(error.to_string().trim().to_owned())),
        }
    }
}
