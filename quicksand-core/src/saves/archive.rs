//! The file that a save travels as: a tar under gzip. Its first entry is an index of all others, which follow in its order.
//!
//! ```text
//! export.json         the index
//! manifest.json
//! image/image.json    and the other files of the image
//! layers/0.qcow2 …
//! ```

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::{
    base::versioned::{self, Unread},
    error::archive::{ArchiveError, VERSION},
    image::Image,
};

/// The name of the index.
pub(super) const INDEX: &str = "export.json";
/// The manifest's name, here and in a save.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Largest index, manifest or description of an image that is read, in bytes.
pub(crate) const LARGEST_TEXT: u64 = 4 << 20;
/// Most files that a save may have.
const MOST_FILES: usize = 4096;
/// Longest path, in bytes: what a tar's header holds.
pub(super) const LONGEST_PATH: usize = 100;

/// What an export says of its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    pub(crate) files: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) path: String,
    /// In bytes.
    pub(crate) size: u64,
    /// In hexadecimal digits.
    pub(crate) sha256: String,
}

impl Index {
    pub(super) fn new(files: Vec<Entry>) -> Index {
        Index { version: VERSION, files }
    }

    /// Reads an index and checks that its paths are those of a save. The error names the entry.
    pub(crate) fn parse(file: &Path, text: &[u8]) -> Result<Index, ArchiveError> {
        let index: Index = versioned::from_json(text, 0..=VERSION).map_err(|unread| match unread {
            Unread::Version(found) => ArchiveError::Version { file: file.to_owned(), found },
            Unread::Malformed(error) => ArchiveError::NotAnExport { file: file.to_owned(), why: error.to_string() },
        })?;
        let needed = [MANIFEST.to_owned(), format!("image/{}", Image::FILE)];
        if let Some((entry, why)) = fault(&index.files, is_of_a_save, &needed) {
            return Err(ArchiveError::Refused { file: file.to_owned(), entry, why: why.to_owned() });
        }
        Ok(index)
    }

    /// The size of all files, which is known to be one.
    pub(crate) fn total(&self) -> u64 {
        self.files.iter().map(|entry| entry.size).sum()
    }
}

/// The first of the files that does not belong to them by its path or its size, or the first that is missing; and what is wrong.
pub(crate) fn fault<'a>(
    files: impl IntoIterator<Item = &'a Entry>,
    belongs: impl Fn(&str) -> bool,
    needed: &[String],
) -> Option<(String, &'static str)> {
    let (mut total, mut seen) = (0u64, std::collections::HashSet::new());
    for entry in files {
        if seen.len() == MOST_FILES {
            return Some((INDEX.to_owned(), "it names too many files"));
        }
        let sum = total.checked_add(entry.size);
        let why = if !belongs(&entry.path) {
            "no save has a file of that name"
        } else if !seen.insert(entry.path.as_str()) {
            "it comes twice"
        } else if sum.is_none_or(|sum| sum > i64::MAX as u64) {
            "no disk holds so much"
        } else if entry.path.ends_with(".json") && entry.size > LARGEST_TEXT {
            "it is too large"
        } else {
            total = sum.unwrap_or_default();
            continue;
        };
        return Some((entry.path.clone(), why));
    }
    needed.iter().find(|path| !seen.contains(path.as_str())).map(|path| (path.clone(), "it is missing"))
}

/// Whether a save may have a file there: its manifest, its layers, and what an image has. Nothing else is ever made.
pub(crate) fn is_of_a_save(path: &str) -> bool {
    let plain = |part: &str| {
        !part.starts_with('.') && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
    };
    let parts: Vec<Component<'_>> = Path::new(path).components().collect();
    let normal = parts.iter().all(|part| matches!(part, Component::Normal(name) if name.to_str().is_some_and(plain)));
    // A path with doubled or trailing slashes is another one than its parts say.
    let whole = path.split('/').count() == parts.len();
    if !normal || !whole || path.len() > LONGEST_PATH {
        return false;
    }
    match path.split('/').collect::<Vec<_>>()[..] {
        [name] => name == MANIFEST,
        ["layers", name] => name
            .strip_suffix(".qcow2")
            .is_some_and(|number| number.parse::<u16>().is_ok_and(|value| value.to_string() == number)),
        ["image", _] | ["image", _, _] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::versioned::assert_pinned;

    fn index(paths: &[(&str, u64)]) -> Vec<u8> {
        let entry = |&(path, size): &(&str, u64)| Entry { path: path.into(), size, sha256: String::new() };
        serde_json::to_vec(&Index::new(paths.iter().map(entry).collect())).unwrap()
    }

    const WHOLE: [(&str, u64); 2] = [("manifest.json", 1), ("image/image.json", 1)];

    #[test]
    fn only_files_of_a_save_are_named() {
        let parse = |more: (&str, u64)| Index::parse(Path::new("f"), &index(&[&WHOLE[..], &[more]].concat()));
        for path in ["layers/0.qcow2", "layers/65535.qcow2", "image/kernel", "image/modules/00-virtio.ko"] {
            assert_eq!(parse((path, 5)).unwrap().total(), 7, "{path}");
        }
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "layers/../../x",
            "layers/x.qcow2",
            "layers/00.qcow2",
            "layers/0.qcow2/",
            "layers//0.qcow2",
            "./manifest.json",
            "memory",
            "devices",
            "image/.x",
            "image/a/b/c",
            "image/a\0b",
            "image/a b",
            "image",
            "image/ä",
        ] {
            let error = parse((path, 5)).unwrap_err();
            assert!(matches!(&error, ArchiveError::Refused { entry, .. } if entry == path), "{path:?}: {error}");
        }
        assert!(matches!(parse(("manifest.json", 1)), Err(ArchiveError::Refused { .. })), "twice");
        assert!(
            matches!(parse(("layers/0.qcow2", u64::MAX)), Err(ArchiveError::Refused { .. })),
            "a sum that overflows"
        );
        assert!(matches!(parse(("image/x.json", LARGEST_TEXT + 1)), Err(ArchiveError::Refused { .. })));
    }

    #[test]
    fn the_index_is_pinned() {
        let pinned = r#"{"version":1,"files":[{"path":"manifest.json","size":1,"sha256":""},{"path":"image/image.json","size":1,"sha256":""}]}"#;
        let now = String::from_utf8(index(&WHOLE)).unwrap();
        assert_pinned("the index of an exported save", "raise VERSION in archive.rs", pinned, &now);
        assert_eq!(Index::parse(Path::new("f"), pinned.as_bytes()).unwrap().files.len(), 2);
    }

    #[test]
    fn what_is_no_index_is_told() {
        let parse = |text: &[u8]| Index::parse(Path::new("f"), text);
        assert!(matches!(parse(b"{"), Err(ArchiveError::NotAnExport { .. })));
        assert!(matches!(parse(br#"{"version": 2, "x": 1}"#), Err(ArchiveError::Version { found: 2, .. })));
        let error = parse(&index(&WHOLE[..1])).unwrap_err();
        assert!(matches!(&error, ArchiveError::Refused { entry, .. } if entry == "image/image.json"), "{error}");
    }
}
