//! Digests that publishers give for their files.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256, Sha512};

use crate::digest::{hex, serde_as_text};

/// A SHA-256 or SHA-512. Written as its algorithm, a colon and lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileDigest {
    algorithm: Algorithm,
    digits: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Algorithm {
    Sha256,
    Sha512,
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: write sha256: and 64 hexadecimal digits, or sha512: and 128")]
pub struct BadFileDigest(String);

impl FileDigest {
    /// The digest that has so many hexadecimal digits, as in a publisher's list of them.
    ///
    /// # Errors
    ///
    /// [`BadFileDigest`] where no algorithm that is known has digests of this length, or where these are no digits.
    pub fn of_digits(digits: &str) -> Result<FileDigest, BadFileDigest> {
        let digits = digits.to_ascii_lowercase();
        let algorithm = match digits.len() {
            64 => Algorithm::Sha256,
            128 => Algorithm::Sha512,
            _ => return Err(BadFileDigest(digits.chars().take(150).collect())),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadFileDigest(digits));
        }
        Ok(FileDigest { algorithm, digits })
    }

    /// The digits alone.
    pub fn digits(&self) -> &str {
        &self.digits
    }

    /// A name for a file that has this digest.
    pub(crate) fn file_name(&self) -> String {
        format!("{}-{}", self.algorithm.name(), self.digits)
    }

    /// What computes a digest of the same algorithm.
    pub(crate) fn hasher(&self) -> Hasher {
        match self.algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }
}

/// Computes a digest piece by piece.
#[derive(Debug)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(bytes),
            Hasher::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> FileDigest {
        match self {
            Hasher::Sha256(hash) => FileDigest { algorithm: Algorithm::Sha256, digits: hex(&hash.finalize()) },
            Hasher::Sha512(hash) => FileDigest { algorithm: Algorithm::Sha512, digits: hex(&hash.finalize()) },
        }
    }
}

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.digits)
    }
}

impl FromStr for FileDigest {
    type Err = BadFileDigest;

    fn from_str(text: &str) -> Result<FileDigest, BadFileDigest> {
        let bad = || BadFileDigest(text.chars().take(150).collect());
        let (algorithm, digits) = text.split_once(':').ok_or_else(bad)?;
        let digest = FileDigest::of_digits(digits).map_err(|_| bad())?;
        if digest.algorithm.name() == algorithm { Ok(digest) } else { Err(bad()) }
    }
}

serde_as_text!(FileDigest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_they_are_written() {
        for digits in ["ab".repeat(32), "0F".repeat(64)] {
            let digest = FileDigest::of_digits(&digits).unwrap();
            assert_eq!(digest.to_string().parse::<FileDigest>().unwrap(), digest);
            assert_eq!(digest.digits(), digits.to_lowercase());
        }
        let mut hasher = FileDigest::of_digits(&"0".repeat(64)).unwrap().hasher();
        hasher.update(b"a");
        hasher.update(b"bc");
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hasher.finish().to_string(), abc);
        for bad in ["", "sha256:", "md5:00", &abc[7..], &abc.replace("256", "512"), &abc.replace("ba", "zz")] {
            assert!(bad.parse::<FileDigest>().is_err(), "{bad}");
        }
    }
}
