//! What commands print differently from run to run, and what is written in its place.

/// What changes from run to run, and what is written in its place. In this order: a later rule sees what an earlier one left.
pub(crate) const FILTERS: &[(&str, &str)] = &[
    // Colours and other control sequences of terminals, and lines that were written over.
    (r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])", ""),
    (r"\r\n", "\n"),
    (r"(?m)^.*\r", ""),
    // Times: ISO 8601 and its kin, date(1), syslog, seconds since the kernel started.
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?( ?[+-]\d\d:?\d\d|Z| [A-Z]{3,4}\b)?", "[time]"),
    (
        r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun),? ([A-Z][a-z]{2} +\d+|\d+ [A-Z][a-z]{2} \d{4}) \d\d:\d\d:\d\d( [AP]M)?( [A-Z]{3,4}| [+-]\d{4})?( \d{4})?",
        "[time]",
    ),
    (r"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d \d\d:\d\d:\d\d\b", "[time]"),
    (r"(?m)^\[ *\d+\.\d{6}\]", "[time]"),
    (r"\b\d+(\.\d+)? ?(us|ms|s|min|h|day|days|week|weeks)( \d+(\.\d+)?(ms|s|min|h))* ago\b", "[time] ago"),
    // Machines and processes.
    (r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "[uuid]"),
    (r"(?i)\b(machine|boot)([ -]id)?\b([:= -]+)[0-9a-f]{32}\b", "$1$2$3[id]"),
    (r"(?m)^[0-9a-f]{32}$", "[id]"),
    (r"\b([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b", "[mac]"),
    (r"(?i)\b(pid[:= ]+)\d+\b", "$1[pid]"),
    (r"([A-Za-z)])\[\d+\]:", "$1[pid]:"),
    // Addresses, but for those that mean the machine itself, or any.
    (r"\bfe80:(:[0-9a-f]{0,4}){1,7}", "[ip]"),
    (r"\b([1-9]\d?|1[013-9]\d|12[0-689]|2[0-4]\d|25[0-5])(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}\b", "[ip]"),
    // Sizes and speeds of apt.
    (r"\bFetched .* in .*", "Fetched [size] in [time] ([speed])"),
    (r"\bNeed to get .* of archives", "Need to get [size] of archives"),
    (r"\bAfter this operation, .* of additional disk space", "After this operation, [size] of additional disk space"),
    (r"\bAfter this operation, .* disk space will be freed", "After this operation, [size] disk space will be freed"),
    (r"(?m)^((Get|Hit|Ign|Err):\d+ .*) \[[\d.,]+ [kMG]?B\]$", "$1 [size]"),
    (
        r"\(Reading database \.\.\..*?\d+ files and directories currently installed\.\)",
        "(Reading database ... [n] files)",
    ),
];

/// The text with all of that replaced.
#[cfg(feature = "runner")]
pub(crate) fn filtered(text: &str) -> String {
    use std::{borrow::Cow, sync::LazyLock};

    use regex::Regex;

    static COMPILED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        FILTERS.iter().map(|(pattern, to)| (Regex::new(pattern).expect("a test compiles each"), *to)).collect()
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
    use super::*;

    /// What the filters leave of a text, by insta and in case files.
    fn filtered(text: &str) -> String {
        let mut left = text.to_owned();
        for (pattern, replacement) in FILTERS {
            left = regex::Regex::new(pattern).unwrap().replace_all(&left, *replacement).into_owned();
        }
        #[cfg(feature = "runner")]
        assert_eq!(super::filtered(text), left);
        left
    }

    #[test]
    fn what_changes_is_replaced() {
        for (text, left) in [
            ("\x1b[1;31mred\x1b[0m\x1b]0;title\x07", "red"),
            ("10%\r 90%\rdone\r\n", "done\n"),
            ("at 2026-11-24T06:36:55Z, 2026-11-24 06:36:55.123 +0100", "at [time], [time]"),
            ("Tue Nov 24 06:36:55 UTC 2026", "[time]"),
            ("Tue, 24 Nov 2026 06:36:55 +0000", "[time]"),
            ("Nov  4 06:36:55 debian systemd[1]: Started", "[time] debian systemd[pid]: Started"),
            ("[    1.500678] Linux", "[time] Linux"),
            ("since [x]; 3min 2s ago", "since [x]; [time] ago"),
            ("boot 4f9d2a10-0000-4000-8000-0123456789ab", "boot [uuid]"),
            ("Machine ID: 0123456789abcdef0123456789abcdef", "Machine ID: [id]"),
            ("0123456789abcdef0123456789abcdef\n", "[id]\n"),
            ("link/ether 52:54:00:12:34:56 brd", "link/ether [mac] brd"),
            ("Main PID: 412 (sshd)", "Main PID: [pid] (sshd)"),
            ("inet 10.0.2.15/24 fe80::5054:ff:fe12:3456/64", "inet [ip]/24 [ip]/64"),
            ("Fetched 1,234 kB in 2s (617 kB/s)", "Fetched [size] in [time] ([speed])"),
            (
                "Get:1 http://x bookworm/main amd64 jq amd64 1.6 [64.9 kB]",
                "Get:1 http://x bookworm/main amd64 jq amd64 1.6 [size]",
            ),
            ("Need to get 0 B/1,234 kB of archives.", "Need to get [size] of archives."),
        ] {
            assert_eq!(filtered(text), left);
        }
    }

    #[test]
    fn what_stays_the_same_is_left() {
        for text in [
            "127.0.0.1:80 0.0.0.0 version 7.2.22",
            "d41d8cd98f00b204e9800998ecf8427e  empty",
            "exit code: 0\n",
            "took 3 s",
        ] {
            assert_eq!(filtered(text), text);
        }
    }
}
