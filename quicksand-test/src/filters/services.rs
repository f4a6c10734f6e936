//! What systemd tells of units.

use super::Rule;

/// `systemctl status`, `show` and `list-timers`, `systemd-analyze`, and what the manager writes to the journal. The fields of a
/// status are known by how far they are from the left as well.
pub(super) const RULES: &[Rule] = &[
    (r"(?m)^(    Process: )\d+ ", "$1[pid] "),
    (r"(?m)^(      Tasks: )\d+ \(limit: \d+\)$", "$1[n] (limit: [n])"),
    (r"(?m)^(      Tasks: )\d+$", "$1[n]"),
    (r"(?m)^(     Memory: |   Mem peak: ){size}(?: \(.*\))?$", "$1[size]"),
    (r"(?m)^(         I[OP]: ){size} (read|in), {size} (written|out)$", "$1[size] $2, [size] $3"),
    (r"(?m)^(        CPU: |   Duration: ){span}$", "$1[time]"),
    (r"(?m)(\[time\]; ){span}left$", "$1[time] left"),
    (r"(?m)^(\w+Monotonic=)(?:[1-9]\d*|{span})$", "$1[time]"),
    (r"(?m)^(CPUUsageNSec=)\d+$", "$1[time]"),
    (
        r"(?m)^((?:Memory(?:Current|Peak|Available|SwapCurrent|SwapPeak|ZSwapCurrent)|IO(?:Read|Write)(?:Bytes|Operations)|IP(?:In|E)gress(?:Bytes|Packets)|TasksCurrent|ControlGroupId)=)\d+$",
        "$1[n]",
    ),
    (r"(?m)(\.(?:slice|service|scope|socket|mount|swap)(?: …)?) \(#\d+\)$", "$1 (#[n])"),
    (r"(?m)^NEXT +LEFT +LAST +PASSED +UNIT +ACTIVATES *$", "NEXT LEFT LAST PASSED UNIT ACTIVATES"),
    (r"(?m)^\[time\] +{span}(?:left)? +(\[time\]|n/a|-) ", "[time] [time] left $1 "),
    (
        r"(?m)^(\[time\] \[time\] left|- +-|n/a +n/a) +\[time\] +(?:{span}ago) +(\S+\.timer) *(\S*)$",
        "$1 [time] [time] ago $2 $3",
    ),
    (r"(?m)^(\[time\] \[time\] left) +(?:- +-|n/a +n/a) +(\S+\.timer) *(\S*)$", "$1 - - $2 $3"),
    (r"\bStartup finished in \d.*", "Startup finished in [time]"),
    (r"(\.target reached after ){span}in\b", "$1[time] in"),
    (r"\bConsumed {span}CPU time.*", "Consumed [time] CPU time"),
];

#[cfg(test)]
mod tests {
    use crate::filters::tests::{leave, leave_alone};

    #[test]
    fn a_status_is_the_same_at_all_times() {
        leave(&[
            (
                "     Active: active (running) since Tue 2026-11-24 06:36:55 UTC; 2min 3s ago",
                "     Active: active (running) since [time]; [time] ago",
            ),
            ("    Trigger: Tue 2026-11-24 06:36:55 UTC; 3h 12min left\n", "    Trigger: [time]; [time] left\n"),
            (
                "    Process: 123 ExecStart=/bin/true (code=exited, status=0/SUCCESS)",
                "    Process: [pid] ExecStart=/bin/true (code=exited, status=0/SUCCESS)",
            ),
            ("      Tasks: 1 (limit: 549)", "      Tasks: [n] (limit: [n])"),
            ("     Memory: 1.6M", "     Memory: [size]"),
            ("     Memory: 1.6M (peak: 2.1M)", "     Memory: [size]"),
            ("        CPU: 1min 365ms", "        CPU: [time]"),
            ("   Duration: 2.365s", "   Duration: [time]"),
            ("         IO: 4.0K read, 8.0K written", "         IO: [size] read, [size] written"),
            (" Invocation: 0123456789abcdef0123456789abcdef", " Invocation: [id]"),
        ]);
    }

    #[test]
    fn properties_that_are_figures_are_replaced() {
        leave(&[
            ("ActiveEnterTimestamp=Sat 2026-11-28 03:02:59 UTC", "ActiveEnterTimestamp=[time]"),
            ("ActiveEnterTimestampMonotonic=9533565", "ActiveEnterTimestampMonotonic=[time]"),
            ("NextElapseUSecMonotonic=1d 2min 3.123456s", "NextElapseUSecMonotonic=[time]"),
            ("MemoryCurrent=2277376\nTasksCurrent=1", "MemoryCurrent=[n]\nTasksCurrent=[n]"),
            ("CPUUsageNSec=257559000", "CPUUsageNSec=[time]"),
        ]);
    }

    #[test]
    fn timers_are_listed_alike() {
        let left = "[time] [time] left [time] [time] ago a.timer a.service";
        leave(&[
            (
                "NEXT                        LEFT          LAST PASSED UNIT    ACTIVATES",
                "NEXT LEFT LAST PASSED UNIT ACTIVATES",
            ),
            (
                "Sat 2026-11-28 06:11:34 UTC 3h 12min left Sat 2026-11-28 02:00:00 UTC 2min ago   a.timer     a.service",
                left,
            ),
            (
                "Sat 2026-11-28 06:11:34 UTC        5s Sat 2026-11-28 02:00:00 UTC 1 day 2h ago   a.timer     a.service",
                left,
            ),
            (
                "Sat 2026-11-28 06:11:34 UTC 3h 12min left -   -   a.timer     a.service",
                "[time] [time] left - - a.timer a.service",
            ),
        ]);
    }

    #[test]
    fn a_boot_takes_as_long_as_it_takes() {
        leave(&[
            (
                "Startup finished in 2.020s (kernel) + 1min 10.375s (userspace) = 1min 12.395s.",
                "Startup finished in [time]",
            ),
            (
                "graphical.target reached after 10.199s in userspace.",
                "graphical.target reached after [time] in userspace.",
            ),
            ("x.service: Consumed 1min 2.345s CPU time.", "x.service: Consumed [time] CPU time"),
        ]);
    }

    #[test]
    fn fields_of_other_programs_stay() {
        leave_alone(&[
            "Memory: 512M",
            "  Memory: 512M",
            "CPU: 4",
            "Tasks: 12 done",
            "ActiveEnterTimestampMonotonic=0",
            "TasksMax=549",
            "TimeoutStartUSec=1min 30s",
        ]);
    }
}
