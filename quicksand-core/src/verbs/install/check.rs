//! Whether a guest has what a program needs, found out before anything is copied: from the program, which is on the host, and from
//! the guest's loader, libraries and interpreters, which are read and not run.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
};

use super::{
    elf::{self, Object},
    loader_cache, lossy,
};
use crate::{
    base::{printed::printable, size::Size},
    error::{Error, Result, install::InstallError},
    sandbox::Sandbox,
    verbs::facts,
};

/// Directories in which loaders look for libraries after the cache: those of Debian and its kin, of others, of musl.
const DIRECTORIES: [&str; 5] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"];
/// Those in which the agent finds programs.
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// The largest library, and the largest cache of a loader, that is read.
const LIBRARY_LIMIT: Size = Size::from_mib(64);
/// How much of a script its first line may be.
const FIRST_LINE: usize = 255;
/// How many questions go at once.
const STEP: usize = 200;

/// Fails where the guest lacks what a program needs that is to be at `to`.
pub(crate) async fn check(sandbox: &Sandbox, program: &Path, content: &[u8], to: &Path) -> Result<()> {
    let guest = Guest { sandbox, program };
    if elf::is_elf(content) {
        let damaged =
            |error: ::elf::ParseError| InstallError::Damaged { program: program.to_owned(), why: error.to_string() };
        guest.check_program(&elf::read(content).map_err(damaged)?, to).await
    } else if let Some(line) = content.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        guest.check_script(&String::from_utf8_lossy(&line[..line.len().min(FIRST_LINE)])).await
    } else {
        Err(InstallError::NotAProgram { program: program.to_owned() }.into())
    }
}

/// A guest, and the program that is to go there.
struct Guest<'a> {
    sandbox: &'a Sandbox,
    program: &'a Path,
}

