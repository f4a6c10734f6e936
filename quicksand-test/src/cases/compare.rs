//! What a command printed beside what was expected of it.

use super::line::{Line, Pattern};

/// The largest table that is made to find the fewest changes; beyond it all lines between the first and the last change are exchanged.
const MOST_CELLS: usize = 4_000_000;

/// What becomes of the expected lines, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edit {
    /// The expected line of that number stays.
    Keep(usize),
    /// The expected line of that number goes.
    Remove(usize),
    /// The printed line of that number comes.
    Add(usize),
}

/// The fewest changes to the expected lines after which they fit. None where they fit as they are.
pub(super) fn changes(expected: &[Pattern], printed: &[Line]) -> Option<Vec<Edit>> {
    (!fit(expected, printed)).then(|| align(expected, printed))
}

/// Whether that is what was expected. Empty lines at the end, which set a command apart from the next, may be missing.
pub(super) fn fit(expected: &[Pattern], printed: &[Line]) -> bool {
    let spare = spare(expected);
    (0..=spare).any(|fewer| all_fit(&expected[..expected.len() - fewer], printed))
}

/// How many empty lines are at the end.
fn spare(expected: &[Pattern]) -> usize {
    expected.iter().rev().take_while(|pattern| pattern.is_empty_line()).count()
}

fn all_fit(expected: &[Pattern], printed: &[Line]) -> bool {
    let (mut at, mut line) = (0, 0);
    // Where to go on when it does not fit: one more line for the last `...`. No other need be tried.
    let mut again = None;
    loop {
        match expected.get(at) {
            Some(Pattern::AnyLines) => {
                again = Some((at + 1, line));
                at += 1;
            }
            Some(pattern) if printed.get(line).is_some_and(|line| pattern.is(line)) => {
                at += 1;
                line += 1;
            }
            None if line == printed.len() => return true,
            _ => {
                let Some((after, from)) = again.filter(|(_, from)| *from < printed.len()) else { return false };
                (at, line) = (after, from + 1);
                again = Some((after, from + 1));
            }
        }
    }
}

fn align(expected: &[Pattern], printed: &[Line]) -> Vec<Edit> {
    let same = |(pattern, line): &(&Pattern, &Line)| pattern.is(line);
    let begin = expected.iter().zip(printed).take_while(same).count();
    let end = expected[begin..].iter().rev().zip(printed[begin..].iter().rev()).take_while(same).count();
    let (old, new) = (begin..expected.len() - end, begin..printed.len() - end);
    let mut edits: Vec<Edit> = (0..begin).map(Edit::Keep).collect();
    if (old.len() + 1).saturating_mul(new.len() + 1) <= MOST_CELLS {
        let table =
            Table::new(&expected[old.clone()], &printed[new.clone()], if end == 0 { spare(expected) } else { 0 });
        edits.extend(table.edits().into_iter().map(|edit| match edit {
            Edit::Keep(at) => Edit::Keep(begin + at),
            Edit::Remove(at) => Edit::Remove(begin + at),
            Edit::Add(at) => Edit::Add(begin + at),
        }));
    } else {
        edits.extend(old.map(Edit::Remove));
        edits.extend(new.map(Edit::Add));
    }
    edits.extend((expected.len() - end..expected.len()).map(Edit::Keep));
    edits
}

/// What it costs to make the rest of the expected lines fit the rest of the printed ones.
struct Table<'a> {
    expected: &'a [Pattern],
    printed: &'a [Line],
    /// From which expected line on they may stay although they are not printed.
    spare_from: usize,
    /// By expected and printed line: changes, and of equally many the lines that a `...` hides, of which fewer tell more.
    costs: Vec<(u32, u32)>,
}

/// A step from a cell of the table.
#[derive(Debug, Clone, Copy)]
enum Step {
    Keep,
    KeepUnprinted,
    Hide,
    Exchange,
    Remove,
    Add,
}

