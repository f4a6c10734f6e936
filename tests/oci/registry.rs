//! The distribution's own registry, on a port of this host, for as long as a test wants it.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::build::{Blob, Image};

/// The only user of a registry that asks for a login, with the password, in the forms of `htpasswd` and of HTTP.
const HTPASSWD: &str = "user:$2b$05$NYFJgddqFEeCQnsvUSTKLOpc11Ud1rbbOrE7TRaGVzNqSa/2iqMva\n";
pub(crate) const USER: (&str, &str) = ("user", "secret");
pub(crate) const LOGIN: &str = "dXNlcjpzZWNyZXQ=";

/// A running registry. Dropping it ends it.
pub(crate) struct Registry {
    process: Child,
    port: u16,
    login: bool,
    _directory: TempDir,
}

impl Registry {
    pub(crate) fn start(login: bool) -> Registry {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let users = write("users", HTPASSWD);
        let auth =
            if login { format!("auth:\n  htpasswd:\n    realm: test\n    path: {users}\n") } else { String::new() };
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:{port}\n{auth}",
            directory.path().join("data").display(),
        );
        let config = write("config.yml", &config);
        // It goes with its test, however that ends.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve", &config])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("install docker-registry");
        let mut registry = Registry { process, port, login, _directory: directory };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(registry.process.try_wait().unwrap().is_none(), "the registry ended");
            assert!(begun.elapsed() < Duration::from_secs(60), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Its name, as references have it.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Puts an image there, with its index.
    pub(crate) fn push(&self, repository: &str, tag: &str, image: &Image) {
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(repository, blob);
        }
        for manifest in [&image.manifest, &image.other_manifest()] {
            self.push_manifest(repository, &manifest.digest(), manifest);
        }
        self.push_manifest(repository, tag, &image.index());
    }

    pub(crate) fn push_blob(&self, repository: &str, blob: &Blob) {
        let (status, headers, _) = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
        assert_eq!(status, 202);
        let location = headers.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
        let path = &location[location.find("/v2/").unwrap()..];
        let path = format!("{path}&digest={}", blob.digest());
        let (status, _, said) = self.request("PUT", &path, "application/octet-stream", &blob.content);
        assert_eq!(status, 201, "{said}");
    }

    pub(crate) fn push_manifest(&self, repository: &str, tag: &str, manifest: &Blob) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, _, said) = self.request("PUT", &path, &manifest.media_type, &manifest.content);
        assert_eq!(status, 201, "{said}");
    }

    fn request(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.host());
        head += &format!("Content-Length: {}\r\n", body.len());
        if !media_type.is_empty() {
            head += &format!("Content-Type: {media_type}\r\n");
        }
        if self.login {
            head += &format!("Authorization: Basic {LOGIN}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, said) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), said.to_owned())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes a login as Docker keeps it.
pub(crate) fn write_login(directory: &Path, host: &str) {
    let config = serde_json::json!({ "auths": { host: { "auth": LOGIN } } });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
}
