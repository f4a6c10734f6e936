//! What is said to a registry, in HTTP.
//!
//! Nothing of it is believed: answers are taken up to a size, waited for up to a time, and no redirection leaves encryption.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use reqwest::{
    Client, Method, Proxy, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, LOCATION, WWW_AUTHENTICATE},
    redirect::Policy,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::Deserialize;
use tokio::{sync::Mutex, time::timeout};

use super::{Access, RegistryError, credentials::Login};
use crate::{Certificates, Settings};

/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(20);
/// How many redirections are followed.
const MOST_REDIRECTIONS: usize = 8;
/// The most of an answer that is looked at for what went wrong, or for a token: in bytes.
const LARGEST_ANSWER: u64 = 64 << 10;
/// The most of a registry's words that an error repeats, in characters.
const MOST_SAID: usize = 300;

/// A client of one repository of a registry.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    /// `https://registry/v2/`
    base: Url,
    /// The registry's name, as references have it.
    registry: String,
    repository: String,
    /// What is asked for where a token is: `pull` or `pull,push`.
    actions: &'static str,
    login: Option<Login>,
    /// What the registry was last shown.
    authorization: Mutex<Option<String>>,
    /// How long nothing may come.
    patience: Duration,
}

/// What a request is about, where it needs more than its path.
#[derive(Debug, Default)]
pub(super) struct Ask<'a> {
    pub(super) accept: &'a [&'a str],
    /// The first byte that is wanted, where it is not the very first.
    pub(super) from: u64,
    /// The media type and the content.
    pub(super) body: Option<(&'static str, &'a [u8])>,
}

/// What a registry answered in place of what was asked for.
#[derive(Debug)]
struct Answer {
    url: Url,
    status: StatusCode,
    said: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { url, status, said } = self;
        write!(f, "{url} answered {status}")?;
        if said.is_empty() { Ok(()) } else { write!(f, ": {said}") }
    }
}

impl Error for Answer {}

impl Http {
    pub(super) fn new(
        registry: &str,
        repository: &str,
        login: Option<Login>,
        access: Access,
        settings: &Settings,
        patience: Duration,
    ) -> Result<Http, RegistryError> {
        let failed = |source: Box<dyn Error + Send + Sync>| RegistryError::Failed {
            doing: format!("set up a client for {registry}"),
            source,
        };
        let proxies = settings.proxies.parsed(proxy_url)?;
        let roots = Certificates::trusted(settings.certificates.as_ref(), certificates)?;
        let tls = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let tls = tls.map(|tls| tls.with_root_certificates(root_store(roots)).with_no_client_auth());
        let client = Client::builder()
            .tls_backend_preconfigured(tls.map_err(|error| failed(error.into()))?)
            .proxy(Proxy::custom(move |url| proxies.of(url.as_str()).cloned()))
            .connect_timeout(CONNECT_PATIENCE)
            .redirect(Policy::custom(|attempt| {
                let from_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
                if attempt.previous().len() > MOST_REDIRECTIONS {
                    attempt.error(format!("it redirects more than {MOST_REDIRECTIONS} times"))
                } else if from_https && attempt.url().scheme() != "https" {
                    let url = attempt.url().clone();
                    attempt.error(format!("it redirects to {url}, which is not encrypted"))
                } else {
                    attempt.follow()
                }
            }))
            .user_agent(concat!("quicksand/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Http {
            client: client.map_err(|error| failed(error.into()))?,
            base: format!("https://{registry}/v2/").parse().map_err(|error| failed(Box::new(error)))?,
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            actions: match access {
                Access::Pull => "pull",
                Access::Push => "pull,push",
            },
            login,
            authorization: Mutex::default(),
            patience,
        })
    }

    /// Speaks without encryption from now on.
    pub(super) fn in_the_clear(&mut self) {
        // Between these two it can always be changed.
        _ = self.base.set_scheme("http");
    }

    /// Sees whether the registry is there.
    pub(super) async fn greet(&self) -> Result<(), RegistryError> {
        let doing = format!("log in to {}", self.registry);
        match self.send(&doing, self.client.get(self.base.clone()), self.patience).await?.status() {
            // Whether that is needed, what is asked for next tells.
            StatusCode::OK | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(()),
            StatusCode::NOT_FOUND => Err(RegistryError::Failed { doing, source: "it is no registry".into() }),
            status => Err(RegistryError::Failed { doing, source: format!("it answered {status}").into() }),
        }
    }

