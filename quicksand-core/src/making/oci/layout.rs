//! Images in a directory on this host, laid out as OCI has it: `index.json`, and blobs named by their digests.

use std::path::{Path, PathBuf};

use quicksand_fetch::Digest;

use super::{
    Found,
    format::{Descriptor, Index, Manifest, check_digest, parse, read_document},
};
use crate::{
    base::plain_file,
    image::error::ImageError,
    making::{layers::Blob, rootfs::Section},
};

/// The annotation that names an image.
const NAME: &str = "org.opencontainers.image.ref.name";

/// The image that a name or a digest tells, or the only one for this host.
pub(crate) fn find(directory: &Path, wanted: Option<&str>) -> Result<Found, ImageError> {
    let what = format!("the image layout {}", directory.display());
    let index: Index = parse(&what, &document(&what, &directory.join("index.json"))?)?;
    let digest = wanted.and_then(|wanted| wanted.parse::<Digest>().ok());
    let fits = |it: &Descriptor| match (wanted, &digest) {
        (_, Some(digest)) => it.digest == *digest,
        (Some(name), _) => it.annotation(NAME) == Some(name),
        _ => true,
    };
    let fitting = Index { manifests: index.manifests.iter().filter(|it| fits(it)).cloned().collect() };
    let names: Vec<_> = index.manifests.iter().filter_map(|it| it.annotation(NAME)).collect();
    let first = match (&fitting.manifests[..], wanted) {
        ([], Some(wanted)) => {
            let why = format!("it has no image {wanted:?}; it has {}", names.join(", "));
            return Err(ImageError::Document { what, why });
        }
        ([only], _) => only,
        (several, None) if names.len() == several.len() && several.iter().all(|it| it.platform.is_none()) => {
            let why = format!(
                "it has several: {}; add the name of one to its path, as in path:{}",
                names.join(", "),
                names[0]
            );
            return Err(ImageError::Document { what, why });
        }
        _ => fitting.for_this_host(&what)?,
    };
    let mut descriptor = first.clone();
    if descriptor.is_index() {
        let inner: Index = parse(&what, &read_blob(&what, directory, &descriptor)?)?;
        descriptor = inner.for_this_host(&what)?.clone();
    }
    let manifest: Manifest = parse(&what, &read_blob(&what, directory, &descriptor)?)?;
    manifest.check(&what)?;
    let config = read_blob(&what, directory, &manifest.config)?;
    let layers = manifest.layers.iter().enumerate().map(|(number, layer)| {
        let path = blob_path(directory, &layer.digest);
        let content = plain_file::open(&path).and_then(Section::whole).map_err(ImageError::io("read", &path))?;
        check_size(&what, &path, layer, content.len())?;
        Ok(Blob {
            name: format!("layer {}", number + 1),
            content,
            digest: Some(layer.digest.clone()),
            archive_digest: None,
        })
    });
    let layers = layers.collect::<Result<_, ImageError>>()?;
    Found::new(what.clone(), first.digest.clone(), &config, layers)
}

fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs/sha256").join(digest.hex())
}

fn read_blob(what: &str, directory: &Path, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let path = blob_path(directory, &descriptor.digest);
    let bytes = document(what, &path)?;
    check_digest(&path.display().to_string(), &descriptor.digest, &bytes)?;
    check_size(what, &path, descriptor, bytes.len() as u64)?;
    Ok(bytes)
}

fn document(what: &str, path: &Path) -> Result<Vec<u8>, ImageError> {
    read_document(what, plain_file::open(path).map_err(ImageError::io("read", path))?)
}

fn check_size(what: &str, path: &Path, descriptor: &Descriptor, found: u64) -> Result<(), ImageError> {
    if found == descriptor.size {
        return Ok(());
    }
    let why = format!("{} should have {} bytes and has {found}", path.display(), descriptor.size);
    Err(ImageError::Document { what: what.to_owned(), why })
}
