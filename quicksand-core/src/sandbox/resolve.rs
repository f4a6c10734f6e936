//! What the name means that a sandbox is started from.

use std::path::{Path, PathBuf};

use crate::{
    base::progress::Reporter,
    error::Error,
    host::Host,
    image::{ImageError, state::State},
    launch::source::Source,
    making,
};

/// Finds what a name means: the file of a disk, a directory that holds a save, a save of that name, an image.
pub(crate) async fn resolve(host: &Host, name: &str, saves: &Path, reporter: &Reporter) -> Result<Source, Error> {
    let directory = if name.contains('/') { PathBuf::from(name) } else { saves.join(name) };
    if name.contains('/') && directory.exists() && !directory.is_dir() {
        return Ok(Source::Image(making::ensure_disk(&host.cache, &directory, reporter).await?));
    }
    if let Some(state) = State::read(&directory)? {
        return Ok(Source::Save(Box::new(state)));
    }
    match making::ensure(&host.cache, name, reporter).await {
        Ok(image) => Ok(Source::Image(image)),
        Err(ImageError::Unknown { known: images, .. }) => {
            Err(Error::NoSuchSource { name: name.to_owned(), saves: saves.to_owned(), images })
        }
        Err(ImageError::BadName { .. }) if name.contains('/') => {
            Err(Error::NoSuchSource { name: name.to_owned(), saves: directory, images: Vec::new() })
        }
        Err(error) => Err(error.into()),
    }
}