impl Guest<'_> {
    async fn check_program(&self, object: &Object, to: &Path) -> Result<()> {
        let program = || self.program.to_owned();
        // A guest has the architecture of its host.
        let guest = env::consts::ARCH;
        let fits = match (guest, architecture(object)) {
            (guest, Some(needs)) if guest == needs => true,
            // The processor runs these, too, and whether there is a loader for them is seen below.
            ("x86_64", Some("i386")) => true,
            _ => false,
        };
        if !fits {
            let needs = architecture(object).map_or_else(|| format!("machine {}", object.machine), str::to_owned);
            let target = format!("{guest}-unknown-linux-gnu");
            return Err(InstallError::Architecture { program: program(), needs, guest, target }.into());
        }
        // A static program needs nothing.
        let Some(loader) = &object.loader else { return Ok(()) };
        let loaders = self.existing(vec![loader.clone(), musl(guest), glibc(guest)]).await?;
        if !loaders.contains(loader) {
            let found = match (loaders.contains(&musl(guest)), loaders.contains(&glibc(guest))) {
                (true, false) => "its C library is musl".to_owned(),
                (false, true) => format!("its own is {}", glibc(guest)),
                (true, true) => format!("it has {} and {}", glibc(guest), musl(guest)),
                (false, false) => "it has no C library".to_owned(),
            };
            let (loader, target) = (printable(loader), format!("{guest}-unknown-linux-musl"));
            return Err(InstallError::NoLoader { program: program(), loader, found, target }.into());
        }
        // Another library may stand in for glibc and be its own loader: only that itself could tell what it has.
        let of_glibc = self.object(loader).await?.has.iter().any(|version| version.starts_with("GLIBC_"));
        if of_glibc || loader.contains("/ld-musl-") {
            return self.check_libraries(object, loader, to).await;
        }
        Ok(())
    }

    async fn check_libraries(&self, object: &Object, loader: &str, to: &Path) -> Result<()> {
        let (program, guest) = (|| self.program.to_owned(), env::consts::ARCH);
        let found = self.find_libraries(object, loader, to).await?;
        let missing = object.libraries.iter().filter(|library| !found.contains_key(*library));
        let missing: Vec<_> = missing.map(|library| printable(library)).collect();
        if !missing.is_empty() {
            return Err(InstallError::MissingLibraries { program: program(), libraries: missing }.into());
        }
        for (library, versions) in &object.needs {
            let Some(path) = found.get(library) else { continue };
            let theirs = self.object(path).await?;
            // The loader takes one without any versions for one that has all.
            if theirs.has.is_empty() {
                continue;
            }
            let needs: Vec<_> = versions.difference(&theirs.has).map(|version| printable(version)).collect();
            if let Some(first) = needs.first() {
                let has = newest(first, &theirs.has).map(|version| printable(&version));
                let advice = advice(library, guest, has.as_deref());
                return Err(InstallError::TooOld {
                    program: program(),
                    library: printable(library),
                    needs,
                    has,
                    advice,
                }
                .into());
            }
        }
        Ok(())
    }

    /// Where the guest has the libraries of a program, of those that it has.
    async fn find_libraries(&self, object: &Object, loader: &str, to: &Path) -> Result<BTreeMap<String, String>> {
        let (own, mut found) = (loader.rsplit('/').next().unwrap_or_default(), BTreeMap::new());
        let origin = lossy(to.parent().unwrap_or(Path::new("/")));
        let cache = match self.read("/etc/ld.so.cache").await {
            // A guest of another C library has none.
            Err(Error::Guest(_)) => Vec::new(),
            cache => cache?,
        };
        let multiarch = format!("{}-linux-gnu", env::consts::ARCH);
        let mut candidates: Vec<(&String, String)> = Vec::new();
        for library in &object.libraries {
            if library == own || (own.starts_with("ld-musl-") && is_musl(library)) {
                found.insert(library.clone(), loader.to_owned());
                continue;
            }
            if library.contains('/') {
                candidates.push((library, library.clone()));
                continue;
            }
            let first = object.directories.iter();
            let first = first.map(|directory| directory.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin));
            candidates.extend(first.map(|directory| (library, format!("{directory}/{library}"))));
            candidates.extend(loader_cache::paths(&cache, library).into_iter().map(|path| (library, path)));
            for directory in DIRECTORIES {
                candidates.push((library, format!("{directory}/{multiarch}/{library}")));
                candidates.push((library, format!("{directory}/{library}")));
            }
        }
        candidates.retain(|(_, path)| path.starts_with('/') && path.len() < 4096);
        let existing = self.existing(candidates.iter().map(|(_, path)| path.clone()).collect()).await?;
        for (library, path) in candidates {
            if existing.contains(&path) {
                found.entry(library.clone()).or_insert(path);
            }
        }
        Ok(found)
    }

    async fn check_script(&self, line: &str) -> Result<()> {
        let mut words = line.split_ascii_whitespace();
        let missing = |interpreter: &str| {
            let interpreter = printable(&interpreter.replace('\r', "\\r"));
            Err(InstallError::NoInterpreter { program: self.program.to_owned(), interpreter }.into())
        };
        // Of lines that end as those of Windows do, the kernel takes the end for a part of the name.
        let Some(interpreter) = words.next().filter(|word| word.starts_with('/') && !line.ends_with('\r')) else {
            return missing(line);
        };
        if self.existing(vec![interpreter.to_owned()]).await?.is_empty() {
            return missing(interpreter);
        }
        if interpreter.ends_with("/env") {
            // What follows are its options and variables, then the program that it looks for.
            let Some(name) = words.find(|word| !word.starts_with('-') && !word.contains('=')) else { return Ok(()) };
            let places = if name.contains('/') {
                vec![name.to_owned()]
            } else {
                PATH.iter().map(|directory| format!("{directory}/{name}")).collect()
            };
            if self.existing(places).await?.is_empty() {
                return missing(name);
            }
        }
        Ok(())
    }

    /// Those of these paths at which there is something that is not a directory.
    async fn existing(&self, paths: Vec<String>) -> Result<BTreeSet<String>> {
        let mut existing = BTreeSet::new();
        for paths in paths.chunks(STEP) {
            let found = self.sandbox.facts(paths.iter().map(facts::file).collect::<Vec<_>>()).await?;
            let there = found.into_iter().filter(|file| {
                file.entry.as_ref().is_some_and(|entry| entry.kind != facts::Kind::Directory && !entry.dangling)
            });
            existing.extend(there.map(|file| lossy(&file.path)));
        }
        Ok(existing)
    }

    /// What a loader or library of the guest's says of itself. One that is damaged says nothing: that it does not work is seen when
    /// the program is run.
    async fn object(&self, path: &str) -> Result<Object> {
        Ok(elf::read(&self.read(path).await?).unwrap_or_default())
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.sandbox.read_file_up_to(&PathBuf::from(path), LIBRARY_LIMIT).await
    }
}

