//! What tells machines apart.

use super::Rule;

/// Ids and addresses. Addresses that mean the machine itself or any stay, and so does what begins with a single digit, which may
/// well be a version.
pub(super) const RULES: &[Rule] = &[
    (r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "[uuid]"),
    (r"\b((?i:machine|boot|invocation)(?:[ _-]?(?i:id))?)([:= -]+)[0-9a-f]{32}\b", "$1$2[id]"),
    (r"\b(/(?:var|run)/log/journal/)[0-9a-f]{32}\b", "$1[id]"),
    (r"(?m)^( *-?\d+ )[0-9a-f]{32} (\[time\])", "${1}[id] $2"),
    // A random one of 128 bits, as that of a machine is. A digest hardly ever has these two digits.
    (r"(?m)^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$", "[id]"),
    (r"\b([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b", "[mac]"),
    (r"\bfe80:(:[0-9a-f]{0,4}){1,7}", "[ip]"),
    // Others that are made of the card's address.
    (r"\b[0-9a-f]{1,4}:[0-9a-f:]*ff:fe[0-9a-f]{2}:[0-9a-f]{1,4}\b", "[ip]"),
    (r"\b([1-9]\d|1[013-9]\d|12[0-689]|2[0-4]\d|25[0-4])(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}\b", "[ip]"),
    (r"\b(valid_lft |preferred_lft )\d+sec\b", "${1}[time]"),
];

#[cfg(test)]
mod tests {
    use crate::filters::tests::{leave, leave_alone};

    #[test]
    fn what_is_of_one_machine_is_replaced() {
        leave(&[
            ("boot 4f9d2a10-0000-4000-8000-0123456789ab", "boot [uuid]"),
            ("Machine ID: 0123456789abcdef0123456789abcdef", "Machine ID: [id]"),
            ("InvocationID=0123456789abcdef0123456789abcdef", "InvocationID=[id]"),
            ("user.invocation_id: 0123456789abcdef0123456789abcdef", "user.invocation_id: [id]"),
            ("-- Boot 0123456789abcdef0123456789abcdef --", "-- Boot [id] --"),
            ("  0 0123456789abcdef0123456789abcdef Sat 2026-11-28 03:02:55 UTC", "  0 [id] [time]"),
            ("1cb07433a8da43dd968087324531a5e4\n", "[id]\n"),
            ("link/ether 52:54:00:12:34:56 brd", "link/ether [mac] brd"),
            ("inet 10.0.2.15/24 fe80::5054:ff:fe12:3456/64", "inet [ip]/24 [ip]/64"),
            ("inet6 fec0::5054:ff:fe12:3456/64 scope", "inet6 [ip]/64 scope"),
            ("valid_lft 86380sec preferred_lft 14380sec", "valid_lft [time] preferred_lft [time]"),
            ("http://192.168.1.20:8080/", "http://[ip]:8080/"),
        ]);
    }

    #[test]
    fn what_may_be_a_version_or_a_digest_stays() {
        leave_alone(&[
            "127.0.0.1:80 0.0.0.0 version 7.2.22",
            "mytool 1.2.3.4",
            "mytool_2.40.1.3-1_amd64.deb",
            "netmask 255.255.255.0",
            "d41d8cd98f00b204e9800998ecf8427e  empty",
            "d41d8cd98f00b204e9800998ecf8427e\n",
            "exit code: 0\n",
            "::1 and valid_lft forever",
        ]);
    }
}
