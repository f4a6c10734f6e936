//! Makes images of root file systems that come as tar archives: one, or the layers of a container image.
//!
//! All of it happens in the image's directory while that is unfinished: layers are checked and unpacked to archives, these are merged
//! into one, and that becomes the disk.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use quicksand_fetch::Digest;
use sha2::{Digest as _, Sha256};

use super::{
    Parts, boot, disk,
    kernel::Bundle,
    making,
    rootfs::{self, Layer, Limits, MergeError, Owners, Section, Stranger, Written, why},
};
use crate::{
    base::{blocking::blocking, cache::Cache, compression::unpacked, progress::Reporter},
    image::{
        Image,
        error::ImageError,
        metadata::{Boot, Defaults, Origin, Root},
    },
};

/// The most that an image's layers may take, not compressed.
const MOST_UNPACKED: u64 = 32 << 30;
/// A blob may unpack to so many times its own size, and always to so many bytes: what unpacks to more is made to fill a disk.
const MOST_RATIO: u64 = 100;
const ALWAYS_ALLOWED: u64 = 1 << 30;
/// The least size of a disk, as its guest sees it.
const LEAST_DISK: u64 = 4 << 30;
/// ext4 is made with a file for each so many bytes.
const BYTES_PER_FILE: u64 = 16 << 10;

/// Raised whenever the same archive makes another image: it is part of the names in the cache, so that older images are made anew.
pub(crate) const MAKING: u32 = 2;

/// How much is read at a time.
const BUFFER: usize = 256 << 10;
/// The merged archive, in the image's directory while that is made.
const ARCHIVE: &str = "root.tar";

/// One archive of a root file system.
#[derive(Debug)]
pub(crate) struct Blob {
    /// How errors call it.
    pub(crate) name: String,
    /// As it is stored, compressed or not.
    pub(crate) content: Section,
    /// What its content must be.
    pub(crate) digest: Option<Digest>,
    /// What the archive in it must be, not compressed.
    pub(crate) archive_digest: Option<Digest>,
}

/// What an image is made of.
#[derive(Debug)]
pub(crate) struct RootFs {
    /// How errors call it.
    pub(crate) name: String,
    /// From the bottom up.
    pub(crate) layers: Vec<Blob>,
    /// Whether upper layers may ask for removals.
    pub(crate) whiteouts: bool,
    /// How its programs are run.
    pub(crate) defaults: Defaults,
    pub(crate) origin: Origin,
}

/// The image of that name, made where the cache does not have it.
pub(crate) async fn ensure(
    cache: &Cache,
    name: &str,
    root_fs: RootFs,
    reporter: &Reporter,
) -> Result<Image, ImageError> {
    let make = async |directory: PathBuf| {
        // Before anybody waits for anything else.
        let owners = disk::check(&directory).await?;
        let RootFs { name, layers, whiteouts, defaults, origin } = root_fs;
        let stop = Stop::default();
        let work =
            Work { what: name, directory: directory.clone(), stopped: Arc::clone(&stop.0), reporter: reporter.clone() };
        let (work, written, own_boot) = blocking(move || {
            let written = work.merge(layers, whiteouts, &owners)?;
            let boot = work.own_boot()?;
            Ok::<_, ImageError>((work, written, boot))
        })
        .await?;
        let (boot, written) = match own_boot {
            Some(boot) => (boot, written),
            None => {
                let bundle = Bundle::ensure(cache, reporter).await?;
                let boot = bundle.put_into(&directory, crate::image::FILE_SYSTEM)?;
                (boot, blocking(move || work.add_modules(&bundle.modules(), written)).await?)
            }
        };
        // Half of it is free, and there are twice as many files as are used.
        let least = (2 * written.content).max(2 * BYTES_PER_FILE * written.entries).max(LEAST_DISK);
        let disk_size = least.next_multiple_of(1 << 30);
        disk::make(&directory, ARCHIVE, written.entries, disk_size, reporter).await?;
        let (file_system, root) = (crate::image::FILE_SYSTEM.to_owned(), Root::default());
        Ok(Parts { disk_size, file_system, root, origin: Some(origin), defaults, boot })
    };
    making(cache, name, make, reporter).await
}

/// Tells a thread that nobody waits for it any more.
#[derive(Debug, Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is done on a thread of its own, which works on for a moment where nobody waits for it any more.
struct Work {
    what: String,
    directory: PathBuf,
    stopped: Arc<AtomicBool>,
    reporter: Reporter,
}

