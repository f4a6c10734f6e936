//! What programs write for a terminal.

use super::Rule;

/// Colours and other control sequences, and lines that were written over.
pub(super) const RULES: &[Rule] =
    &[(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])", ""), (r"\r\n", "\n"), (r"(?m)^.*\r", "")];

#[cfg(test)]
mod tests {
    use crate::filters::tests::leave;

    #[test]
    fn what_a_terminal_would_show_is_left() {
        leave(&[("\x1b[1;31mred\x1b[0m\x1b]0;title\x07", "red"), ("10%\r 90%\rdone\r\n", "done\n")]);
    }
}
