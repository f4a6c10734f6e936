//! Points in time, and how long something took.

use super::Rule;

/// Points in time.
pub(super) const RULES: &[Rule] = &[
    // ISO 8601 and its kin, and systemd's, which has a day of the week in front.
    (
        r"(?:\b{weekday} )?\b(?:19|20)\d\d-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?[+-]\d\d:?\d\d\b|[+-]\d\d\b|Z\b| {zone}\b)?",
        "[time]",
    ),
    (r"(?m)^20\d\d-\d\d-\d\d$", "[time]"),
    (r"\b20\d\d[01]\d[0-3]\dT\d{6}Z?\b", "[time]"),
    // date(1), HTTP, mail, git, last, certificates.
    (
        r"\b{weekday},? (?:{month} +\d{1,2}|\d{1,2}[ -]{month}(?:[ -]\d{4})?) \d\d:\d\d(?::\d\d)?(?: [AP]M)?(?: {offset})?(?: (?:19|20)\d\d)?(?: {offset})?",
        "[time]",
    ),
    // date(1) in other languages.
    (
        r"[^ \d\n(\[=:]{2,5} \d{1,2}\.? [^ \d\n]{3,6}(?: \d{4})?,? \d\d:\d\d:\d\d,?(?: [AP]M)?,? {zone}\b(?: \d{4}\b)?",
        "[time]",
    ),
    (r"\b\d{4}年 ?\d{1,2}月 ?\d{1,2}日 \S+ \d\d:\d\d:\d\d(?: {zone}\b)?", "[time]"),
    // syslog, and openssl's.
    (r"\b{month} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?\b(?: (?:19|20)\d\d\b)?(?: {zone}\b)?", "[time]"),
    // Web servers.
    (r"\b\d\d/{month}/\d{4}[: ]\d\d:\d\d:\d\d\b(?: [+-]\d{4}\b)?", "[time]"),
    (r"\b(?:19|20)\d\d/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d+)?\b", "[time]"),
    (r"\b\d\d?/\d\d?/(?:\d\d|20\d\d),? \d\d?:\d\d:\d\d\b(?: [AP]M\b)?", "[time]"),
    (r"\b\d\d\.\d\d\.20\d\d,? \d\d:\d\d(?::\d\d)?\b", "[time]"),
    // A log whose lines begin with the time of the day.
    (r"(?m)^(\[?)(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:[.,]\d+)?(\]?) ", "$1[time]$2 "),
    // Since the kernel started, and since 1970.
    (r"(?m)^\[ *\d+\.\d{6}\]", "[time]"),
    (r"\b1[6-9]\d{8}\.\d{3,9}\b", "[time]"),
    (r"\baudit\(\[time\]:\d+\)", "audit([time]:[n])"),
    // last
    (r"\[time\] - (?:\[time\]|\d\d:\d\d) +\((?:\d+\+)?\d\d:\d\d\)", "[time] - [time] ([time])"),
];

/// How long something took, or is ago.
pub(super) const DURATIONS: &[Rule] = &[
    (r"\b(?:About an? (?:minute|hour) |Less than a second |{span})ago\b", "[time] ago"),
    (r"(?m)^(real|user|sys)([ \t]+)(?:\d+m)?\d+[.,]\d+s?$", "$1$2[time]"),
];

#[cfg(test)]
mod tests {
    use crate::filters::tests::{leave, leave_alone};

    #[test]
    fn a_time_is_one_whatever_its_form() {
        for time in [
            "2026-11-24T06:36:55Z",
            "2026-11-24 06:36:55.123 +0100",
            "2026-11-24T06:36:55,123456789+01:00",
            "2026-11-24 06:36:55+00",
            "2026-11-24 06:36",
            "Tue 2026-11-24 06:36:55 UTC",
            "Tue 2026-11-24 06:36:55 CEST",
            "20261124T063655Z",
            "Tue Nov 24 06:36:55 UTC 2026",
            "Tue Nov  4 06:36:55 AM UTC 2026",
            "Tue 24 Nov 06:36:55 GMT 2026",
            "Tue Nov 24 06:36:55 -03 2026",
            "Tue Nov 24 06:36:55 2026 +0000",
            "Tue Nov 24 06:36:55 2026",
            "Tue Nov 24 06:36",
            "Tue, 24 Nov 2026 06:36:55 +0000",
            "Tue, 24 Nov 2026 06:36:55 GMT",
            "Tue 24 Nov 2026 06:36:55 AM UTC",
            "Di 24. Nov 06:36:55 CET 2026",
            "mar. 24 nov. 2026 06:36:55 UTC",
            "mar 24 nov 2026, 06:36:55, CET",
            "Вт 24 ноя 2026 06:36:55 MSK",
            "2026年 11月 24日 火曜日 06:36:55 JST",
            "Nov  4 06:36:55",
            "Nov 24 06:36:55.123456",
            "Nov 24 06:36:55 2026 GMT",
            "24/Nov/2026:06:36:55 +0000",
            "24/Nov/2026 06:36:55",
            "2026/11/24 06:36:55",
            "11/24/26 06:36:55",
            "11/24/2026, 6:36:55 AM",
            "24.11.2026 06:36:55",
            "1795834680.123456789",
        ] {
            for (text, left) in [
                ("TIME", "[time]"),
                ("at TIME INFO started", "at [time] INFO started"),
                ("(TIME) GET /", "([time]) GET /"),
            ] {
                leave(&[(&text.replace("TIME", time), left)]);
            }
        }
    }

    #[test]
    fn other_times_depend_on_where_they_are() {
        leave(&[
            ("2026-11-24\n", "[time]\n"),
            ("Nov  4 06:36:55 debian systemd[1]: Started", "[time] debian systemd[pid]: Started"),
            ("06:36:55 step 1", "[time] step 1"),
            ("[06:36:55.123] step 1", "[[time]] step 1"),
            ("[    1.500678] Linux", "[time] Linux"),
            ("audit: type=1130 audit(1795834680.123:45): pid=1", "audit: type=1130 audit([time]:[n]): pid=[pid]"),
            ("root ttyS0 Sat Nov 28 02:58 - 03:00  (00:02)", "root ttyS0 [time] - [time] ([time])"),
            ("real	0m0.003s\nuser	0m0.001s", "real	[time]\nuser	[time]"),
            ("real 0.02", "real [time]"),
        ]);
    }

    #[test]
    fn how_long_ago_has_many_forms() {
        for ago in [
            "3min 2s",
            "4s",
            "1 day 2h",
            "6 months 18 days",
            "1 year 2 months",
            "About a minute",
            "2 minutes",
            "1 day, 2 hours",
        ] {
            leave(&[(&format!("[x]; {ago} ago"), "[x]; [time] ago")]);
        }
    }

    #[test]
    fn what_is_no_time_stays() {
        leave_alone(&[
            "took 3 s",
            "00:01:30",
            "length 00:01:30",
            "30 days left",
            "retries: 3, timeout: 90s",
            "released 2026-11-24",
            "1795834680",
            "1610612736",
            "mytool 2026.11.24",
            "listens on 0.0.0.0:80",
            "May 3 items be listed",
            "17:30 is when it begins",
            "long ago",
        ]);
    }
}
