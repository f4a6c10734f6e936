//! What a command printed, for an error's words.

use crate::vm::{last_lines, printable};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_described_by_its_end_and_its_output() {
        assert_eq!(
            describe_run("exit code 1", "a\nb\n", "\x1b[31mno\x1b[0m"),
            "exit code 1\nstdout: a\nstdout: b\nstderr: no"
        );
        assert_eq!(describe_run("signal 9", "", ""), "signal 9");
    }
}
