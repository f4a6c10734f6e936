//! A line of output, and what a case file has for it.
//!
//! ```text
//! text             itself
//! text [..] text   itself, with anything in the place of `[..]`
//! ...              any number of lines, also none
//! text\x20 (esc)   bytes that Markdown can't hold, or that would mean something else there: `\\`, `\t`, `\r`, `\xHH`
//! text (no-eol)    a last line that no newline ends
//! ```
//!
//! The two marks at the end are those of cram, the elisions those of trycmd.

use std::{cell::OnceCell, str};

use crate::filters::filtered;

const ANY: &str = "[..]";
const ANY_LINES: &str = "...";
const ESCAPED: &str = " (esc)";
const NO_NEWLINE: &str = " (no-eol)";

/// What is expected in one line of a case file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Any number of lines.
    AnyLines,
    /// One line.
    Line {
        /// What it consists of, with anything between each two.
        parts: Vec<Vec<u8>>,
        /// Whether a newline ends it.
        newline: bool,
    },
}

/// A line that a command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    printed: Vec<u8>,
    newline: bool,
    /// The same with what changes from run to run replaced, once that was asked for.
    filtered: OnceCell<Vec<u8>>,
}

/// Where a line is written, which tells what would mean something else there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// What commands of its block begin with.
    pub(super) prompt: &'a str,
    /// What its block begins and ends with.
    pub(super) fence: &'a str,
    /// Whether it comes right after its command.
    pub(super) first: bool,
}

/// `\` and something that is no escape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(r"in a line that ends with (esc), write \\, \t, \r or \xHH for a byte, not another \")]
pub(super) struct BadEscape;

impl Pattern {
    /// What a line of a case file stands for.
    ///
    /// # Errors
    ///
    /// [`BadEscape`]
    pub(super) fn parse(text: &str) -> Result<Pattern, BadEscape> {
        if text == ANY_LINES {
            return Ok(Pattern::AnyLines);
        }
        let (text, newline) = text.strip_suffix(NO_NEWLINE).map_or((text, true), |text| (text, false));
        let parts = match text.strip_suffix(ESCAPED) {
            Some(text) => text.split(ANY).map(unescape).collect::<Result<_, _>>()?,
            None => text.split(ANY).map(|part| part.as_bytes().to_vec()).collect(),
        };
        Ok(Pattern::Line { parts, newline })
    }

    /// Whether it stands for an empty line.
    pub(super) fn is_empty_line(&self) -> bool {
        matches!(self, Pattern::Line { parts, newline: true } if matches!(&parts[..], [only] if only.is_empty()))
    }

    /// Whether it is one line, and that one, as it was printed or with what changes replaced.
    pub(super) fn is(&self, line: &Line) -> bool {
        let Pattern::Line { parts, newline } = self else { return false };
        *newline == line.newline && (fit(parts, &line.printed) || fit(parts, line.filtered()))
    }
}

