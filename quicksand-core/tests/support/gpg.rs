//! A publisher with a key of its own, made for a test by GnuPG.
#![allow(dead_code)]

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

/// The publisher. Dropping it ends the agent that holds its key.
pub(crate) struct Publisher {
    home: tempfile::TempDir,
}

impl Publisher {
    pub(crate) fn new(name: &str) -> Publisher {
        // A socket's path has 108 bytes at most, so this lies high up.
        let publisher = Publisher { home: tempfile::Builder::new().prefix("gpg-").tempdir_in("/tmp").unwrap() };
        publisher
            .gpg(&["--quick-gen-key", &format!("{name} <publisher@example.org>"), "ed25519", "sign", "never"], b"");
        publisher
    }

    fn gpg(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(self.home.path()).args(["--batch", "--quiet", "--passphrase", ""]);
        command.args(["--pinentry-mode", "loopback"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut gpg = command.spawn().expect("install gpg");
        gpg.stdin.take().unwrap().write_all(input).unwrap();
        let output = gpg.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// A text's signature, or the text with it, as the options say.
    pub(crate) fn sign(&self, text: &str, options: &str) -> Vec<u8> {
        self.gpg(&options.split(' ').collect::<Vec<_>>(), text.as_bytes())
    }

    pub(crate) fn fingerprint(&self) -> String {
        let listed = String::from_utf8(self.gpg(&["--with-colons", "--fingerprint"], b"")).unwrap();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// The file of its public key.
    pub(crate) fn keyring(&self) -> PathBuf {
        self.exported("key.gpg", &["--export"])
    }

    pub(crate) fn armored_keyring(&self) -> PathBuf {
        self.exported("key.asc", &["--armor", "--export"])
    }

    fn exported(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, self.gpg(arguments, b"")).unwrap();
        path
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.home.path()).args(["--kill", "all"]).output();
    }
}