    /// A URL of the repository.
    pub(super) fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let joined = self.base.join(&format!("{}/{path}", self.repository));
        joined.map_err(|error| RegistryError::Failed { doing: format!("ask for {path}"), source: Box::new(error) })
    }

    /// Where a registry said to go on.
    pub(super) fn location(&self, doing: &str, answer: &Response) -> Result<Url, RegistryError> {
        let location = answer.headers().get(LOCATION).and_then(|it| it.to_str().ok());
        let next = location.and_then(|location| answer.url().join(location).ok());
        let (expected, found) = match next {
            Some(next) if next.scheme() == answer.url().scheme() || next.scheme() == "https" => return Ok(next),
            Some(next) => ("an encrypted place for it", next.to_string()),
            None => ("a place for it", format!("{:?}", location.unwrap_or_default())),
        };
        Err(RegistryError::Wrong { doing: doing.to_owned(), expected: expected.to_owned(), found })
    }

    /// Asks, with the login where one is asked for. The answer is one of success.
    pub(super) async fn ask(
        &self,
        doing: &str,
        method: Method,
        url: Url,
        ask: &Ask<'_>,
        patience: Duration,
    ) -> Result<Response, RegistryError> {
        let mut tried = false;
        loop {
            let mut request = self.client.request(method.clone(), url.clone());
            if !ask.accept.is_empty() {
                request = request.header("accept", ask.accept.join(", "));
            }
            if ask.from > 0 {
                request = request.header("range", format!("bytes={}-", ask.from));
            }
            request = match ask.body {
                Some((media_type, content)) => request.header("content-type", media_type).body(content.to_vec()),
                None if method == Method::POST => request.header("content-length", 0),
                None => request,
            };
            let shown = self.authorization.lock().await.clone();
            if let Some(shown) = &shown {
                request = request.header(AUTHORIZATION, shown);
            }
            let answer = self.send(doing, request, patience).await?;
            if answer.status() == StatusCode::UNAUTHORIZED && !tried {
                tried = true;
                if self.authorize(doing, answer.headers(), shown).await? {
                    continue;
                }
            }
            return if answer.status().is_success() { Ok(answer) } else { Err(self.refusal(doing, answer).await) };
        }
    }

    /// A body, up to a size.
    pub(super) async fn body(&self, doing: &str, mut answer: Response, most: u64) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece(doing, &mut answer).await? {
            if (body.len() + piece.len()) as u64 > most {
                let (doing, expected) = (doing.to_owned(), format!("at most {most} bytes"));
                return Err(RegistryError::Wrong { doing, expected, found: "more".to_owned() });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// The next piece of a body. `None` at its end.
    pub(super) async fn piece(
        &self,
        doing: &str,
        answer: &mut Response,
    ) -> Result<Option<impl AsRef<[u8]> + std::ops::Deref<Target = [u8]> + use<>>, RegistryError> {
        match timeout(self.patience, answer.chunk()).await {
            Ok(piece) => piece.map_err(|error| failed(doing, error)),
            Err(_) => Err(self.silence(doing, self.patience)),
        }
    }

    async fn send(&self, doing: &str, request: RequestBuilder, patience: Duration) -> Result<Response, RegistryError> {
        match timeout(patience, request.send()).await {
            Ok(answer) => answer.map_err(|error| failed(doing, error)),
            Err(_) => Err(self.silence(doing, patience)),
        }
    }

    fn silence(&self, doing: &str, patience: Duration) -> RegistryError {
        let source = format!("{} said nothing for {} s", self.registry, patience.as_secs_f32()).into();
        RegistryError::Failed { doing: doing.to_owned(), source }
    }

    /// Finds out what to show to a registry that asks for it, in place of what it was shown. `false` where there is nothing.
    async fn authorize(&self, doing: &str, headers: &HeaderMap, shown: Option<String>) -> Result<bool, RegistryError> {
        let mut authorization = self.authorization.lock().await;
        if *authorization != shown {
            // Somebody else has found it out meanwhile.
            return Ok(true);
        }
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|it| it.to_str().ok());
        let challenges: Vec<Challenge> = challenges.filter_map(Challenge::parse).collect();
        if let Some(challenge) = challenges.iter().find(|it| it.scheme == "bearer") {
            *authorization = Some(format!("Bearer {}", self.token(doing, challenge).await?));
            return Ok(true);
        }
        match &self.login {
            Some(login) if shown.is_none() && challenges.iter().any(|it| it.scheme == "basic") => {
                *authorization = Some(format!("Basic {}", login.in_basic()));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// A token of the server that a registry names.
    async fn token(&self, doing: &str, challenge: &Challenge) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let doing = format!("{doing}: could not get a token");
        let realm = challenge.parameter("realm").unwrap_or_default();
        let wrong = |found: &str| {
            let (doing, expected) = (doing.clone(), "the address of a server of tokens".to_owned());
            RegistryError::Wrong { doing, expected, found: format!("{found:?}") }
        };
        let mut url: Url = realm.parse().map_err(|_| wrong(realm))?;
        if self.base.scheme() == "https" && url.scheme() != "https" {
            return Err(wrong(realm));
        }
        let scope = format!("repository:{}:{}", self.repository, self.actions);
        if let Some(service) = challenge.parameter("service") {
            url.query_pairs_mut().append_pair("service", service);
        }
        url.query_pairs_mut().append_pair("scope", &scope);
        let mut request = self.client.get(url);
        if let Some(login) = &self.login {
            request = request.header(AUTHORIZATION, format!("Basic {}", login.in_basic()));
        }
        let answer = self.send(&doing, request, self.patience).await?;
        if !answer.status().is_success() {
            return Err(self.refusal(&doing, answer).await);
        }
        let body = self.body(&doing, answer, LARGEST_ANSWER).await?;
        let token: Option<Token> = serde_json::from_slice(&body).ok();
        token.and_then(|it| it.token.or(it.access_token)).ok_or_else(|| {
            let (doing, expected) = (doing.clone(), "a token".to_owned());
            RegistryError::Wrong { doing, expected, found: "something else".to_owned() }
        })
    }

    /// What an answer that is none of success means.
    async fn refusal(&self, doing: &str, answer: Response) -> RegistryError {
        #[derive(Deserialize)]
        struct Said {
            errors: Vec<One>,
        }
        #[derive(Deserialize)]
        struct One {
            code: String,
            #[serde(default)]
            message: String,
        }
        let (doing, status, url) = (doing.to_owned(), answer.status(), answer.url().clone());
        let body = self.body(&doing, answer, LARGEST_ANSWER).await.unwrap_or_default();
        let said: Option<Said> = serde_json::from_slice(&body).ok();
        let said = said.and_then(|said| said.errors.into_iter().next());
        let denied = said.as_ref().is_some_and(|one| ["DENIED", "UNAUTHORIZED"].contains(&one.code.as_str()));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                RegistryError::Unauthorized { doing, registry: self.registry.clone() }
            }
            _ if denied => RegistryError::Unauthorized { doing, registry: self.registry.clone() },
            StatusCode::NOT_FOUND => RegistryError::Absent { doing },
            _ => {
                let said = said.map(|one| format!("{}: {}", one.code, one.message)).unwrap_or_default();
                let said = said.chars().filter(|it| !it.is_control()).take(MOST_SAID).collect();
                RegistryError::Failed { doing, source: Box::new(Answer { url, status, said }) }
            }
        }
    }
}

