//! A command that was run, beside what its case file expects: whether it is that, how they differ, and what the file would have to say.

use std::fmt::Write;

use super::{
    compare::{Edit, changes},
    line::{Line, lines},
    session::Step,
};

/// How many lines that stay are shown around a change.
const CONTEXT: usize = 3;
/// How many lines of a difference are shown.
const MOST_LINES: usize = 200;
/// How many characters of a line are shown.
const MOST_CHARACTERS: usize = 500;

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ended {
    /// Its exit code as the shell has it.
    pub(super) code: u8,
    /// What it printed on standard output and standard error.
    pub(super) output: Vec<u8>,
}

/// A command that was run, and what was expected of it.
#[derive(Debug)]
pub(super) struct Verdict<'a> {
    step: &'a Step,
    code: u8,
    printed: Vec<Line>,
    /// What would have to change in the expected output.
    changes: Option<Vec<Edit>>,
}

impl<'a> Verdict<'a> {
    pub(super) fn new(step: &'a Step, ended: &Ended) -> Verdict<'a> {
        let printed = lines(&ended.output);
        let expected: Vec<_> = step.output.iter().map(|line| line.what.clone()).collect();
        Verdict { step, code: ended.code, changes: changes(&expected, &printed), printed }
    }

    /// The command.
    pub(super) fn step(&self) -> &'a Step {
        self.step
    }

    /// Whether it did what was expected.
    pub(super) fn is_as_expected(&self) -> bool {
        self.changes.is_none() && self.step.may_end_with(self.code)
    }

    /// How it differs, a line for each that is expected (`-`), came instead (`+`), or both.
    pub(super) fn difference(&self, text: &str) -> String {
        let content = |range: &std::ops::Range<usize>| {
            let line = text[range.clone()].trim_end_matches(['\n', '\r']);
            line.strip_prefix(&*self.step.block.indent).unwrap_or(line).to_owned()
        };
        let mut shown = Vec::new();
        let status = self.step.status.as_ref().map(|status| content(&status.range));
        if self.step.may_end_with(self.code) {
            shown.extend(status.map(|line| (' ', line)));
        } else {
            shown.extend(status.map(|line| ('-', line)));
            shown.push(('+', format!("? {}", self.code)));
        }
        for edit in self.edits() {
            shown.push(match edit {
                Edit::Keep(at) => (' ', content(&self.step.output[at].range)),
                Edit::Remove(at) => ('-', content(&self.step.output[at].range)),
                Edit::Add(line) => ('+', self.printed[line].written(self.step.place(false))),
            });
        }
        abridged(&shown)
    }

    fn edits(&self) -> Vec<Edit> {
        self.changes.clone().unwrap_or_else(|| (0..self.step.output.len()).map(Edit::Keep).collect())
    }

    /// What the file would have to say of it.
    fn accepted(&self, text: &str) -> String {
        let Step { block, output, .. } = self.step;
        let mut accepted = String::new();
        match &self.step.status {
            Some(status) if status.what.is(self.code) => accepted.push_str(&text[status.range.clone()]),
            _ if self.code == 0 => {}
            _ => accepted.push_str(&format!("{}? {}{}", block.indent, self.code, block.newline)),
        }
        let mut first = true;
        for edit in self.safe_edits(text) {
            match edit {
                Edit::Keep(at) => accepted.push_str(&text[output[at].range.clone()]),
                Edit::Add(line) => {
                    let written = self.printed[line].written(self.step.place(first));
                    // No spaces at the end of a line.
                    let indent = if written.is_empty() { "" } else { &*block.indent };
                    accepted.extend([indent, &written, block.newline]);
                }
                Edit::Remove(_) => continue,
            }
            first = false;
        }
        accepted
    }

    /// The edits, where no line that stays would become a part of the command by coming right after it.
    fn safe_edits(&self, text: &str) -> Vec<Edit> {
        let edits = self.edits();
        let first = edits.iter().find(|edit| !matches!(edit, Edit::Remove(_)));
        let of_command = |at: usize| {
            let line = text[self.step.output[at].range.clone()].trim_start();
            at > 0 && [">", "? "].iter().any(|mark| line.starts_with(mark))
        };
        match first {
            Some(Edit::Keep(at)) if of_command(*at) => (0..self.printed.len()).map(Edit::Add).collect(),
            _ => edits,
        }
    }
}