impl Work {
    fn merge(&self, blobs: Vec<Blob>, whiteouts: bool, owners: &Owners) -> Result<Written, ImageError> {
        let mut progress = Progress { done: 0, total: blobs.iter().map(|blob| blob.content.len()).sum(), work: self };
        let mut left = MOST_UNPACKED;
        let mut layers = Vec::new();
        for blob in blobs {
            layers.push(self.unpack(blob, &mut left, &mut progress)?);
        }
        let out = self.directory.join(ARCHIVE);
        let merged = rootfs::merge(layers, whiteouts, Limits::default(), owners, &out, &mut |done, total| {
            self.reporter.report("merge layers", done, total);
            self.go_on()
        });
        let written = merged.map_err(|error| match error {
            MergeError::Write(source) => ImageError::io("write", &out)(source),
            error => ImageError::RootFs { what: self.what.clone(), why: error.to_string() },
        })?;
        if let Some(Stranger { path, uid, gid }) = &written.stranger {
            let (image, files, ids) = (&self.what, written.strangers, owners.count());
            tracing::warn!(
                target: "quicksand::image",
                image, path, uid, gid, files, ids,
                "files are nobody's, as their owners are beyond the ids of this user namespace: to keep them, give \
                 this user a range in /etc/subuid and /etc/subgid that is longer than the highest of them, and make \
                 the image again"
            );
        }
        Ok(written)
    }

    /// Checks a blob to the last byte, and gives the archive in it.
    fn unpack(&self, blob: Blob, left: &mut u64, progress: &mut Progress<'_>) -> Result<Layer, ImageError> {
        let Blob { name, content, digest, archive_digest } = blob;
        let failed = |source: io::Error| self.unreadable(&name, &source);
        let check = |wanted: Option<Digest>, kind: &str, hash: Sha256| match (wanted, Digest::from(hash)) {
            (Some(expected), found) if found != expected => {
                let what = format!("{kind}{name} of {}", self.what);
                Err(ImageError::Digest { what, expected: expected.to_string(), found: found.to_string() })
            }
            _ => Ok(()),
        };
        let allowance = ALWAYS_ALLOWED.max(content.len().saturating_mul(MOST_RATIO));
        let mut watched = Hashing { from: content.clone(), hash: Sha256::new(), progress };
        if is_archive(&content).map_err(failed)? {
            *left = left.checked_sub(content.len()).ok_or_else(|| failed(why("it is too large")))?;
            io::copy(&mut BufReader::with_capacity(BUFFER, &mut watched), &mut io::sink()).map_err(failed)?;
            check(digest, "", watched.hash.clone())?;
            check(archive_digest, "the archive in ", watched.hash)?;
            return Ok(Layer { name, archive: content });
        }
        let path = self.directory.join("layer.tar");
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(ImageError::io("create", &path))?;
        // It goes as soon as it is closed.
        fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
        let unpacked = self.copy(&name, &mut watched, allowance.min(*left), &file, &path);
        // What may follow the archive belongs to the blob. Where that can't be unpacked, its digest tells why.
        io::copy(&mut BufReader::with_capacity(BUFFER, &mut watched), &mut io::sink()).map_err(failed)?;
        check(digest, "", watched.hash)?;
        let (hash, len) = unpacked?;
        *left -= len;
        check(archive_digest, "the archive in ", hash)?;
        let archive = Section::whole(file).map_err(ImageError::io("read", &path))?;
        Ok(Layer { name, archive })
    }

