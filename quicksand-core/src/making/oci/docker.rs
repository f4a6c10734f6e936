//! Images in a tar archive as `docker save` writes it: `manifest.json`, which names a configuration and the layers' archives.

use std::{collections::HashMap, path::Path};

use quicksand_fetch::Digest;
use serde::Deserialize;

use super::{
    Found,
    format::{check_digest, parse, read_document},
};
use crate::{
    base::plain_file,
    image::error::ImageError,
    making::{
        layers::Blob,
        rootfs::{
            Section,
            entry::{Entries, Kind},
        },
    },
};

const MANIFEST: &str = "manifest.json";
/// More entries than any such archive has, which has a few for each layer.
const MOST_ENTRIES: usize = 100_000;
/// As many links as may lead from one layer to the next that is the same.
const MOST_LINKS: usize = 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// What the archive has under a name.
#[derive(Debug)]
enum Member {
    File {
        offset: u64,
        len: u64,
    },
    /// Another name.
    Link(String),
}

struct Archive {
    what: String,
    content: Section,
    members: HashMap<String, Member>,
}

/// The image of a name, as in `name:tag`, or the only one.
pub(crate) fn find(path: &Path, wanted: Option<&str>) -> Result<Found, ImageError> {
    let content = plain_file::open(path).and_then(Section::whole).map_err(ImageError::io("read", path))?;
    let archive = Archive::read(format!("the archive {}", path.display()), content)?;
    let what = archive.what.clone();
    let images: Vec<Saved> = parse(&what, &read_document(&what, archive.member(MANIFEST)?)?)?;
    let tags = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let fitting: Vec<_> =
        images.iter().filter(|it| wanted.is_none_or(|tag| tags(it).iter().any(|it| it == tag))).collect();
    let [image] = fitting[..] else {
        let why = if fitting.is_empty() { "it has no such image" } else { "it has several images: name one of them" };
        let there = images.iter().flat_map(tags).collect::<Vec<_>>().join(", ");
        return Err(ImageError::Document { what, why: format!("{why}; there is {there}") });
    };
    let config = read_document(&what, archive.member(&image.config)?)?;
    let id = Digest::of(&config);
    // The file is named by its digest, in one way or another.
    let name = image.config.rsplit('/').next().unwrap_or_default();
    if let Ok(expected) = format!("sha256:{}", name.trim_end_matches(".json")).parse() {
        check_digest(&format!("{} in {what}", image.config), &expected, &config)?;
    }
    let layers = image.layers.iter().enumerate().map(|(number, member)| {
        let content = archive.member(member)?;
        Ok(Blob { name: format!("layer {} ({member:?})", number + 1), content, digest: None, archive_digest: None })
    });
    Found::new(what.clone(), id, &config, layers.collect::<Result<_, ImageError>>()?)
}

impl Archive {
    fn read(what: String, content: Section) -> Result<Archive, ImageError> {
        let refuse = |why: String| ImageError::Document { what: what.clone(), why };
        let mut members = HashMap::new();
        let mut entries = Entries::new(content.clone());
        while let Some(entry) = entries.next().map_err(|error| refuse(format!("it {error}")))? {
            if members.len() == MOST_ENTRIES {
                return Err(refuse(format!("it has more than {MOST_ENTRIES} entries")));
            }
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            let member = match entry.kind {
                Kind::File(file) if file.sparse.is_none() => Member::File { offset: file.offset, len: file.len },
                Kind::HardLink(target) => Member::Link(String::from_utf8_lossy(&target).into_owned()),
                Kind::Symlink(target) => Member::Link(beside(&name, &String::from_utf8_lossy(&target))),
                _ => continue,
            };
            members.insert(name, member);
        }
        Ok(Archive { what, content, members })
    }

    fn member(&self, name: &str) -> Result<Section, ImageError> {
        let refuse = |why: String| ImageError::Document { what: self.what.clone(), why };
        let mut at = name;
        for _ in 0..MOST_LINKS {
            match self.members.get(at.strip_prefix("./").unwrap_or(at)) {
                Some(Member::File { offset, len }) => {
                    return self.content.part(*offset, *len).map_err(|error| refuse(format!("{name:?}: {error}")));
                }
                Some(Member::Link(target)) => at = target,
                None => return Err(refuse(format!("it has no file {name:?}"))),
            }
        }
        Err(refuse(format!("{name:?} is a link that leads nowhere")))
    }
}

/// What a link in the directory of `name` means. It is looked up among the archive's own names and nowhere else.
fn beside(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => _ = parts.pop(),
            "" | "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_names_of_the_archive() {
        assert_eq!(beside("a/layer.tar", "../b/layer.tar"), "b/layer.tar");
        assert_eq!(beside("a/layer.tar", "./other.tar"), "a/other.tar");
        assert_eq!(beside("layer.tar", "../../etc/passwd"), "etc/passwd");
    }
}
