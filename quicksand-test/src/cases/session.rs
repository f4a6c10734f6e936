//! Reading a case file: its front matter, and the commands of its session with what is expected of each.

use std::{ops::Range, path::Path};

use super::{
    front_matter::FrontMatter,
    line::{Pattern, Place},
};

/// The line before and after the front matter.
const FRONT_MATTER: &str = "+++";
/// The language of the blocks that are read. One with the word `ignore` after it is not.
const LANGUAGE: &str = "console";
/// What a command begins with. That of the first one in a block is that of all in it.
const PROMPTS: [&str; 2] = ["$ ", "# "];

/// The session of a case file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) front: FrontMatter,
    pub(super) steps: Vec<Step>,
}

/// A command and what is expected of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// On which line it begins, from 1.
    pub(super) line: usize,
    /// What the shell is given.
    pub(super) command: String,
    pub(super) status: Option<Expected<Status>>,
    pub(super) output: Vec<Expected<Pattern>>,
    /// Where in the file the status and the output are.
    pub(super) range: Range<usize>,
    pub(super) block: Block,
}

/// Something that is expected, and where in the file it is: its whole line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected<T> {
    pub(super) what: T,
    pub(super) range: Range<usize>,
}

/// How a command is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// With this code.
    Code(u8),
    /// With any but 0.
    Failed,
}

/// What the lines of a block have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    prompt: &'static str,
    fence: String,
    /// What comes before each of its lines.
    pub(super) indent: String,
    /// What ends them.
    pub(super) newline: &'static str,
}

/// What is wrong with a case file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {why}", path.display())]
pub(super) struct Mistake {
    pub(super) path: std::path::PathBuf,
    line: usize,
    why: String,
}

impl Status {
    /// Whether that code is it.
    pub(super) fn is(self, code: u8) -> bool {
        match self {
            Status::Code(expected) => code == expected,
            Status::Failed => code != 0,
        }
    }
}

impl Step {
    /// Where its output is written.
    pub(super) fn place(&self, first: bool) -> Place<'_> {
        Place { prompt: self.block.prompt, fence: &self.block.fence, first }
    }

    /// Whether it may end with that code.
    pub(super) fn may_end_with(&self, code: u8) -> bool {
        self.status.as_ref().map_or(Status::Code(0), |status| status.what).is(code)
    }
}

impl Session {
    /// Reads the text of a case file.
    ///
    /// # Errors
    ///
    /// The first [`Mistake`] in it.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Session, Mistake> {
        Reader::new(text).session().map_err(|(line, why)| Mistake { path: path.to_owned(), line, why })
    }
}

/// A line of the file.
#[derive(Debug, Clone)]
struct Raw<'a> {
    number: usize,
    range: Range<usize>,
    text: &'a str,
    newline: &'static str,
}

struct Reader<'a> {
    text: &'a str,
    lines: std::iter::Peekable<std::vec::IntoIter<Raw<'a>>>,
}

