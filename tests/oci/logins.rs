//! Registries that ask for tokens, that have a certificate of a private authority, and that are mirrors of others.

#[path = "../../quicksand-fetch/tests/support/https_server.rs"]
mod https_server;

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use https_server::{Manners, Served};
use quicksand::{
    Error, Reporter, WithMemory,
    images::{Cache, Image, pull, push},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SigningKey};
use serde_json::{Value, json};

use crate::{
    registry::{LOGIN, write_login},
    server::Server,
};

/// What this program does in a process of its own, whose variables say where logins and certificates are.
#[tokio::test]
#[ignore = "run by other tests, with variables of its own"]
async fn child_push_and_pull() {
    let (doing, place) = (env::var("LOGINS_DO").unwrap(), env::var("LOGINS_PLACE").unwrap());
    let (cache, quiet) = (Cache::from_environment().unwrap(), Reporter::silent());
    let done = match doing.as_str() {
        "push" => push(&cache, "tiny", &place, WithMemory::Never, &quiet).await.map(|pushed| pushed.reference),
        _ => pull(&cache, &place, Some("pulled"), WithMemory::Never, &quiet).await.map(|pulled| pulled.reference),
    };
    match done {
        Ok(reference) => println!("done {reference}"),
        Err(error) => println!("refused {}", told(&error).replace('\n', " ")),
    }
}

fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        text = format!("{text}: {next}");
        cause = next;
    }
    text
}

/// Somebody with a cache, in which there is an image of a few bytes, and a configuration of Docker's.
struct User {
    directory: tempfile::TempDir,
}

impl User {
    fn new() -> User {
        let user = User { directory: tempfile::tempdir().unwrap() };
        let image = user.cache().root().join("images/tiny");
        fs::create_dir(&image).unwrap();
        let disk = image.join("disk.qcow2");
        let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&disk).arg("1M").status();
        assert!(made.unwrap().success());
        fs::write(image.join("kernel"), "Linux").unwrap();
        let content = fs::read(&disk).unwrap();
        let described = json!({
            "version": 1, "digest": crate::build::digest(&content)[7..], "disk_size": 1 << 20, "file_system": "ext4",
            "disk": { "path": "disk.qcow2", "size": content.len() },
            "kernel": { "path": "kernel", "size": 5 }, "modules": [],
        });
        fs::write(image.join("image.json"), described.to_string()).unwrap();
        user
    }

    fn cache(&self) -> Cache {
        Cache::at(&self.directory.path().join("cache")).unwrap()
    }

    fn log_in(&self, host: &str) {
        write_login(self.directory.path(), host);
    }

    fn does(&self, doing: &str, place: &str, variables: &[(&str, &Path)]) -> String {
        let output = Command::new(env::current_exe().unwrap())
            .args(["child_push_and_pull", "--ignored", "--nocapture"])
            .current_dir(self.directory.path())
            .env("QUICKSAND_CACHE_DIR", self.cache().root())
            .env("DOCKER_CONFIG", self.directory.path())
            .envs([("LOGINS_DO", doing), ("LOGINS_PLACE", place)])
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = text.lines().find_map(|line| line.find("done ").or(line.find("refused ")).map(|at| &line[at..]));
        found.unwrap_or_else(|| panic!("{output:?}")).to_owned()
    }

    fn pulled(&self) -> bool {
        Image::find(&self.cache(), "pulled").unwrap().is_some()
    }
}

/// A server of tokens, as registries send their users to. Whoever logs in may do all, everybody else pull what is public.
struct Tokens {
    port: u16,
    /// What was asked for, and whether by a user who had logged in.
    asked: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Tokens {
    fn start(key: KeyPair, certificate: Vec<u8>) -> Tokens {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tokens = Tokens { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let asked = Arc::clone(&tokens.asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &key, &certificate, &asked);
            }
        });
        tokens
    }
}

