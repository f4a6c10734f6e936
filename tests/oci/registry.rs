//! A registry, and what tests put into it by hand.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
};

use crate::{
    build::{Blob, Image},
    server::Server,
};

/// The only user of a registry that asks for a login, with the password, in the forms of `htpasswd` and of HTTP.
const HTPASSWD: &str = "user:$2b$05$NYFJgddqFEeCQnsvUSTKLOpc11Ud1rbbOrE7TRaGVzNqSa/2iqMva\n";
pub(crate) const USER: (&str, &str) = ("user", "secret");
pub(crate) const LOGIN: &str = "dXNlcjpzZWNyZXQ=";

/// A running registry. Dropping it ends it.
pub(crate) struct Registry {
    server: Server,
    login: bool,
}

impl Registry {
    pub(crate) fn start(login: bool) -> Registry {
        let server = Server::start(|directory| {
            let users = directory.join("users");
            fs::write(&users, HTPASSWD).unwrap();
            let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", users.display());
            (String::new(), if login { auth } else { String::new() })
        });
        Registry { server, login }
    }

    /// Its name, as references have it.
    pub(crate) fn host(&self) -> String {
        self.server.host()
    }

    /// The file in which it has a blob.
    pub(crate) fn stored(&self, blob: &Blob) -> PathBuf {
        let digest = blob.digest().replace("sha256:", "");
        let blobs = self.server.directory.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&digest[..2]).join(digest).join("data")
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
        let mut stream = TcpStream::connect(("127.0.0.1", self.server.port)).unwrap();
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

/// Writes a login as Docker keeps it.
pub(crate) fn write_login(directory: &Path, host: &str) {
    let config = serde_json::json!({ "auths": { host: { "auth": LOGIN } } });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
}