/// Rust's name of a program's architecture, where it is one that guests have, or one that people build for.
fn architecture(object: &Object) -> Option<&'static str> {
    match (object.machine, object.is_64) {
        (::elf::abi::EM_X86_64, true) => Some("x86_64"),
        (::elf::abi::EM_X86_64, false) => Some("x32"),
        (::elf::abi::EM_386, _) => Some("i386"),
        (::elf::abi::EM_AARCH64, _) => Some("aarch64"),
        (::elf::abi::EM_ARM, _) => Some("arm"),
        (::elf::abi::EM_RISCV, true) => Some("riscv64"),
        (::elf::abi::EM_PPC64, _) => Some("powerpc64"),
        (::elf::abi::EM_S390, true) => Some("s390x"),
        _ => None,
    }
}

fn glibc(architecture: &str) -> String {
    match architecture {
        "x86_64" => "/lib64/ld-linux-x86-64.so.2".to_owned(),
        other => format!("/lib/ld-linux-{other}.so.1"),
    }
}

fn musl(architecture: &str) -> String {
    format!("/lib/ld-musl-{architecture}.so.1")
}

/// Whether musl's loader is that library itself.
fn is_musl(library: &str) -> bool {
    ["libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet."]
        .iter()
        .any(|own| library.starts_with(own))
}

/// The newest of the versions that are named alike: of `GLIBC_2.38`, those that begin with `GLIBC_` and a digit.
fn newest(like: &str, versions: &BTreeSet<String>) -> Option<String> {
    let (kind, _) = like.rsplit_once('_')?;
    let numbers = |version: &str| {
        let digits = version.strip_prefix(kind)?.strip_prefix('_')?;
        digits.split('.').map(|number| number.parse::<u32>().ok()).collect::<Option<Vec<_>>>()
    };
    let newest = versions.iter().filter_map(|version| Some((numbers(version)?, version))).max();
    newest.map(|(_, version)| version.clone())
}

fn advice(library: &str, guest: &str, has: Option<&str>) -> String {
    match has.and_then(|has| has.strip_prefix("GLIBC_")) {
        Some(version) => format!(
            "build it with --target {guest}-unknown-linux-musl, which needs no C library of the guest's, or for one that old, with \
             `cargo zigbuild --target {guest}-unknown-linux-gnu.{version}` or in a container of the guest's system"
        ),
        None => format!("install a newer {} there, or build with an older one", printable(library)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_so_by_numbers() {
        let versions = ["GLIBC_2.2.5", "GLIBC_2.36", "GLIBC_2.4", "GLIBC_PRIVATE", "OTHER_9"].map(str::to_owned).into();
        assert_eq!(newest("GLIBC_2.38", &versions).as_deref(), Some("GLIBC_2.36"));
        assert_eq!(newest("GLIBC_ABI_DT_RELR", &versions), None);
        assert_eq!(newest("OPENSSL_3.2.0", &versions), None);
    }

    #[test]
    fn advice_is_for_the_guest_at_hand() {
        let told = advice("libc.so.6", "x86_64", Some("GLIBC_2.36"));
        assert!(told.contains("--target x86_64-unknown-linux-gnu.2.36"), "{told}");
        assert_eq!(
            advice("libssl.so.3", "x86_64", None),
            "install a newer libssl.so.3 there, or build with an older one"
        );
    }
}
