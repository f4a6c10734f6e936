//! Takes what a machine starts from, a kernel and its modules, out of a root file system's tar archive.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use quicksand_protocol::{kernel::compare, modules::needed};

use super::kernel::{LARGEST_FILE, module_path};
use crate::{
    base::compression::unpacked,
    image::{
        FILE_SYSTEM,
        error::ImageError,
        metadata::{Boot, StoredFile},
    },
};

/// The most of `modules.dep` that is read, in bytes: a hundred times what it has.
const LARGEST_TEXT: u64 = 64 << 20;

/// Writes the kernel and the modules that a guest needs to `directory`.
/// Returns them, and how many entries the archive has, those in `/dev` aside.
pub(crate) fn extract(archive: &Path, directory: &Path) -> Result<(Boot, u64), ImageError> {
    let mut entries = 0;
    let mut texts = HashMap::new();
    let mut kernels = Vec::new();
    each_entry(archive, |path, content| {
        entries += u64::from(!path.starts_with("dev/"));
        if let Some(release) = path.strip_prefix("boot/vmlinuz-") {
            kernels.push(release.to_owned());
        } else if path.contains("lib/modules/")
            && (path.ends_with("/modules.dep") || path.ends_with("/modules.builtin"))
        {
            let mut text = String::new();
            content.take(LARGEST_TEXT).read_to_string(&mut text)?;
            texts.insert(path.to_owned(), text);
        }
        Ok(())
    })?;

    // One kernel is the rule; of more we take the newest that has modules, since these are what the rest of the image is
    // for.
    kernels.sort_by(|one, other| compare(one, other));
    let text = |release: &str, file: &str| {
        let directories = ["usr/lib/modules", "lib/modules"];
        directories
            .iter()
            .find_map(|at| Some((format!("{at}/{release}"), texts.get(&format!("{at}/{release}/{file}"))?)))
    };
    let found = kernels.iter().rev().find_map(|release| {
        let (modules_at, dependencies) = text(release, "modules.dep")?;
        Some((release, modules_at, dependencies, text(release, "modules.builtin")?.1))
    });
    let Some((release, modules_at, dependencies, built_in)) = found else {
        let what = if kernels.is_empty() { "a kernel (/boot/vmlinuz-*)" } else { "modules of the kernel" };
        return Err(ImageError::Incomplete { what });
    };
    tracing::debug!(target: "quicksand::image", release, "kernel");

    let mut wanted = HashMap::from([(format!("boot/vmlinuz-{release}"), PathBuf::from("kernel"))]);
    let mut modules = Vec::new();
    for (number, path) in needed(dependencies, built_in, FILE_SYSTEM)?.iter().enumerate() {
        let stored = module_path(number, path);
        modules.push(stored.clone());
        wanted.insert(format!("{modules_at}/{path}"), stored);
    }
    let modules_directory = directory.join("modules");
    fs::create_dir(&modules_directory).map_err(ImageError::io("create", &modules_directory))?;
    let mut sizes = HashMap::new();
    each_entry(archive, |path, content| {
        if let Some(stored) = wanted.remove(path) {
            let mut file = File::create(directory.join(&stored))?;
            sizes.insert(stored, io::copy(&mut unpacked(content, LARGEST_FILE)?, &mut file)?);
        }
        Ok(())
    })?;
    let mut stored = |path: PathBuf| match sizes.remove(&path) {
        Some(size) if size > 0 => Ok(StoredFile { path, size }),
        _ => Err(ImageError::Incomplete { what: "a file of the kernel or of its modules that has content" }),
    };
    let kernel = stored("kernel".into())?;
    let modules = modules.into_iter().map(stored).collect::<Result<_, _>>()?;
    Ok((Boot { kernel, lent: false, modules }, entries))
}