    /// Unpacks an archive to a file. Returns what digests it, and its length.
    fn copy(
        &self,
        name: &str,
        from: &mut impl Read,
        limit: u64,
        mut to: &File,
        path: &Path,
    ) -> Result<(Sha256, u64), ImageError> {
        let failed = |source: io::Error| self.unreadable(name, &source);
        let mut archive = unpacked(from, limit).map_err(failed)?;
        let (mut hash, mut len) = (Sha256::new(), 0);
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = archive.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                return Ok((hash, len));
            }
            len += count as u64;
            hash.update(&buffer[..count]);
            to.write_all(&buffer[..count]).map_err(ImageError::io("write", path))?;
        }
    }

    fn unreadable(&self, name: &str, why: &io::Error) -> ImageError {
        ImageError::RootFs { what: self.what.clone(), why: format!("{name} can't be read: {why}") }
    }

    /// The image's own kernel, if it has one with all that a machine needs of it.
    fn own_boot(&self) -> Result<Option<Boot>, ImageError> {
        let directory = &self.directory;
        match boot::extract(&directory.join(ARCHIVE), directory) {
            Ok((boot, _)) => Ok(Some(boot)),
            Err(error @ (ImageError::Incomplete { .. } | ImageError::MissingModules { .. })) => {
                tracing::debug!(target: "quicksand::image", %error, "no kernel of its own");
                let modules = directory.join("modules");
                if modules.exists() {
                    fs::remove_dir_all(&modules).map_err(ImageError::io("remove", &modules))?;
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Adds the modules of a kernel that is lent to the merged archive, through a `/lib` that is a link as well. Where there is no
    /// place for them, as below a `/lib` that is a file, the archive stays as it is.
    fn add_modules(&self, modules: &Path, written: Written) -> Result<Written, ImageError> {
        let (archive, out) = (self.directory.join(ARCHIVE), self.directory.join("with-modules.tar"));
        let layer = |path: &Path| {
            let archive = File::open(path).and_then(Section::whole).map_err(ImageError::io("read", path))?;
            Ok::<_, ImageError>(Layer { name: "the archive".into(), archive })
        };
        let layers = vec![layer(&archive)?, layer(modules)?];
        // Owners were seen to when the archive was made.
        let owners = Owners::default();
        let merged = rootfs::merge(layers, false, Limits::default(), &owners, &out, &mut |done, total| {
            self.reporter.report("add modules", done, total);
            self.go_on()
        });
        match merged {
            Ok(with_modules) => {
                fs::rename(&out, &archive).map_err(ImageError::io("rename", &out))?;
                Ok(with_modules)
            }
            Err(MergeError::Write(source)) => Err(ImageError::io("write", &out)(source)),
            Err(error) => {
                tracing::warn!(target: "quicksand::image", what = self.what, %error, "no modules of the kernel that is lent");
                Ok(written)
            }
        }
    }

    fn go_on(&self) -> io::Result<()> {
        if self.stopped.load(Ordering::Relaxed) { Err(why("nobody waits for any more")) } else { Ok(()) }
    }
}

struct Progress<'a> {
    done: u64,
    total: u64,
    work: &'a Work,
}

/// Reads a blob, and keeps count.
struct Hashing<'a, 'b> {
    from: Section,
    hash: Sha256,
    progress: &'a mut Progress<'b>,
}

impl Read for Hashing<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.progress.work.go_on()?;
        let count = self.from.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.progress.done += count as u64;
        self.progress.work.reporter.report("unpack layers", self.progress.done, self.progress.total);
        Ok(count)
    }
}

/// Whether it is an archive as it stands. One of a very old maker, which is not recognized, is merely copied.
fn is_archive(content: &Section) -> io::Result<bool> {
    let mut block = Vec::new();
    content.clone().take(512).read_to_end(&mut block)?;
    Ok(block.get(257..262) == Some(b"ustar"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_given_up_early_and_a_thread_that_nobody_waits_for_ends() {
        let directory = tempfile::tempdir().unwrap();
        let stop = Stop::default();
        let work = Work {
            what: "x".into(),
            directory: directory.path().to_owned(),
            stopped: Arc::clone(&stop.0),
            reporter: Reporter::silent(),
        };
        let bomb = || {
            let mut file = tempfile::tempfile().unwrap();
            let mut encoder = flate2::write::GzEncoder::new(&mut file, flate2::Compression::best());
            encoder.write_all(&vec![0; 8 << 20]).unwrap();
            encoder.finish().unwrap();
            Section::whole(file).unwrap()
        };
        let out = tempfile::NamedTempFile::new().unwrap();
        let error = work.copy("layer 1", &mut bomb(), 1 << 20, out.as_file(), out.path()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("of x: layer 1 can't be read: it unpacks to more than 1048576 bytes"), "{text}");
        assert!(out.as_file().metadata().unwrap().len() <= 1 << 20);

        drop(stop);
        let blob = Blob { name: "layer 1".into(), content: bomb(), digest: None, archive_digest: None };
        let error = work.merge(vec![blob], true, &Owners::default()).unwrap_err();
        assert!(error.to_string().contains("nobody waits"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
