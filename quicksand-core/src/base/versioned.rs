//! Documents of ours with a version, which is read before all else: another version's other fields may have any shape. See
//! docs/on-disk.md for the documents.

use std::ops::RangeInclusive;

use serde::{Deserialize, de::DeserializeOwned};

/// Why a document is not read.
#[derive(Debug)]
pub(crate) enum Unread<E> {
    /// It has another version than those that are read.
    Version(u32),
    /// It has none, or is not what its version says.
    Malformed(E),
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a document of JSON that has one of these versions.
pub(crate) fn from_json<T: DeserializeOwned>(
    text: &[u8],
    versions: RangeInclusive<u32>,
) -> Result<T, Unread<serde_json::Error>> {
    read(versions, || serde_json::from_slice(text), || serde_json::from_slice(text))
}

/// Reads a document of TOML that has one of these versions.
pub(crate) fn from_toml<T: DeserializeOwned>(
    text: &str,
    versions: RangeInclusive<u32>,
) -> Result<T, Unread<toml::de::Error>> {
    read(versions, || toml::from_str(text), || toml::from_str(text))
}

fn read<T, E>(
    versions: RangeInclusive<u32>,
    version: impl FnOnce() -> Result<Versioned, E>,
    document: impl FnOnce() -> Result<T, E>,
) -> Result<T, Unread<E>> {
    match version().map_err(Unread::Malformed)? {
        Versioned { version } if versions.contains(&version) => document().map_err(Unread::Malformed),
        Versioned { version } => Err(Unread::Version(version)),
    }
}

/// Fails where a format is not what it was when it was pinned, and says what to do then.
#[cfg(test)]
#[track_caller]
pub(crate) fn assert_pinned(format: &str, to_do: &str, pinned: &str, now: &str) {
    assert!(
        pinned == now,
        "{format} is no longer written as it was, and other versions of quicksand read it.\n\
         Read \"What to do on a change\" in docs/on-disk.md, {to_do}, and only then pin the new text in this test.\n\
         --- pinned ---\n{pinned}\n--- now ---\n{now}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Document {
        name: String,
    }

    #[test]
    fn the_version_is_read_before_all_else() {
        let json = |text: &str| from_json::<Document>(text.as_bytes(), 2..=3);
        assert_eq!(json(r#"{"version": 2, "name": "x"}"#).unwrap().name, "x");
        assert!(matches!(json(r#"{"version": 4, "name": ["another", "shape"]}"#), Err(Unread::Version(4))));
        assert!(matches!(json(r#"{"version": 1}"#), Err(Unread::Version(1))));
        for text in ["", "[]", r#"{"name": "x"}"#, r#"{"version": "2", "name": "x"}"#, r#"{"version": 2}"#] {
            assert!(matches!(json(text), Err(Unread::Malformed(_))), "{text}");
        }
        let toml = |text: &str| from_toml::<Document>(text, 1..=1);
        assert_eq!(toml("version = 1\nname = \"x\"").unwrap().name, "x");
        assert!(matches!(toml("version = 2\nname = 3"), Err(Unread::Version(2))));
        assert!(matches!(toml("version = 1\nname = 3"), Err(Unread::Malformed(_))));
    }

    #[test]
    #[should_panic(expected = "in docs/on-disk.md, raise ABC, and only then")]
    fn a_format_that_changed_is_told_with_what_to_do() {
        assert_pinned("a thing", "raise ABC", "1", "2");
    }
}
