//! Patterns that people wait for: regular expressions, in the syntax of the crate `regex` without its classes of Unicode.

use regex_lite::Regex;

use crate::error::{Error, Result};

/// Reads a pattern.
pub(crate) fn compile(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|error| Error::BadPattern { pattern: pattern.to_owned(), why: error.to_string() })
}
