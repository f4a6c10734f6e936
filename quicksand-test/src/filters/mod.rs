//! What commands print differently from run to run, and what is written in its place.
//!
//! A rule knows nothing but one line: case files are compared line by line. So a rule goes by a form that only one program has, and
//! what looks like a number, a version or a name of anybody's is left.

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

mod figures;
mod listings;
mod machine;
mod processes;
mod services;
mod terminal;
mod times;
mod transfers;

/// A pattern, and what is written in the place of what it finds.
type Rule = (&'static str, &'static str);

/// All rules, in this order: a later one sees what an earlier one left.
const RULES: [&[Rule]; 10] = [
    terminal::RULES,
    listings::RULES,
    processes::TABLES,
    figures::RULES,
    times::RULES,
    machine::RULES,
    processes::IDS,
    services::RULES,
    transfers::RULES,
    times::DURATIONS,
];

/// What patterns name. The classes and boundaries are those of ASCII: a text that isn't takes no longer, and nor does the compiler
/// of the patterns.
const NAMES: [(&str, &str); 10] = [
    // What `ls` has for a time: recent, old, and in the styles `full-iso`, `long-iso` and `iso`.
    (
        "{file-time}",
        r"(?:{month} [ \d]\d +(?:\d\d:\d\d|\d{4})|[ \d]\d\.? [^ \d\n]{3,6} +(?:\d\d:\d\d|\d{4})|\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d(?:\.\d+)?(?: [+-]\d{4})?)?|(?:\d{4}-)?\d\d-\d\d (?:\d\d:\d\d)?)",
    ),
    ("{mode}", r"[-bcdlps][-rwxsStT]{9}[+.@]?"),
    (
        "{span}",
        r"(?:\d+(?:\.\d+)? ?(?:us|ms|s|min|h|d|w|y|seconds?|minutes?|hours?|days?|weeks?|months?|years?)\b,? ?)+",
    ),
    ("{size}", r"\d+(?:[.,]\d+)?[KMGTPE]?i?B?"),
    ("{offset}", r"(?:{zone}\b|[+-]\d\d(?::?\d\d)?\b)"),
    // Not any capitals: `INFO` and `GET` come after times as well.
    (
        "{zone}",
        "(?:UTC|GMT|[CEMW]ES?T|[CEMPA][SD]T|BST|IST|JST|KST|MSK|SAST|HST|AK[SD]T|A[EC][SD]T|AWST|NZ[SD]T|[WCE]AT)",
    ),
    ("{weekday}", "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"),
    ("{month}", "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"),
    (r"\d", "[0-9]"),
    (r"\b", r"(?-u:\b)"),
];

/// Each pattern and what is written for it, in their order.
pub(crate) fn rules() -> impl Iterator<Item = (String, &'static str)> {
    let named = |pattern: &str| NAMES.iter().fold(pattern.to_owned(), |text, (name, means)| text.replace(name, means));
    RULES.into_iter().flatten().map(move |(pattern, replacement)| (named(pattern), *replacement))
}

/// The text with all of that replaced.
pub(crate) fn filtered(text: &str) -> String {
    static COMPILED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        rules().map(|(pattern, to)| (Regex::new(&pattern).expect("a test compiles each"), to)).collect()
    });
    COMPILED
        .iter()
        .fold(Cow::Borrowed(text), |text, (pattern, to)| match pattern.replace_all(&text, *to) {
            Cow::Owned(replaced) => Cow::Owned(replaced),
            Cow::Borrowed(_) => text,
        })
        .into_owned()
}

#[cfg(test)]
mod tests {
    /// Checks what the filters leave of each text.
    #[track_caller]
    pub(super) fn leave(texts: &[(&str, &str)]) {
        for (text, left) in texts {
            assert_eq!(super::filtered(text), *left, "of {text}");
        }
    }

    /// Checks that the filters leave each text as it is.
    #[track_caller]
    pub(super) fn leave_alone(texts: &[&str]) {
        leave(&texts.iter().map(|text| (*text, *text)).collect::<Vec<_>>());
    }

    #[test]
    fn no_rule_finds_what_rules_write() {
        leave_alone(&["[time] [ip] [mac] [uuid] [id] [pid] [size] [speed] [n] [progress]\n", "[time]\n", "[id]\n"]);
    }
}
