//! What package managers and the like tell of how much they fetched, and how fast.

use super::Rule;

/// apt, dpkg, curl, wget, dd, ping, pip, npm, cargo, docker.
pub(super) const RULES: &[Rule] = &[
    (r"\bFetched [\d.,]+ [kMG]?B in .*", "Fetched [size] in [time] ([speed])"),
    (r"\bNeed to get .* of archives", "Need to get [size] of archives"),
    (r"\bAfter this operation, .* of additional disk space", "After this operation, [size] of additional disk space"),
    (r"\bAfter this operation, .* disk space will be freed", "After this operation, [size] disk space will be freed"),
    (r"(?m)^(  Download size: )[\d.,]+ [kMG]?B(?: / [\d.,]+ [kMG]?B)?$", "$1[size]"),
    (r"(?m)^(  Space needed: )[\d.,]+ [kMG]?B / [\d.,]+ [kMG]?B available$", "$1[size] / [size] available"),
    (r"(?m)^((?:Get|Hit|Ign|Err):\d+ .*) \[[\d.,]+ [kMG]?B\]$", "$1 [size]"),
    (
        r"\(Reading database \.\.\..*?\d+ files and directories currently installed\.\)",
        "(Reading database ... [n] files)",
    ),
    // curl's meter
    (
        r"(?m)^ *\d+ +[\d.]+[kMG]? +\d+ +[\d.]+[kMG]? +\d+ +[\d.]+[kMG]? +[\d.]+[kMG]? +[\d.]+[kMG]? +(?:--|\d+):(?:--|\d\d):(?:--|\d\d) +(?:--|\d+):(?:--|\d\d):(?:--|\d\d) +(?:--|\d+):(?:--|\d\d):(?:--|\d\d) +[\d.]+[kMG]?$",
        "[progress]",
    ),
    // wget's
    (r"(?m)^(.*?)\d+% ?\[[=+> ]*\] +[\d.,]+[KMG]? +[\d.,-]+[KMG]?B/s +(?:in|eta) .*$", "$1[progress]"),
    (r"\([\d.,]+ [kKMG]?B/s\)", "([speed])"),
    (r"(\bcopied, )[\d.e-]+ s(?:econds)?, [\d.,]+ ?[kKMG]?B/s", "$1[time], [speed]"),
    (r"(\bseq=\d+ ttl=)\d+ time=[\d.]+ ms", "$1[n] time=[time]"),
    (r"(\bicmp_seq=\d+ ttl=)\d+ time=[\d.]+ ms", "$1[n] time=[time]"),
    (r"(% packet loss, time )\d+ms", "$1[time]"),
    (r"\b(rtt|round-trip) (min/avg/max\S*) = [\d./]+ ms", "$1 $2 = [time]"),
    // pip's bar
    (r"(?m)^( *)━+[ ╸╺━]* [\d.]+.*$", "$1[progress]"),
    (r"(?m)^((?:added|removed|changed|up to date).*) in \d+(?:ms|s|m)$", "$1 in [time]"),
    (r"(?m)( target\(s\)) in (?:\d+m )?[\d.]+s$", "$1 in [time]"),
    (r"(\bfiltered out; finished) in [\d.]+s", "$1 in [time]"),
    // docker ps: an id, and columns of three spaces and more between them
    (
        r"(?m)^CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS +PORTS +NAMES$",
        "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES",
    ),
    (r#"(?m)^[0-9a-f]{12} {3,}(\S+) {3,}(".*?") {3,}(.*? ago) {3,}"#, "[id] $1 $2 $3 "),
    (r"(?m)^[0-9a-f]{12}  +(\S+)  +(.*? ago)  +", "[id] $1 $2 "),
    (
        r"\bUp (?:About an? (?:minute|hour)|Less than a second|\d+ (?:second|minute|hour|day|week|month)s?)\b *",
        "Up [time] ",
    ),
];

#[cfg(test)]
mod tests {
    use crate::filters::tests::{leave, leave_alone};

    #[test]
    fn sizes_and_speeds_are_replaced() {
        leave(&[
            ("Fetched 1,234 kB in 2s (617 kB/s)", "Fetched [size] in [time] ([speed])"),
            (
                "Get:1 http://x bookworm/main amd64 jq amd64 1.6 [64.9 kB]",
                "Get:1 http://x bookworm/main amd64 jq amd64 1.6 [size]",
            ),
            ("Need to get 0 B/1,234 kB of archives.", "Need to get [size] of archives."),
            ("  Space needed: 166 kB / 3,456 MB available", "  Space needed: [size] / [size] available"),
            ("100    12  100    12    0     0   1234      0 --:--:-- --:--:-- --:--:--  1234", "[progress]"),
            ("100 1024k  100 1024k    0     0  12.3M      0  0:00:01  0:00:01 --:--:-- 12.3M", "[progress]"),
            ("f          100%[=====>]      12  --.-KB/s    in 0s", "f          [progress]"),
            ("2026-11-28 02:58:00 (1.2 MB/s) - ‘f’ saved [12/12]", "[time] ([speed]) - ‘f’ saved [12/12]"),
            ("512 bytes copied, 0.000123 s, 4.2 MB/s", "512 bytes copied, [time], [speed]"),
            (
                "64 bytes from 127.0.0.1: icmp_seq=1 ttl=64 time=0.045 ms",
                "64 bytes from 127.0.0.1: icmp_seq=1 ttl=[n] time=[time]",
            ),
            ("     ━━━━━━━━━━━━ 62.6/62.6 kB 1.2 MB/s eta 0:00:00", "     [progress]"),
            ("added 3 packages, and audited 4 packages in 2s", "added 3 packages, and audited 4 packages in [time]"),
        ]);
    }

    #[test]
    fn containers_are_listed_alike() {
        for (created, status) in [
            ("2 minutes ago", "Up 2 minutes"),
            ("About a minute ago", "Up About a minute"),
            ("12 seconds ago", "Up Less than a second"),
        ] {
            leave(&[(
                &format!("0123456789ab   nginx     \"/docker-entry x.\"   {created}   {status}   80/tcp    web"),
                "[id] nginx \"/docker-entry x.\" [time] ago Up [time] 80/tcp    web",
            )]);
        }
    }

    #[test]
    fn what_was_not_measured_stays() {
        leave_alone(&[
            "Fetched 3 files in /tmp",
            "limit: 10 MB/s",
            "100 12 100 12",
            "Up to 3 retries",
            "added 3 items in order",
        ]);
    }
}