type Outcome<T> = Result<T, (usize, String)>;

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Reader<'a> {
        let mut end = 0;
        let raw = |(at, whole): (usize, &'a str)| {
            let range = end..end + whole.len();
            end = range.end;
            let (text, newline) = match whole.strip_suffix('\n') {
                Some(text) => text.strip_suffix('\r').map_or((text, "\n"), |text| (text, "\r\n")),
                None => (whole, "\n"),
            };
            Raw { number: at + 1, range, text, newline }
        };
        let lines: Vec<Raw<'_>> = text.split_inclusive('\n').enumerate().map(raw).collect();
        Reader { text, lines: lines.into_iter().peekable() }
    }

    fn session(mut self) -> Outcome<Session> {
        let front = self.front_matter()?;
        let mut steps = Vec::new();
        while let Some(line) = self.lines.next() {
            let Some(fence) = Fence::opened_by(line.text) else { continue };
            if fence.is_session {
                self.block(&line, &fence, &mut steps)?;
            } else {
                self.lines.by_ref().find(|line| fence.is_closed_by(line.text));
            }
        }
        if steps.is_empty() {
            return Err((1, format!("no command is in it: a session is in blocks that begin with ```{LANGUAGE}")));
        }
        Ok(Session { front, steps })
    }

    fn front_matter(&mut self) -> Outcome<FrontMatter> {
        let first = self.lines.next_if(|line| line.text.trim_end() == FRONT_MATTER);
        let Some(first) = first else {
            return Err((
                1,
                format!(
                    "begin with the front matter: TOML between two lines of {FRONT_MATTER}, with an `image` or a `save`"
                ),
            ));
        };
        let begin = first.range.end;
        let Some(last) = self.lines.by_ref().find(|line| line.text.trim_end() == FRONT_MATTER) else {
            return Err((1, format!("end the front matter by a line of {FRONT_MATTER}")));
        };
        FrontMatter::parse(&self.text[begin..last.range.start]).map_err(|(line, why)| (line + 2, why))
    }

    fn block(&mut self, opening: &Raw<'_>, fence: &Fence<'_>, steps: &mut Vec<Step>) -> Outcome<()> {
        let mut prompt = None;
        loop {
            let Some(line) = self.lines.next() else {
                return Err((opening.number, format!("end the block by a line of {}", fence.marks)));
            };
            if fence.is_closed_by(line.text) {
                return Ok(());
            }
            let text = fence.content(line.text);
            let begins = PROMPTS.into_iter().find(|prompt| text.starts_with(prompt));
            let Some(begins) = begins.filter(|begins| prompt.is_none_or(|prompt| prompt == *begins)) else {
                // What comes after a command is its output, so this comes before the first.
                if text.trim().is_empty() {
                    continue;
                }
                return Err((line.number, "begin a block with a command after `$ ` or `# `".to_owned()));
            };
            prompt = Some(begins);
            let block = Block {
                prompt: begins,
                fence: fence.marks.to_owned(),
                indent: line.text[..line.text.len() - text.len()].to_owned(),
                newline: line.newline,
            };
            steps.push(self.step(&line, fence, block)?);
        }
    }

    fn step(&mut self, first: &Raw<'_>, fence: &Fence<'_>, block: Block) -> Outcome<Step> {
        let prompt = block.prompt;
        let mut command = fence.content(first.text)[prompt.len()..].to_owned();
        let mut begin = first.range.end;
        let more = |reader: &mut Reader<'a>, wanted: &dyn Fn(&str) -> bool| {
            let of_block = |line: &Raw<'_>| !fence.is_closed_by(line.text) && wanted(fence.content(line.text));
            reader.lines.next_if(of_block)
        };
        while let Some(line) = more(self, &|text| text == ">" || text.starts_with("> ")) {
            command.push('\n');
            command.push_str(fence.content(line.text).get(2..).unwrap_or_default());
            begin = line.range.end;
        }
        if command.trim().is_empty() {
            return Err((first.number, "write a command after the prompt".to_owned()));
        }
        if command.contains('\0') {
            return Err((first.number, "no shell takes a command with a NUL".to_owned()));
        }
        let mut end = begin;
        let status = match more(self, &|text| text.starts_with("? ")) {
            Some(line) => {
                end = line.range.end;
                let what = status(&fence.content(line.text)[2..]).map_err(|why| (line.number, why))?;
                Some(Expected { what, range: line.range })
            }
            None => None,
        };
        let mut output = Vec::new();
        while let Some(line) = more(self, &|text| !text.starts_with(prompt)) {
            end = line.range.end;
            let what = Pattern::parse(fence.content(line.text)).map_err(|error| (line.number, error.to_string()))?;
            output.push(Expected { what, range: line.range });
        }
        Ok(Step { line: first.number, command, status, output, range: begin..end, block })
    }
}

fn status(text: &str) -> Result<Status, String> {
    match text.trim() {
        "failed" => Ok(Status::Failed),
        text => text.parse().map(Status::Code).map_err(|_| {
            format!("`? {text}` is no exit code: write a number from 0 to 255, or `failed` for any but 0")
        }),
    }
}

/// What begins a block.
struct Fence<'a> {
    /// Spaces before it, which its lines have as well.
    indent: usize,
    marks: &'a str,
    is_session: bool,
}

