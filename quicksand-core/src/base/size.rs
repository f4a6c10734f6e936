//! Amounts of memory and disk.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An amount of memory or disk in bytes, written as people do: `"512M"`, `"2G"`, `"512MiB"`, `"1.5 GiB"`.
///
/// Units are powers of 1,024 with or without `iB` or `B`, in either case, as QEMU takes them; a bare number is bytes.
///
/// Serialized as a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(u64);

impl Size {
    /// That many bytes.
    pub const fn from_bytes(bytes: u64) -> Size {
        Size(bytes)
    }

    /// That many MiB.
    pub const fn from_mib(mib: u32) -> Size {
        Size((mib as u64) << 20)
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is no [`Size`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read {text:?} as a size: write a number and one of B, K, M, G, T, as in \"512M\" or \"2GiB\"")]
pub struct ParseSizeError {
    text: String,
}

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Size, ParseSizeError> {
        parse(text).map(Size).ok_or_else(|| ParseSizeError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    // Fractions of a byte are a mistake; so are numbers that a float can't hold to the byte.
    let bytes = number.parse::<f64>().ok()? * (1u64 << shift) as f64;
    (bytes.fract() == 0.0 && bytes < (1u64 << 53) as f64).then_some(bytes as u64)
}

impl fmt::Display for Size {
    /// In the largest unit that gives a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = [(40, "T"), (30, "G"), (20, "M"), (10, "K")]
            .into_iter()
            .find(|(shift, _)| self.0 != 0 && self.0.trailing_zeros() >= *shift)
            .unwrap_or((0, ""));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("2g", 2 << 30),
            ("1.5 GiB", 3 << 29),
            (" 64 kb ", 64 << 10),
            ("1T", 1 << 40),
            ("4096", 4096),
        ] {
            assert_eq!(text.parse::<Size>().map(Size::bytes), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_says_what_to_write() {
        for text in ["", "M", "-1M", "1.2.3M", "12X", "0.3B", "99999999999T", "1e3", "NaN", "1M2"] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.to_string().contains("\"512M\""), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn display_is_read_back(bytes: u64) {
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
    }
}
