//! What programs printed, for an error's words: a guest's bytes must not reach a terminal as they are.

/// How much of an output is shown.
const LINES: usize = 20;

/// How a command ended and the last lines of what it printed.
pub(crate) fn describe_run(end: &str, stdout: &str, stderr: &str) -> String {
    let mut text = end.to_owned();
    for (name, output) in [("stdout", stdout), ("stderr", stderr)] {
        for line in last_lines(output, LINES).lines() {
            text += &format!("\n{name}: {}", printable(line));
        }
    }
    text
}

/// The last lines of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A line without control characters and the escape sequences that they begin.
pub(crate) fn printable(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            if chars.next_if_eq(&'[').is_some() {
                // A control sequence ends with its first letter or the like.
                while chars.next().is_some_and(|c| !('\x40'..='\x7e').contains(&c)) {}
            } else {
                chars.next();
            }
        } else if !c.is_control() || c == '\t' {
            out.push(c);
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_not_reach_the_terminal() {
        assert_eq!(printable("\x1b[2J\x1b]0;title\x07a\x1b[0;1;31mb\x1b[0m\r\tc\x08"), "0;titleab\tc");
    }

    #[test]
    fn a_run_is_described_by_its_end_and_its_output() {
        assert_eq!(
            describe_run("exit code 1", "a\nb\n", "\x1b[31mno\x1b[0m"),
            "exit code 1\nstdout: a\nstdout: b\nstderr: no"
        );
        assert_eq!(describe_run("signal 9", "", ""), "signal 9");
    }
}