fn answer(mut stream: TcpStream, key: &KeyPair, certificate: &[u8], asked: &Mutex<Vec<(String, bool)>>) {
    let mut head = Vec::new();
    for line in BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        head.push(line);
    }
    let Some(path) = head.first().and_then(|line| line.split(' ').nth(1)) else { return };
    let logged_in = head.iter().any(|line| line.eq_ignore_ascii_case(&format!("authorization: Basic {LOGIN}")));
    let path = path.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",").replace('+', " ");
    let parameter = |name: &str| path.split(['?', '&']).find_map(|part| part.strip_prefix(&format!("{name}=")));
    let scope = parameter("scope").unwrap_or_default().to_owned();
    assert_eq!(parameter("service"), Some("the registry"), "{path}");
    asked.lock().unwrap().push((scope.clone(), logged_in));
    let [kind, name, actions] = scope.split(':').collect::<Vec<_>>()[..] else { return };
    let actions: Vec<&str> = match (logged_in, name.starts_with("public/")) {
        (true, _) => actions.split(',').collect(),
        (false, true) => vec!["pull"],
        (false, false) => Vec::new(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": "the issuer", "sub": "", "aud": "the registry", "exp": now + 300, "nbf": now - 60, "iat": now, "jti": "1",
        "access": [{ "type": kind, "name": name, "actions": actions }],
    });
    let token = sign(key, &json!({ "typ": "JWT", "alg": "ES256", "x5c": [base64(certificate, PLAIN, true)] }), &claims);
    let body = json!({ "token": token, "expires_in": 300 }).to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
}

/// A token as registries read it: a JWT under ES256.
fn sign(key: &KeyPair, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| base64(value.to_string().as_bytes(), FOR_URLS, false);
    let text = format!("{}.{}", part(header), part(claims));
    // DER has two whole numbers, with a zero before them or without; a token 32 bytes of each.
    let der = key.sign(text.as_bytes()).unwrap();
    let (first, rest) = number(&der[2..]);
    let (second, _) = number(rest);
    format!("{text}.{}", base64(&[first, second].concat(), FOR_URLS, false))
}

/// The number at the beginning of DER in 32 bytes, and what follows it.
fn number(der: &[u8]) -> ([u8; 32], &[u8]) {
    let (len, content) = (usize::from(der[1]), &der[2..]);
    let digits = &content[..len][len.saturating_sub(32)..];
    let mut number = [0; 32];
    number[32 - digits.len()..].copy_from_slice(digits);
    (number, &content[len..])
}

const PLAIN: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const FOR_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64(bytes: &[u8], digits: &[u8; 64], padded: bool) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let whole = three.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..=three.len() {
            text.push(char::from(digits[(whole >> (18 - 6 * place)) as usize & 63]));
        }
        if padded {
            text.push_str(&"=".repeat(3 - three.len()));
        }
    }
    text
}

#[test]
fn a_registry_that_asks_for_tokens() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["tokens".to_owned()]).unwrap().self_signed(&key).unwrap();
    let tokens = Tokens::start(key, certificate.der().to_vec());
    let registry = Server::start(|directory| {
        let bundle = directory.join("bundle.pem");
        fs::write(&bundle, certificate.pem()).unwrap();
        let auth = format!(
            "auth:\n  token:\n    realm: http://127.0.0.1:{}/token\n    service: the registry\n    issuer: the issuer\n    \
             rootcertbundle: {}\n",
            tokens.port,
            bundle.display(),
        );
        (String::new(), auth)
    });
    let (public, secret) = (format!("{}/public/tiny:1", registry.host()), format!("{}/secret/tiny:1", registry.host()));
    let (somebody, user) = (User::new(), User::new());
    user.log_in(&registry.host());

    let refused = somebody.does("push", &public, &[]);
    assert!(refused.contains("asks for a login with that right; `docker login"), "{refused}");
    for place in [&public, &secret] {
        let done = user.does("push", place, &[]);
        assert!(done.starts_with("done ") && done.contains("@sha256:"), "{done}");
    }
    assert!(tokens.asked.lock().unwrap().contains(&("repository:secret/tiny:pull,push".to_owned(), true)));

    let done = somebody.does("pull", &public, &[]);
    assert!(done.starts_with("done ") && somebody.pulled(), "{done}");
    let refused = somebody.does("pull", &secret, &[]);
    assert!(refused.contains("asks for a login"), "{refused}");
    let done = user.does("pull", &secret, &[]);
    assert!(done.starts_with("done ") && user.pulled(), "{done}");
}

