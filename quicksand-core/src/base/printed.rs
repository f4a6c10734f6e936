//! What programs printed, for an error's words: a guest's bytes must not reach a terminal as they are.

/// How many lines of a command, and of each of its outputs, are shown.
const LINES: usize = 20;
/// How many characters of a line are shown.
const LINE: usize = 1000;

/// How a command ended and the last lines of what it printed.
pub(crate) fn describe_run(end: &str, stdout: &str, stderr: &str) -> String {
    let mut text = end.to_owned();
    for (name, output) in [("stdout", stdout), ("stderr", stderr)] {
        let left_out = output.lines().count().saturating_sub(LINES);
        if left_out > 0 {
            text += &format!("\n{name}: ({left_out} earlier lines are not shown)");
        }
        for line in last_lines(output, LINES).lines() {
            text += &format!("\n{name}: {}", shown_line(line));
        }
    }
    text
}

/// A command, how it ended, and what it printed below that.
pub(crate) fn describe_command(command: &str, end: &str, stdout: &str, stderr: &str) -> String {
    let mut lines = command.trim().lines();
    let mut text = shown_line(lines.next().unwrap_or_default());
    for line in lines.by_ref().take(LINES - 1) {
        text += &format!("\n> {}", shown_line(line));
    }
    match lines.count() {
        0 => {}
        left_out => text += &format!("\n> ({left_out} further lines are not shown)"),
    }
    format!("{text}: {}", describe_run(end, stdout, stderr)).replace('\n', "\n    ")
}

/// A line without what a terminal would obey, and without its end where it is long.
fn shown_line(line: &str) -> String {
    let line = printable(line);
    match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
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

    #[test]
    fn a_run_that_printed_much_is_described_by_the_end_of_it() {
        let many: String = (1..=23).map(|number| format!("{number}\n")).collect();
        let text = describe_run("exit code 1", &many, &"ü".repeat(LINE + 1));
        assert!(text.starts_with("exit code 1\nstdout: (3 earlier lines are not shown)\nstdout: 4\n"), "{text}");
        assert!(text.ends_with(&format!("stdout: 23\nstderr: {}…", "ü".repeat(LINE))), "{text}");
    }
}