/// The text of the file with what the commands did in the place of what was expected of them. All else stays as it is.
pub(super) fn rewritten(text: &str, verdicts: &[Verdict<'_>]) -> String {
    let mut rewritten = String::with_capacity(text.len());
    let mut end = 0;
    for verdict in verdicts.iter().filter(|verdict| !verdict.is_as_expected()) {
        rewritten.push_str(&text[end..verdict.step.range.start]);
        rewritten.push_str(&verdict.accepted(text));
        end = verdict.step.range.end;
    }
    rewritten + &text[end..]
}

/// The lines that differ, and some around them.
fn abridged(lines: &[(char, String)]) -> String {
    let near = |at: usize| {
        let (from, to) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(lines.len()));
        lines[from..to].iter().any(|(sign, _)| *sign != ' ')
    };
    let mut text = String::new();
    let (mut shown, mut left_out) = (0, false);
    for (at, (sign, line)) in lines.iter().enumerate() {
        if !near(at) {
            if !left_out {
                text.push_str("      ⋮\n");
            }
            left_out = true;
            continue;
        }
        left_out = false;
        if shown == MOST_LINES {
            let _ = writeln!(text, "      ⋮ and {} lines more", lines.len() - at);
            break;
        }
        shown += 1;
        let (line, rest) = line.split_at(line.char_indices().nth(MOST_CHARACTERS).map_or(line.len(), |(at, _)| at));
        let line = format!("    {sign} {line}");
        let _ = writeln!(text, "{}{}", line.trim_end(), if rest.is_empty() { "" } else { " ⋮" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::session::Session;
    use proptest::prelude::*;
    use std::path::Path;

    fn session(text: &str) -> Session {
        Session::parse(Path::new("x.md"), text).unwrap()
    }

    fn rewrite(text: &str, ended: &[Ended]) -> String {
        let session = session(text);
        let verdicts: Vec<_> = session.steps.iter().zip(ended).map(|(step, ended)| Verdict::new(step, ended)).collect();
        rewritten(text, &verdicts)
    }

    fn ended(code: u8, output: &str) -> Ended {
        Ended { code, output: output.into() }
    }

    const FILE: &str = "\
+++
image = \"debian\"
+++
# Prose stays \t
```console
$ one
old
kept [..]
...
end

$ two
? 1
```
  - a list
    ```console
    # three
    > more
      indented
    ```
no newline at the end";

    #[test]
    fn only_what_differs_is_rewritten() {
        let as_expected = [ended(0, "old\nkept 1\nx\nend\n"), ended(1, ""), ended(0, "  indented\n")];
        assert_eq!(rewrite(FILE, &as_expected), FILE);
        let otherwise = [ended(2, "new\nkept 2\nx\ny\nend\n"), ended(0, "$ out"), ended(0, "a\n\nb\n")];
        let after = FILE
            .replace("$ one\nold\n", "$ one\n? 2\nnew\n")
            .replace("? 1\n", "\\x24 out (esc) (no-eol)\n")
            .replace("      indented\n", "    a\n\n    b\n");
        assert_eq!(rewrite(FILE, &otherwise), after);
        assert_eq!(rewrite(&after, &otherwise), after);
        let windows = FILE.replace('\n', "\r\n");
        assert_eq!(rewrite(&windows, &otherwise), after.replace('\n', "\r\n"));
    }

    #[test]
    fn a_line_that_comes_first_stays_output() {
        let text = "+++\nimage = 'a'\n+++\n```console\n$ diff a b\n1c1\n> new\n```\n";
        let now = [ended(0, "> new\n")];
        let after = rewrite(text, &now);
        assert_eq!(after, text.replace("1c1\n> new", r"\x3e new (esc)"));
        assert_eq!(rewrite(&after, &now), after);
    }

    #[test]
    fn differences_are_shown_with_what_is_around_them() {
        let session = session(FILE);
        let difference = |step: usize, now: Ended| Verdict::new(&session.steps[step], &now).difference(FILE);
        assert_eq!(
            difference(0, ended(3, "new\nkept 1\nend\n")),
            "    + ? 3\n    - old\n    + new\n      kept [..]\n      ...\n      end\n      ⋮\n"
        );
        assert_eq!(difference(1, ended(0, "")), "    - ? 1\n    + ? 0\n");
        assert_eq!(difference(2, ended(0, "indented\n")), "    -   indented\n    + indented\n");
        let many = difference(2, ended(0, &"x\n".repeat(1000)));
        assert!(many.lines().count() == MOST_LINES + 1 && many.ends_with("⋮ and 801 lines more\n"), "{many}");
    }

    /// Text that means something in a case file here and there.
    fn odd() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("$ x"),
            Just("# x"),
            Just("> x"),
            Just("? 1"),
            Just("```"),
            Just("~~~"),
            Just("..."),
            Just("[..]"),
            Just(" (esc)"),
            Just(" (no-eol)"),
            Just("\\"),
            Just("\\x41"),
            Just("\r"),
            Just("\t"),
            Just(" "),
            Just("\x1b[1m"),
            Just("é"),
            Just("word"),
            Just("\n"),
            Just("\n"),
            Just("\n"),
            Just("+++"),
            Just("10.1.2.3"),
            Just("    "),
        ];
        prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_rewritten_is_expected_and_stays(
            before in prop::collection::vec(odd(), 3),
            after in prop::collection::vec(odd(), 3),
            codes: [u8; 3],
            windows: bool,
        ) {
            let file = if windows { FILE.replace('\n', "\r\n") } else { FILE.to_owned() };
            let now = |outputs: &[Vec<u8>]| {
                let end = |(output, code): (&Vec<u8>, u8)| Ended { code, output: output.clone() };
                outputs.iter().zip(codes).map(end).collect::<Vec<_>>()
            };
            let mut text = file;
            for ended in [now(&before), now(&after)] {
                text = rewrite(&text, &ended);
                let session = session(&text);
                prop_assert_eq!(session.steps.len(), 3);
                for (step, ended) in session.steps.iter().zip(&ended) {
                    prop_assert!(Verdict::new(step, ended).is_as_expected(), "{:?} in\n{}", ended, text);
                }
                prop_assert_eq!(&rewrite(&text, &ended), &text);
            }
        }
    }
}
