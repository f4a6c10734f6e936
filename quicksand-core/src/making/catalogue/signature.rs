//! Publishers' signatures of their lists of digests, checked by `gpgv`.
//!
//! Which keys are a publisher's is nothing that this program could know: they are the user's, by `quicksand.toml`, or those that this
//! host's own packages brought. What a list was trusted for is written down with what it said.

use std::{
    env, fmt, fs,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    base::plain_file,
    image::error::ImageError,
    making::tool::{require, unique},
};

/// How a publisher signs its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signature {
    /// It does not.
    None,
    /// The list is the text of a signed message.
    Inside,
    /// In a file beside it, whose name has one of these at its end.
    Beside(&'static [&'static str]),
}

/// Why a digest is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It came over TLS from the publisher, or from the mirror that the user named.
    Tls,
    /// The list that has it is signed by the key of that fingerprint.
    Signed(String),
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trust::Tls => f.write_str("TLS"),
            Trust::Signed(fingerprint) => write!(f, "signature of {fingerprint}"),
        }
    }
}

/// The keys that count as a publisher's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    files: Vec<PathBuf>,
    /// Whether the user named them. Then nothing is believed without them; those of the host may be older than the signature.
    pub(crate) demanded: bool,
}

/// Where packages put keys of distributions: a directory, and what the names of a family's files start with.
const OF_THE_HOST: [(&str, &str, &str); 7] = [
    ("ubuntu", "/usr/share/keyrings", "ubuntu-cloudimage-keyring"),
    ("ubuntu", "/usr/share/keyrings", "ubuntu-archive-keyring"),
    ("fedora", "/etc/pki/rpm-gpg", "RPM-GPG-KEY-fedora"),
    ("fedora", "/usr/share/distribution-gpg-keys/fedora", "RPM-GPG-KEY-fedora"),
    ("rocky", "/etc/pki/rpm-gpg", "RPM-GPG-KEY-Rocky"),
    ("rocky", "/usr/share/distribution-gpg-keys/rocky", "RPM-GPG-KEY"),
    ("opensuse", "/usr/share/distribution-gpg-keys/opensuse", "RPM-GPG-KEY"),
];

impl Keys {
    /// Those that the user named in place of any others.
    pub(crate) fn named(file: PathBuf) -> Keys {
        Keys { files: vec![file], demanded: true }
    }

    /// Those that this host has of a family of distributions.
    pub(crate) fn of_this_host(family: &str) -> Option<Keys> {
        let mut files = Vec::new();
        for (_, directory, prefix) in OF_THE_HOST.iter().filter(|(of, ..)| *of == family) {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let fits = |path: &PathBuf| {
                path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
            };
            files.extend(entries.map(|entry| entry.path()).filter(fits));
        }
        files.sort();
        (!files.is_empty()).then_some(Keys { files, demanded: false })
    }
}

/// What `gpgv` found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// By the key of that fingerprint. Of a message, with the text that is signed: what stands around it is not.
    Good(String, Option<String>),
    /// By a key that is not among those that count.
    OtherKey(String),
    Bad(String),
}

/// Checks a signature in a file of its own, or that of a message.
pub(crate) fn check(keys: &Keys, list: &str, signature: Option<&[u8]>) -> Result<Verdict, ImageError> {
    require(&[("gpgv", "gpgv")])?;
    let scratch = Scratch::new()?;
    let put = |name: &str, content: &[u8]| {
        let path = scratch.0.join(name);
        fs::write(&path, content).map_err(ImageError::io("write", &path))?;
        Ok::<_, ImageError>(path)
    };
    let mut command = Command::new("gpgv");
    command.env("LC_ALL", "C");
    command.args(["--homedir".as_ref(), scratch.0.as_os_str()]).args(["--status-fd", "2", "--ignore-time-conflict"]);
    for (number, file) in keys.files.iter().enumerate() {
        let key = plain_file::read(file).map_err(ImageError::io("read the keys in", file))?;
        // gpgv takes no armor.
        let key = dearmored(&key).unwrap_or(key);
        command.arg("--keyring").arg(put(&format!("key-{number}"), &key)?);
    }
    let list = put("list", list.as_bytes())?;
    match signature {
        Some(signature) => {
            let signature = put("signature", signature)?;
            command.arg("--").args([signature, list]);
        }
        None => {
            command.args(["--output", "-", "--"]).arg(list);
        }
    }
    let start = |source| ImageError::Start { program: "gpgv", source };
    let output = command.stdin(Stdio::null()).output().map_err(start)?;
    let status = String::from_utf8_lossy(&output.stderr);
    let text = signature.is_none().then(|| String::from_utf8_lossy(&output.stdout).into_owned());
    Ok(read(&status, output.status.success(), text))
}

/// Reads what `gpgv` says of itself; see `doc/DETAILS` of GnuPG.
fn read(status: &str, success: bool, text: Option<String>) -> Verdict {
    let of = |word: &str| {
        let lines = status.lines().filter_map(|line| line.strip_prefix("[GNUPG:] "));
        lines.filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).map(str::to_owned).next()
    };
    if let Some(key) = of("NO_PUBKEY") {
        return Verdict::OtherKey(key);
    }
    // The last word is the fingerprint of the key that the signing one belongs to.
    let signed = of("VALIDSIG").and_then(|line| line.split_ascii_whitespace().last().map(str::to_owned));
    match signed {
        Some(fingerprint) if success && of("BADSIG").is_none() && of("REVKEYSIG").is_none() => {
            Verdict::Good(fingerprint, text)
        }
        _ => {
            let said = status
                .lines()
                .filter(|line| !line.starts_with("[GNUPG:]"))
                .map(|line| line.trim_start_matches("gpgv: "));
            Verdict::Bad(said.collect::<Vec<_>>().join("; "))
        }
    }
}

/// The bytes that a text in ASCII armor stands for. `None` for what is no such text.
fn dearmored(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut bytes = Vec::new();
    // A file may hold several blocks.
    for block in text.split("-----BEGIN PGP PUBLIC KEY BLOCK-----").skip(1) {
        let body = block.split("-----END PGP").next()?.replace('\r', "");
        // Headers end with an empty line; a checksum follows the data.
        let (_, data) = body.split_once("\n\n")?;
        let data = data.split("\n=").next()?;
        let (mut held, mut bits) = (0u32, 0);
        for byte in data.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            (held, bits) = ((held << 6 | u32::from(digit)) & 0xffff, bits + 6);
            if bits >= 8 {
                bits -= 8;
                bytes.push((held >> bits) as u8);
            }
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// A directory that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, ImageError> {
        let path = env::temp_dir().join(unique("quicksand-keys-")?);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(ImageError::io("create", &path))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