/// Whether the parts are all there, one after the other, from the beginning to the end.
fn fit(parts: &[Vec<u8>], text: &[u8]) -> bool {
    let [first, between @ .., last] = parts else { return parts.iter().any(|only| only == text) };
    let Some(mut rest) = text.strip_prefix(&first[..]).and_then(|rest| rest.strip_suffix(&last[..])) else {
        return false;
    };
    for part in between.iter().filter(|part| !part.is_empty()) {
        let Some(at) = rest.windows(part.len()).position(|window| window == part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// The lines of an output.
pub(super) fn lines(output: &[u8]) -> Vec<Line> {
    let line = |text: &[u8]| {
        let (printed, newline) = text.strip_suffix(b"\n").map_or((text, false), |text| (text, true));
        Line { printed: printed.to_vec(), newline, filtered: OnceCell::new() }
    };
    output.split_inclusive(|byte| *byte == b'\n').map(line).collect()
}

impl Line {
    fn filtered(&self) -> &[u8] {
        self.filtered.get_or_init(|| {
            // The filters know text alone, and the newline as a part of it.
            let Ok(text) = str::from_utf8(&self.printed) else { return self.printed.clone() };
            let text = filtered(&if self.newline { format!("{text}\n") } else { text.to_owned() });
            let mut text = text.into_bytes();
            text.pop_if(|byte| self.newline && *byte == b'\n');
            text
        })
    }

    /// How it is written in a case file, what changes from run to run replaced.
    pub(super) fn written(&self, place: Place<'_>) -> String {
        let means_more = self.means_more(place);
        let mut text = match str::from_utf8(self.filtered()) {
            Ok(text) if !means_more && !text.contains(is_hidden) && text.trim_ascii_end() == text => text.to_owned(),
            _ => escape(self.filtered(), means_more) + ESCAPED,
        };
        if !self.newline {
            text.push_str(NO_NEWLINE);
        }
        text
    }

    /// Whether it would mean something else than itself.
    fn means_more(&self, place: Place<'_>) -> bool {
        let text = String::from_utf8_lossy(self.filtered());
        let begins = |word: &str| text.starts_with(word);
        text.contains(ANY)
            || text == ANY_LINES
            || [ESCAPED, NO_NEWLINE].iter().any(|mark| text.ends_with(mark))
            || begins(place.prompt)
            || (place.first && (text == ">" || ["> ", "? "].iter().any(|word| begins(word))))
            || text.trim_start().starts_with(place.fence)
    }
}

/// Characters that can't be seen. Whether a tab is one depends on where it is.
fn is_hidden(c: char) -> bool {
    c.is_control() && c != '\t'
}

/// Bytes as text in which each can be seen. Where it would mean `more` by how it begins, that is written as a number.
fn escape(bytes: &[u8], more: bool) -> String {
    let begin = bytes.iter().position(|byte| *byte != b' ').filter(|_| more);
    let end = bytes.trim_ascii_end().len();
    let mut text = String::new();
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        for (offset, c) in valid.char_indices() {
            let place = at + offset;
            let as_number = begin == Some(place) || place >= end || is_hidden(c) || valid[offset..].starts_with(ANY);
            match c {
                '\\' => text.push_str(r"\\"),
                '\r' => text.push_str(r"\r"),
                '\t' if as_number => text.push_str(r"\t"),
                c if as_number => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_number(&mut text, byte)),
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_number(&mut text, *byte));
        at += valid.len() + chunk.invalid().len();
    }
    text
}

fn push_number(text: &mut String, byte: u8) {
    text.push_str(&format!("\\x{byte:02x}"));
}

fn unescape(text: &str) -> Result<Vec<u8>, BadEscape> {
    let mut bytes = Vec::new();
    let mut pieces = text.split('\\');
    bytes.extend(pieces.next().unwrap_or_default().bytes());
    while let Some(piece) = pieces.next() {
        let rest = match piece.chars().next() {
            // Between two backslashes there is nothing.
            None => {
                bytes.push(b'\\');
                pieces.next().ok_or(BadEscape)?
            }
            Some('t') => push(&mut bytes, b'\t', &piece[1..]),
            Some('r') => push(&mut bytes, b'\r', &piece[1..]),
            Some('x') => {
                let digits = piece.get(1..3).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or(BadEscape)?;
                push(&mut bytes, byte, &piece[3..])
            }
            Some(_) => return Err(BadEscape),
        };
        bytes.extend(rest.bytes());
    }
    Ok(bytes)
}

/// Adds a byte. Returns what comes after it.
fn push<'a>(bytes: &mut Vec<u8>, byte: u8, rest: &'a str) -> &'a str {
    bytes.push(byte);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: Place<'_> = Place { prompt: "$ ", fence: "```", first: true };

    fn only(output: &[u8]) -> Line {
        let [line] = <[Line; 1]>::try_from(lines(output)).unwrap();
        line
    }

    fn is(pattern: &str, output: &str) -> bool {
        Pattern::parse(pattern).unwrap().is(&only(output.as_bytes()))
    }

    #[test]
    fn elisions_stand_for_anything_in_a_line() {
        for (pattern, output) in [
            ("hello", "hello\n"),
            ("[..]", "hello\n"),
            ("[..]", "\n"),
            ("he[..]", "hello\n"),
            ("[..]lo", "hello\n"),
            ("[..].org", "a.org.org\n"),
            ("a[..]b[..]c", "a b b c c\n"),
            ("a[..][..]b", "ab\n"),
            ("hello (no-eol)", "hello"),
            ("[..] (no-eol)", "hello"),
            (r"a\x20 (esc)", "a \n"),
            (r"\xff[..]\\ (esc)", "\u{0}\n"),
        ] {
            // The last one can't be.
            assert_eq!(is(pattern, output), output != "\u{0}\n", "{pattern} and {output:?}");
        }
        for (pattern, output) in [
            ("hello", "hello \n"),
            ("hello", "hello"),
            ("hello (no-eol)", "hello\n"),
            ("go[..]", "hello\n"),
            ("ab[..]bc", "abc\n"),
            ("a[..]x[..]c", "a b c\n"),
            ("", "x\n"),
        ] {
            assert!(!is(pattern, output), "{pattern} and {output:?}");
        }
        assert_eq!(Pattern::parse("..."), Ok(Pattern::AnyLines));
        assert!(!is("... (esc)", "x\n") && is("... (esc)", "...\n"));
    }

    #[test]
    fn what_changes_is_expected_as_it_was_or_as_its_name() {
        for pattern in ["at 2026-11-24T06:36:55Z", "at [time]", "at [..]"] {
            assert!(is(pattern, "at 2026-11-24T06:36:55Z\n"), "{pattern}");
        }
        assert!(!is("at 2025-11-24T06:36:55Z", "at 2026-11-24T06:36:55Z\n"));
        assert!(is("red", "\x1b[1;31mred\x1b[0m\r\n"));
    }

    #[test]
    fn a_line_is_written_so_that_it_can_be_seen() {
        for (output, written) in [
            ("plain\ttext\n", "plain\ttext"),
            ("no end", "no end (no-eol)"),
            ("end \t\n", r"end\x20\t (esc)"),
            ("end ", r"end\x20 (esc) (no-eol)"),
            ("$ prompt\n", r"\x24 prompt (esc)"),
            ("# no prompt here\n", "# no prompt here"),
            ("> first\n", r"\x3e first (esc)"),
            ("  ```\n", r"  \x60`` (esc)"),
            ("a [..] b\n", r"\x61 \x5b..] b (esc)"),
            ("...\n", r"\x2e.. (esc)"),
            ("x (esc)\n", r"\x78 (esc) (esc)"),
            ("bell\x07 and \\\n", r"bell\x07 and \\ (esc)"),
            ("at 2026-11-24T06:36:55Z\n", "at [time]"),
        ] {
            assert_eq!(only(output.as_bytes()).written(PLACE), written);
        }
        assert_eq!(only(b"\xff\xc3\xa9\n").written(PLACE), r"\xffé (esc)");
        assert_eq!(only(b"> later\n").written(Place { first: false, ..PLACE }), "> later");
    }

    #[test]
    fn wrong_escapes_are_refused() {
        for text in [r"\ (esc)", r"\q (esc)", r"\x4 (esc)", r"\xg0 (esc)", r"\x+1 (esc)", r"\\\ (esc)", r"a\xé (esc)"]
        {
            assert_eq!(Pattern::parse(text), Err(BadEscape), "{text}");
        }
        assert!(Pattern::parse(r"C:\windows").is_ok(), "without the mark a backslash is one");
    }

    proptest! {
        #[test]
        fn what_is_written_is_expected(output: Vec<u8>, first: bool) {
            let output: Vec<u8> = output.into_iter().map(|byte| b"\n \t$>?#`~.[]()\\eosc\r\xff\xc3\xa9x"[usize::from(byte) % 24]).collect();
            for line in lines(&output) {
                let written = line.written(Place { first, ..PLACE });
                prop_assert!(!written.contains('\n'));
                let pattern = Pattern::parse(&written).unwrap();
                prop_assert!(pattern.is(&line), "{written:?} and {line:?}");
                let as_printed = Line { filtered: line.printed.clone().into(), ..line };
                prop_assert!(Pattern::parse(&as_printed.written(PLACE)).unwrap().is(&as_printed));
            }
        }

        #[test]
        fn any_text_is_read(text: String) {
            let _ = Pattern::parse(&text);
            let _ = Pattern::parse(&(text + ESCAPED));
        }
    }
}