#[test]
fn a_certificate_of_a_private_authority_is_taken_where_it_is_named() {
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let registry = Server::start(|directory| {
        let write = |name: &str, pem: String| {
            fs::write(directory.join(name), pem).unwrap();
            directory.join(name).display().to_string()
        };
        let (certificate, key) = (write("own.pem", own.pem()), write("key.pem", key.serialize_pem()));
        (format!("  tls:\n    certificate: {certificate}\n    key: {key}\n"), String::new())
    });
    let (user, place) = (User::new(), format!("{}/x/tiny:1", registry.host()));
    let bundle: PathBuf = user.directory.path().join("authority.pem");
    fs::write(&bundle, authority_certificate.pem()).unwrap();

    // Not on this host either: it has a certificate, so it is not spoken to without.
    let refused = user.does("push", &place, &[]);
    assert!(refused.contains("certificate") && refused.contains("SSL_CERT_FILE"), "{refused}");
    let trusting = [("SSL_CERT_FILE", bundle.as_path())];
    let done = user.does("push", &place, &trusting);
    assert!(done.starts_with("done "), "{done}");
    let done = user.does("pull", &place, &trusting);
    assert!(done.starts_with("done ") && user.pulled(), "{done}");
}

#[test]
fn a_mirror_gives_what_another_registry_has() {
    let origin = Server::start(|_| (String::new(), String::new()));
    let host = origin.host();
    let mirror = Server::start(|_| (String::new(), format!("proxy:\n  remoteurl: http://{host}\n")));
    let user = User::new();
    let pushed = user.does("push", &format!("{host}/x/tiny:1"), &[]);
    let refused = user.does("push", &format!("{}/x/tiny:1", mirror.host()), &[]);
    assert!(refused.contains("refused ") && refused.contains(&mirror.host()), "{refused}");
    let done = user.does("pull", &format!("{}/x/tiny:1", mirror.host()), &[]);
    assert_eq!(done, pushed.replace(&host, &mirror.host()));
    assert!(user.pulled());
}

#[test]
fn a_registry_that_lies_or_leads_astray_is_told() {
    let (server, user) = (https_server::Server::start(), User::new());
    server.serve("/v2/", Served::bytes("{}"));
    let host = server.url("").replace("https://", "");
    let trusting = [("SSL_CERT_FILE", server.certificate.path())];
    let refused = |tag: &str, served: Served| {
        server.serve(&format!("/v2/x/tiny/manifests/{tag}"), served);
        let refused = user.does("pull", &format!("{host}/x/tiny:{tag}"), &trusting);
        assert!(refused.starts_with("refused ") && refused.contains(&format!("{host}/x/tiny:{tag}")), "{refused}");
        assert!(!user.pulled(), "nothing half made is there");
        refused
    };
    let clear = "http://127.0.0.1:9/v2/x/tiny/manifests/1";
    let text = refused("redirect", Served::bytes("").with(Manners::RedirectsTo(clear.into())));
    assert!(text.contains(&format!("redirects to {clear}, which is not encrypted")), "{text}");
    let circle = server.url("/v2/x/tiny/manifests/circle");
    let text = refused("circle", Served::bytes("").with(Manners::RedirectsTo(circle)));
    assert!(text.contains("redirects more than 8 times"), "{text}");
    // More than any document has, with its length announced and without.
    let endless = || Served::bytes(vec![b' '; 5 << 20]);
    for (tag, served) in [("long", endless()), ("endless", endless().with(Manners::AnnouncesNothing))] {
        let text = refused(tag, served);
        assert!(text.contains("expected at most 4194304 bytes, and more came"), "{text}");
    }
    let text = refused("status", Served::bytes("").with(Manners::Status(418)));
    assert!(text.contains(&format!("{host}/v2/x/tiny/manifests/status answered 418")), "{text}");
    let text = refused("html", Served::bytes("<html>Welcome to the network of this hotel</html>"));
    assert!(text.contains("expected an image that quicksand pushed, and a manifest that is none"), "{text}");
}
