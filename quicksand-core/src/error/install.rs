//! Why a program can't be installed in a guest.

use std::path::PathBuf;

/// Why a program can't be installed in a guest, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// It is neither an ELF program nor a script.
    #[error(
        "install {}: it is neither a program (ELF) nor a script that begins with #!; upload(..) copies any file",
        program.display()
    )]
    NotAProgram {
        /// The program.
        program: PathBuf,
    },
    /// It is a program that can't be read.
    #[error("install {}: it is a damaged program (ELF): {why}", program.display())]
    Damaged {
        /// The program.
        program: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is for another architecture.
    #[error("install {}: it is a program for {needs}, and the guest is {guest}; build it with --target {target}", program.display())]
    Architecture {
        /// The program.
        program: PathBuf,
        /// The program's architecture.
        needs: String,
        /// The guest's.
        guest: &'static str,
        /// A target of Rust's that fits.
        target: String,
    },
    /// The guest has no loader for it.
    #[error(
        "install {}: it needs the loader {loader}, which the guest lacks: {found}; build it with --target {target}, which needs no \
         C library of the guest's",
        program.display()
    )]
    NoLoader {
        /// The program.
        program: PathBuf,
        /// The loader that it names.
        loader: String,
        /// Which C library the guest has, in words.
        found: String,
        /// A target of Rust's that fits.
        target: String,
    },
    /// The guest lacks shared libraries.
    #[error(
        "install {}: it needs {}, which the guest lacks; install {} there, in a setup for example, or link the program statically",
        program.display(), libraries.join(", "), if libraries.len() == 1 { "the package that has it" } else { "the packages that have them" }
    )]
    MissingLibraries {
        /// The program.
        program: PathBuf,
        /// The names of the libraries.
        libraries: Vec<String>,
    },
    /// A library of the guest's is too old.
    #[error("install {}: it needs {} of {library}, and the guest has {}; {advice}", program.display(), needs.join(", "),
            has.as_ref().map_or("none such".to_owned(), |has| format!("{has} at the most")))]
    TooOld {
        /// The program.
        program: PathBuf,
        /// The library: `libc.so.6`.
        library: String,
        /// The versions of its symbols that the guest's has not: `GLIBC_2.38`.
        needs: Vec<String>,
        /// The newest version of that kind that the guest's has: `GLIBC_2.36`.
        has: Option<String>,
        /// What to do.
        advice: String,
    },
    /// The guest lacks the interpreter of a script.
    #[error("install {}: it is a script for {interpreter}, which the guest lacks; install the package that has it there", program.display())]
    NoInterpreter {
        /// The script.
        program: PathBuf,
        /// The interpreter.
        interpreter: String,
    },
}