/// The program's own choice where it has made one.
fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().map_or_else(|| Arc::new(ring::default_provider()), Arc::clone)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

fn root_store(certificates: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // A system's bundle may have one that rustls does not take.
    roots.add_parsable_certificates(certificates);
    roots
}

/// Reads the URL of a proxy, which may lack its scheme.
fn proxy_url(text: &str) -> Result<Url, String> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url: Url = whole.parse().map_err(|_| "it is no URL".to_owned())?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        scheme => Err(format!("the scheme {scheme} is not supported")),
    }
}

/// Tells a certificate that is not trusted from other trouble.
fn failed(doing: &str, error: reqwest::Error) -> RegistryError {
    let doing = doing.to_owned();
    if is_distrust(&error) {
        return RegistryError::Certificate { doing, source: Box::new(error) };
    }
    RegistryError::Failed { doing, source: Box::new(error) }
}

fn is_distrust(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        // An error of input and output hides the one that it carries from `source`.
        let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let of_tls = carried.and_then(|it| it.downcast_ref()).or_else(|| error.downcast_ref::<rustls::Error>());
        if matches!(of_tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        if let Some(carried) = carried
            && is_distrust(carried)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// What a registry asks for, as `WWW-Authenticate` has it.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    /// In small letters.
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// One challenge, whose parameters are quoted or not.
    fn parse(text: &str) -> Option<Challenge> {
        let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let mut parameters = Vec::new();
        while let Some((name, value)) = rest.split_once('=') {
            let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
            let value = value.trim_start();
            let (value, next) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => value.split_once(',').unwrap_or((value, "")),
            };
            parameters.push((name, value.trim().to_owned()));
            rest = next;
        }
        (!scheme.is_empty()).then(|| Challenge { scheme: scheme.to_ascii_lowercase(), parameters })
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_with_or_without_a_scheme() {
        for (text, url) in [("p:2", "http://p:2/"), ("http://u:x@p:2", "http://u:x@p:2/"), ("https://p", "https://p/")]
        {
            assert_eq!(proxy_url(text).unwrap().as_str(), url);
        }
        for wrong in ["gopher://user:secret@x", "socks5://x", "", "http://"] {
            let why = proxy_url(wrong).unwrap_err();
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn challenges_are_read() {
        let text = r#"Bearer realm="https://auth.example.org/token?a=b",service="the registry, ours", scope=x"#;
        let challenge = Challenge::parse(text).unwrap();
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.parameter("realm"), Some("https://auth.example.org/token?a=b"));
        assert_eq!(challenge.parameter("service"), Some("the registry, ours"));
        assert_eq!((challenge.parameter("scope"), challenge.parameter("x")), (Some("x"), None));
        assert_eq!(Challenge::parse("BASIC").unwrap(), Challenge { scheme: "basic".into(), parameters: vec![] });
        for wrong in ["", " ", "Bearer realm=\"x"] {
            assert_eq!(Challenge::parse(wrong), None, "{wrong:?}");
        }
    }
}