/// Shows the path of each entry, without a `./` before it, and its content. It skips over what is not read.
fn each_entry(archive: &Path, mut show: impl FnMut(&str, &mut dyn Read) -> io::Result<()>) -> Result<(), ImageError> {
    let mut all = || {
        let mut archive = tar::Archive::new(File::open(archive)?);
        for entry in archive.entries_with_seek()? {
            let mut entry = entry?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            show(path.strip_prefix("./").unwrap_or(&path), &mut entry)?;
        }
        Ok(())
    };
    all().map_err(ImageError::io("take the kernel out of", archive))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(directory: &Path, files: &[(&str, &str)]) -> PathBuf {
        let path = directory.join("root.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        builder.finish().unwrap();
        path
    }

    const BUILT_IN: &str = "k/virtio_pci.ko\nk/virtio_blk.ko\nk/virtio_console.ko\nk/virtio_net.ko\nk/ext4.ko\n";

    #[test]
    fn the_kernel_that_has_modules_is_taken_with_them() {
        for at in ["lib/modules", "usr/lib/modules"] {
            let directory = tempfile::tempdir().unwrap();
            let path = |file: &str| format!("./{at}/6.1/{file}");
            let archive = archive(
                directory.path(),
                &[
                    ("./boot/vmlinuz-6.0", "old"),
                    ("./boot/vmlinuz-6.1", "kernel"),
                    ("./dev/null", ""),
                    (&path("k/fs/fuse.ko"), "fuse"),
                    (&path("k/fs/x.ko"), "other"),
                    (&path("modules.builtin"), BUILT_IN),
                    (&path("modules.dep"), "k/fs/fuse.ko: k/fs/z-y.ko\nk/fs/x.ko:\nk/fs/z-y.ko:\n"),
                    (&path("k/fs/z-y.ko"), "needed"),
                ],
            );
            let (boot, entries) = extract(&archive, directory.path()).unwrap();
            let read = |file: &StoredFile| fs::read_to_string(directory.path().join(&file.path)).unwrap();
            assert_eq!((boot.kernel.size, read(&boot.kernel).as_str()), (6, "kernel"));
            let paths: Vec<_> = boot.modules.iter().map(|file| file.path.to_str().unwrap()).collect();
            assert_eq!(paths, ["modules/00-z_y.ko", "modules/01-fuse.ko"]);
            assert_eq!(boot.modules.iter().map(read).collect::<Vec<_>>(), ["needed", "fuse"]);
            assert_eq!(entries, 7);
        }
    }

    #[test]
    fn the_newest_kernel_is_taken() {
        let releases = ["6.10.0-1-generic", "6.9.0-12-generic", "6.9.0-2-generic"];
        let mut files = Vec::new();
        for release in releases {
            files.push((format!("./boot/vmlinuz-{release}"), release));
            files.push((format!("./lib/modules/{release}/modules.builtin"), BUILT_IN));
            files.push((format!("./lib/modules/{release}/modules.dep"), "k/x.ko:"));
        }
        // Each, once the newer ones are gone.
        for newest in releases {
            let directory = tempfile::tempdir().unwrap();
            let there: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
            let (boot, _) = extract(&archive(directory.path(), &there), directory.path()).unwrap();
            assert_eq!(fs::read_to_string(directory.path().join(boot.kernel.path)).unwrap(), newest);
            files.retain(|(path, _)| !path.contains(newest));
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let error = extract(&archive(directory.path(), &[("./etc/x", "")]), directory.path()).unwrap_err();
        assert!(error.to_string().contains("a kernel"), "{error}");
        let error = extract(&archive(directory.path(), &[("./boot/vmlinuz-1", "x")]), directory.path()).unwrap_err();
        assert!(error.to_string().contains("modules of"), "{error}");
        let files = [
            ("./boot/vmlinuz-1", "x"),
            ("./lib/modules/1/modules.dep", "k/fuse.ko:"),
            ("./lib/modules/1/modules.builtin", BUILT_IN),
        ];
        let error = extract(&archive(directory.path(), &files), directory.path()).unwrap_err();
        assert!(matches!(error, ImageError::Incomplete { .. }), "{error}");
    }

    #[test]
    fn a_broken_archive_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.tar");
        fs::write(&path, vec![7; 5000]).unwrap();
        assert!(matches!(extract(&path, directory.path()), Err(ImageError::Io { .. })));
    }
}
