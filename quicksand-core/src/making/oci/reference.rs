//! How a container image is named: by the kind of place where it is, and what that place needs to find it.

use std::path::{Path, PathBuf};

use crate::image::error::ImageError;

const REGISTRY: &str = "oci:";
const LAYOUT: &str = "oci-layout:";
const DOCKER: &str = "docker-archive:";

/// Where a container image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// In a registry: `oci:registry/name:tag` or `oci:registry/name@sha256:…`.
    Registry(String),
    /// In a directory: `oci-layout:path`, and where it holds several `oci-layout:path:name` or `oci-layout:path@sha256:…`.
    Layout(PathBuf, Option<String>),
    /// In an archive of `docker save`: `docker-archive:path`, and where it holds several `docker-archive:path:name:tag`.
    Docker(PathBuf, Option<String>),
}

impl Reference {
    /// What a name means. `None` where it is none of ours.
    pub(crate) fn parse(name: &str) -> Option<Result<Reference, ImageError>> {
        let (scheme, rest) =
            [REGISTRY, LAYOUT, DOCKER].into_iter().find_map(|it| Some((it, name.strip_prefix(it)?)))?;
        if rest.is_empty() {
            let example = match scheme {
                REGISTRY => "oci:registry/name:tag",
                LAYOUT => "oci-layout:path/to/directory",
                _ => "docker-archive:path/to/file.tar",
            };
            return Some(Err(ImageError::Reference { reference: name.to_owned(), why: format!("write {example:?}") }));
        }
        let (path, wanted) = if scheme == REGISTRY { (Path::new(""), None) } else { split(rest, &|it| it.exists()) };
        let (path, wanted) = (path.to_owned(), wanted.map(str::to_owned));
        Some(Ok(match scheme {
            REGISTRY => Reference::Registry(rest.to_owned()),
            LAYOUT => Reference::Layout(path, wanted),
            _ => Reference::Docker(path, wanted),
        }))
    }
}

/// A path, and what follows it. Both may have colons in them, so it is asked what is there.
fn split<'a>(text: &'a str, exists: &dyn Fn(&Path) -> bool) -> (&'a Path, Option<&'a str>) {
    let mut ends: Vec<usize> = text.match_indices([':', '@']).map(|(at, _)| at).collect();
    ends.push(text.len());
    match ends.into_iter().rev().find(|end| exists(Path::new(&text[..*end]))) {
        Some(end) if end < text.len() => (Path::new(&text[..end]), Some(&text[end + 1..])),
        _ => (Path::new(text), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_as_long_as_there_is_one() {
        let split = |text, there: &'static [&str]| {
            let (path, wanted) = split(text, &|path| there.iter().any(|it| Path::new(it) == path));
            (path.to_str().unwrap(), wanted)
        };
        assert_eq!(split("/a/b", &["/a/b"]), ("/a/b", None));
        assert_eq!(split("/a/b:x:1", &["/a/b"]), ("/a/b", Some("x:1")));
        assert_eq!(split("/a:b:x", &["/a", "/a:b"]), ("/a:b", Some("x")));
        assert_eq!(split("d@sha256:00", &["d"]), ("d", Some("sha256:00")));
        assert_eq!(split("/none:x", &[]), ("/none:x", None));
    }

    #[test]
    fn a_scheme_tells_the_place() {
        for name in ["debian", "debian:12", "./x", "oci", "OCI:x"] {
            assert!(Reference::parse(name).is_none(), "{name}");
        }
        let registry = Reference::parse("oci:localhost:5000/a:b").unwrap().unwrap();
        assert_eq!(registry, Reference::Registry("localhost:5000/a:b".into()));
        let archive = Reference::parse("docker-archive:/nowhere/x.tar").unwrap().unwrap();
        assert_eq!(archive, Reference::Docker("/nowhere/x.tar".into(), None));
        let error = Reference::parse("oci-layout:").unwrap().unwrap_err();
        assert!(error.to_string().contains("oci-layout:path/to/directory"), "{error}");
    }
}
