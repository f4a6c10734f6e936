//! The file that follows what is run.

use std::{
    fs::{self, File},
    io::{Result, Write},
    path::{Path, PathBuf},
};

/// A file of lines.
#[derive(Debug)]
pub(crate) struct Record {
    path: PathBuf,
    /// Once there is something to write: most machines run nothing that anybody asks for later.
    file: Option<File>,
    length: usize,
}

impl Record {
    pub(crate) fn new(path: &Path) -> Record {
        Record { path: path.to_owned(), file: None, length: 0 }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How long it is, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Adds a line, in one piece: one that is killed leaves no half of it.
    pub(crate) fn add(&mut self, line: &str) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::options().append(true).create(true).open(&self.path)?),
        };
        self.length += line.len();
        file.write_all(line.as_bytes())
    }

    /// Puts other lines in the place of all of it, which is there until they are.
    pub(crate) fn replace(&mut self, lines: &str) -> Result<()> {
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, lines)?;
        fs::rename(&fresh, &self.path)?;
        (self.file, self.length) = (None, lines.len());
        Ok(())
    }
}
