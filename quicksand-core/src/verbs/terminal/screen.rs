//! What a program wrote on its terminal: as running text, for patterns, and as the screen that a person would see.

use std::{num::NonZeroU16, ops::Range};

use vte::{Params, Perform};

/// How much text that no pattern has taken yet is kept beside what comes next, in bytes.
const KEPT: usize = 128 * 1024;
/// Most spaces that one movement of the cursor stands for.
const WIDEST_GAP: u16 = 200;

/// What came from a terminal so far.
pub(crate) struct Transcript {
    parser: vte::Parser,
    text: Text,
    screen: vt100::Parser,
}

impl Transcript {
    pub(crate) fn new(rows: NonZeroU16, cols: NonZeroU16) -> Transcript {
        Transcript { parser: vte::Parser::new(), text: Text::default(), screen: vt100::Parser::new(rows, cols, 0) }
    }

    /// Takes what the program wrote.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.text.forget_oldest();
        self.parser.advance(&mut self.text, bytes);
        self.screen.process(bytes);
    }

    pub(crate) fn resize(&mut self, rows: NonZeroU16, cols: NonZeroU16) {
        self.screen.set_size(rows, cols);
    }

    /// The text that no pattern has taken yet.
    pub(crate) fn text(&self) -> &str {
        &self.text.0
    }

    /// Takes the text up to the end of `range`. Returns what stood before it.
    pub(crate) fn take(&mut self, range: Range<usize>) -> String {
        let rest = self.text.0.split_off(range.end);
        let mut taken = std::mem::replace(&mut self.text.0, rest);
        taken.truncate(range.start);
        taken
    }

    /// The screen's lines without what is blank at their ends, and without blank lines at the end.
    pub(crate) fn screen(&self) -> String {
        let contents = self.screen.screen().contents();
        let lines: Vec<&str> = contents.lines().map(str::trim_end).collect();
        lines.join("\n").trim_end().to_owned()
    }
}

/// Text without what moves the cursor and colours it. A line that is written anew from its beginning becomes another line.
#[derive(Debug, Default)]
struct Text(String, Return);

/// Whether a carriage return came whose line feed has not come yet.
#[derive(Debug, Default, PartialEq, Eq)]
enum Return {
    #[default]
    No,
    Pending,
}

impl Text {
    fn new_line(&mut self) {
        if !self.0.is_empty() && !self.0.ends_with('\n') {
            self.0.push('\n');
        }
    }

    fn forget_oldest(&mut self) {
        let excess = self.0.len().saturating_sub(KEPT);
        if excess > 0 {
            let cut = (excess..).find(|at| self.0.is_char_boundary(*at)).unwrap_or(excess);
            self.0.drain(..cut);
        }
    }
}

impl Perform for Text {
    fn print(&mut self, c: char) {
        if std::mem::take(&mut self.1) == Return::Pending {
            self.new_line();
        }
        self.0.push(c);
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.1 = Return::Pending,
            b'\n' => {
                self.1 = Return::No;
                self.0.push('\n');
            }
            b'\t' => self.0.push('\t'),
            // What is typed and erased is echoed so.
            0x08 if !self.0.ends_with('\n') => drop(self.0.pop()),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, parameters: &Params, _: &[u8], _: bool, action: char) {
        match action {
            // Programs for whole screens move the cursor where others print spaces and lines.
            'C' => {
                let count = parameters.iter().next().and_then(|values| values.first()).map_or(1, |&count| count.max(1));
                self.0.extend(std::iter::repeat_n(' ', count.min(WIDEST_GAP).into()));
            }
            'H' | 'f' | 'd' => self.new_line(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(pieces: &[&[u8]]) -> Transcript {
        let mut transcript = Transcript::new(NonZeroU16::new(4).unwrap(), NonZeroU16::new(20).unwrap());
        pieces.iter().for_each(|piece| transcript.push(piece));
        transcript
    }

    #[test]
    fn text_is_what_was_printed() {
        let text = |pieces: &[&[u8]]| transcript(pieces).text().to_owned();
        assert_eq!(text(&[b"\x1b[1;31mred\x1b[0m\r\n\x1b]0;title\x07b", b"\xc3", b"\xbc\r\n"]), "red\nb\u{fc}\n");
        assert_eq!(text(&[b"10%\r20%\r", b"\r\nend"]), "10%\n20%\nend");
        assert_eq!(text(&[b"ax\x08 \x08b"]), "ab");
        assert_eq!(text(&[b"\x1b[H\x1b[Jone\x1b[2;1Htwo\x1b[3Cthree"]), "one\ntwo   three");
        assert_eq!(text(&[b"\xff\x00a\x1b", b"[2", b"Kb"]), "\u{fffd}ab");
    }

    #[test]
    fn the_screen_is_what_stands_there() {
        let transcript = transcript(&[b"a\r\nb\r\nc\r\nd\r\ne\r\n\x1b[2;3Hx"]);
        assert_eq!(transcript.screen(), "c\nd x\ne");
    }

    #[test]
    fn what_a_pattern_took_is_gone() {
        let mut transcript = transcript(&[b"name: x\r\n> "]);
        let at = transcript.text().find("x").unwrap();
        assert_eq!(transcript.take(at..at + 1), "name: ");
        assert_eq!(transcript.text(), "\n> ");
    }

    #[test]
    fn endless_output_takes_no_more_than_its_share() {
        let mut transcript = transcript(&[]);
        for _ in 0..10 {
            transcript.push("\u{fc}".repeat(KEPT / 2).as_bytes());
            transcript.push(b"\x1b]0;endless title ".repeat(1000).as_slice());
            transcript.push(b"\x07");
            transcript.push("\u{fc}".repeat(KEPT / 2).as_bytes());
            // All of what came last is there to be looked at.
            assert!((KEPT..=2 * KEPT).contains(&transcript.text().len()), "{}", transcript.text().len());
        }
    }
}