impl Table<'_> {
    fn new<'a>(expected: &'a [Pattern], printed: &'a [Line], spare: usize) -> Table<'a> {
        let cells = (expected.len() + 1) * (printed.len() + 1);
        let spare_from = expected.len().saturating_sub(spare);
        let mut table = Table { expected, printed, spare_from, costs: vec![(0, 0); cells] };
        for at in (0..=expected.len()).rev() {
            for line in (0..=printed.len()).rev() {
                let cost = table.best(at, line).map_or((0, 0), |(_, cost)| cost);
                let cell = table.cell(at, line);
                table.costs[cell] = cost;
            }
        }
        table
    }

    fn cell(&self, at: usize, line: usize) -> usize {
        at * (self.printed.len() + 1) + line
    }

    /// The cheapest step, and what it costs from there to the end. The first of equally cheap ones.
    fn best(&self, at: usize, line: usize) -> Option<(Step, (u32, u32))> {
        let (pattern, printed) = (self.expected.get(at), self.printed.get(line));
        let any = matches!(pattern, Some(Pattern::AnyLines));
        let fits = pattern.zip(printed).is_some_and(|(pattern, line)| pattern.is(line));
        let unprinted = any || (pattern.is_some() && at >= self.spare_from && printed.is_none());
        let steps = [
            (fits, Step::Keep),
            (unprinted, Step::KeepUnprinted),
            (any && printed.is_some(), Step::Hide),
            (printed.is_some(), Step::Add),
            (pattern.is_some() && printed.is_some(), Step::Exchange),
            (pattern.is_some(), Step::Remove),
        ];
        let possible = steps.into_iter().filter(|(possible, _)| *possible);
        possible.map(|(_, step)| (step, self.cost_by(step, at, line))).min_by_key(|(_, cost)| *cost)
    }

    fn cost_by(&self, step: Step, at: usize, line: usize) -> (u32, u32) {
        let ((at, line), (changes, hidden)) = (step.to(at, line), step.cost());
        let (more_changes, more_hidden) = self.costs[self.cell(at, line)];
        (changes + more_changes, hidden + more_hidden)
    }

    fn edits(&self) -> Vec<Edit> {
        let (mut at, mut line) = (0, 0);
        let mut edits = Vec::new();
        while let Some((step, _)) = self.best(at, line) {
            match step {
                Step::Keep | Step::KeepUnprinted => edits.push(Edit::Keep(at)),
                Step::Hide => {}
                Step::Exchange => edits.extend([Edit::Remove(at), Edit::Add(line)]),
                Step::Remove => edits.push(Edit::Remove(at)),
                Step::Add => edits.push(Edit::Add(line)),
            }
            (at, line) = step.to(at, line);
        }
        edits
    }
}

impl Step {
    fn to(self, at: usize, line: usize) -> (usize, usize) {
        match self {
            Step::Keep | Step::Exchange => (at + 1, line + 1),
            Step::KeepUnprinted | Step::Remove => (at + 1, line),
            Step::Hide | Step::Add => (at, line + 1),
        }
    }

    fn cost(self) -> (u32, u32) {
        match self {
            Step::Keep | Step::KeepUnprinted => (0, 0),
            Step::Hide => (0, 1),
            Step::Exchange | Step::Remove | Step::Add => (1, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::line::lines;
    use proptest::prelude::*;

    fn patterns(text: &str) -> Vec<Pattern> {
        text.lines().map(|line| Pattern::parse(line).unwrap()).collect()
    }

    /// The expected lines after the changes.
    fn changed(expected: &str, printed: &str) -> Option<String> {
        let printed_lines: Vec<&str> = printed.lines().collect();
        let expected_lines: Vec<&str> = expected.lines().collect();
        let edits = changes(&patterns(expected), &lines(printed.as_bytes()))?;
        let text = |edit| match edit {
            Edit::Keep(at) => Some(format!("{}\n", expected_lines[at])),
            Edit::Add(line) => Some(format!("{}\n", printed_lines[line])),
            Edit::Remove(_) => None,
        };
        Some(edits.into_iter().filter_map(text).collect())
    }

    #[test]
    fn lines_are_elided() {
        for (expected, printed) in [
            ("", ""),
            ("...", ""),
            ("...", "a\nb\n"),
            ("a\n...\nb", "a\nb\n"),
            ("a\n...\nb", "a\nx\nb\ny\nb\n"),
            ("...\nb\n...\nc\n...", "b\nb\nx\nc\n"),
            ("a\n\n\n", "a\n"),
            ("a\n\n\n", "a\n\n"),
            ("a\n...\n\n", "a\nb\n"),
        ] {
            assert_eq!(changed(expected, printed), None, "{expected:?} and {printed:?}");
        }
    }

    #[test]
    fn no_more_is_changed_than_need_be() {
        for (expected, printed, after) in [
            ("a", "", ""),
            ("", "a\n", "a\n"),
            ("a [..]\nb", "a 1\nc\n", "a [..]\nc\n"),
            ("a\n...\nb", "a\nx\nc\n", "a\n...\nc\n"),
            ("old\n...\nend", "new\nx\nend\n", "new\n...\nend\n"),
            ("1\n2\n3", "1\n3\n", "1\n3\n"),
            ("1\n3", "1\n2\n3\n", "1\n2\n3\n"),
            ("a\n\n", "b\n", "b\n\n"),
            ("a", "a\n\n", "a\n\n"),
            ("v[..]\nsame\n\n", "w\nsame\n", "w\nsame\n\n"),
            ("a\n\n", "a\nc\n", "a\nc\n\n"),
        ] {
            assert_eq!(changed(expected, printed).as_deref(), Some(after), "{expected:?} and {printed:?}");
        }
    }

    #[test]
    fn much_is_changed_at_once() {
        let (old, new) = ("a\n".repeat(3000), "b\n".repeat(3000));
        assert_eq!(changed(&old, &new), Some(new));
    }

    proptest! {
        #[test]
        fn after_the_changes_it_fits(expected in "([ab]?|a\\[\\.\\.\\]|\\.\\.\\.)(\n([ab]?|a\\[\\.\\.\\]|\\.\\.\\.)){0,8}", printed in "([abc]{0,2}\n){0,8}") {
            if let Some(after) = changed(&expected, &printed) {
                prop_assert!(fit(&patterns(&after), &lines(printed.as_bytes())), "{after:?}");
            }
        }
    }
}