impl<'a> Fence<'a> {
    fn opened_by(line: &'a str) -> Option<Fence<'a>> {
        let text = line.trim_start_matches(' ');
        let mark = text.chars().next().filter(|c| "`~".contains(*c))?;
        let info = text.trim_start_matches(mark);
        let marks = &text[..text.len() - info.len()];
        // Else it is code within a line.
        if marks.len() < 3 || (mark == '`' && info.contains('`')) {
            return None;
        }
        let mut words = info.split([' ', '\t', ',']).filter(|word| !word.is_empty());
        let is_session = words.next() == Some(LANGUAGE) && !words.any(|word| word == "ignore");
        Some(Fence { indent: line.len() - text.len(), marks, is_session })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let text = self.content(line);
        let marks = text.trim_start_matches(' ');
        let rest = marks.strip_prefix(self.marks);
        text.len() - marks.len() <= 3
            && rest.is_some_and(|rest| rest.trim_end().chars().all(|c| self.marks.starts_with(c)))
    }

    /// A line of the block without the indentation that all have.
    fn content<'l>(&self, line: &'l str) -> &'l str {
        let spaces = line.bytes().take(self.indent).take_while(|byte| *byte == b' ').count();
        &line[spaces..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Session, String> {
        let text = format!("+++\nimage = \"debian\"\n+++\n{body}");
        Session::parse(Path::new("x.md"), &text).map_err(|error| error.to_string())
    }

    fn commands(body: &str) -> Vec<(usize, String, usize)> {
        let steps = parse(body).unwrap().steps;
        steps.into_iter().map(|step| (step.line, step.command, step.output.len())).collect()
    }

    #[test]
    fn a_session_goes_through_all_blocks() {
        let body = "\
# Title
```console
$ cd /srv

$ cat <<EOF
> a
>
>  b
> EOF
a

 b
```
prose with ```console in it
~~~~ console
# whoami
? 3
root
$ not a command
~~~
~~~~
```sh
$ not read
```
```console,ignore
$ not read
```
1. in a list
   ```console
   $ ls
   a
     b
   ```
";
        let expected = [(6, "cd /srv", 1), (8, "cat <<EOF\na\n\n b\nEOF", 3), (19, "whoami", 3), (33, "ls", 2)];
        assert_eq!(commands(body), expected.map(|(line, command, lines)| (line, command.to_owned(), lines)));
        let steps = parse(body).unwrap().steps;
        assert_eq!(steps[2].status.as_ref().unwrap().what, Status::Code(3));
        assert_eq!(steps[3].output[1].what, Pattern::parse("  b").unwrap());
        assert_eq!(steps[3].block.indent, "   ");
    }

    #[test]
    fn how_a_command_ends_is_read() {
        for (line, code, may) in [("? 0", 0, true), ("? failed", 7, true), ("? failed", 0, false), ("? 130", 130, true)]
        {
            let steps = parse(&format!("```console\n$ x\n{line}\n```")).unwrap().steps;
            assert_eq!(steps[0].may_end_with(code), may, "{line} and {code}");
        }
        let steps = parse("```console\n$ x\n```").unwrap().steps;
        assert!(steps[0].may_end_with(0) && !steps[0].may_end_with(1));
    }

    #[test]
    fn lines_may_end_as_they_do_elsewhere() {
        let steps = parse("```console\r\n$ x\r\nout\r\n```\r\n").unwrap().steps;
        assert_eq!((&*steps[0].command, steps[0].block.newline), ("x", "\r\n"));
        assert_eq!(steps[0].output[0].what, Pattern::parse("out").unwrap());
    }

    #[test]
    fn mistakes_are_explained_where_they_are() {
        for (body, why) in [
            ("", "x.md:1: no command is in it"),
            ("```console\nout\n```", "x.md:5: begin a block with a command"),
            ("```console\n$ x\n", "x.md:4: end the block by a line of ```"),
            ("```console\n$  \n```", "x.md:5: write a command after the prompt"),
            ("```console\n$ x\n? one\n```", "x.md:6: `? one` is no exit code: write a number"),
            ("```console\n$ x\n? 256\n```", "x.md:6: `? 256` is no exit code"),
            ("```console\n$ x\n? 0\n\\q (esc)\n```", r"x.md:7: in a line that ends with (esc), write \\,"),
            ("```console\n$ a\0b\n```", "x.md:5: no shell takes"),
        ] {
            let error = parse(body).unwrap_err();
            assert!(error.starts_with(why), "{body:?}: {error}");
        }
        for (text, why) in [
            ("", "x.md:1: begin with the front matter"),
            ("---\nimage: debian\n---\n", "x.md:1: begin with the front matter: TOML between two lines of +++"),
            ("+++\nimage = 'a'\n", "x.md:1: end the front matter"),
            ("+++\nimage = 'a'\nsvae = 'b'\n+++\n", "x.md:3: unknown field `svae`"),
        ] {
            let error = Session::parse(Path::new("x.md"), text).unwrap_err().to_string();
            assert!(error.starts_with(why), "{text:?}: {error}");
        }
    }
}
