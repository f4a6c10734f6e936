//! The case files of this package, `tests/cases/*.md`: sessions in Markdown, each run in a machine of its own.

quicksand::main!();
