//! Processes: their ids, their times, and what they use.

use super::Rule;

/// `ps -ef`, `ps aux`, `ps`, that of busybox, and `w`.
pub(super) const TABLES: &[Rule] = &[
    (r"(?m)^UID +PID +PPID +C +STIME +TTY +TIME +CMD$", "UID PID PPID C STIME TTY TIME CMD"),
    (
        r"(?m)^(\S+) +\d+ +\d+ +\d+ +(?:\d\d:\d\d|{month}\d\d|\d{4}) +(\?|tty\S+|pts/\d+|console|hvc\d+) +(?:\d+-)?\d\d:\d\d:\d\d (\S.*)$",
        "$1 [pid] [pid] [n] [time] $2 [time] $3",
    ),
    (
        r"(?m)^USER +PID +%CPU +%MEM +VSZ +RSS +TTY +STAT +START +TIME +COMMAND$",
        "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND",
    ),
    // Whether one that lives runs at this very moment, or waits for something, is chance.
    (
        r"(?m)^(\S+) +\d+ +\d+(?:\.\d+)? +\d+\.\d+ +\d+ +\d+ +(\?|tty\S+|pts/\d+|console|hvc\d+) +[DRS]([<NLsl+]*) +(?:\d\d:\d\d|{month}\d\d|\d{4}) +\d+:\d\d (\S.*)$",
        "$1 [pid] [n] [n] [size] [size] $2 S$3 [time] [time] $4",
    ),
    (
        r"(?m)^(\S+) +\d+ +\d+(?:\.\d+)? +\d+\.\d+ +\d+ +\d+ +(\?|tty\S+|pts/\d+|console|hvc\d+) +([ITtWXZ][<NLsl+]*) +(?:\d\d:\d\d|{month}\d\d|\d{4}) +\d+:\d\d (\S.*)$",
        "$1 [pid] [n] [n] [size] [size] $2 $3 [time] [time] $4",
    ),
    (r"(?m)^ *PID +TTY +TIME +CMD$", "PID TTY TIME CMD"),
    (r"(?m)^ *\d+ (\?|tty\S+|pts/\d+|console|hvc\d+) +(?:\d+-)?\d\d:\d\d:\d\d (\S.*)$", "[pid] $1 [time] $2"),
    (r"(?m)^ *PID +USER +TIME +COMMAND$", "PID USER TIME COMMAND"),
    (r"(?m)^ *\d+ ([a-z_][^ \d\n]*) +(?:\d+:\d\d|\d+h\d\d|\d+d\d\d) (\S.*)$", "[pid] $1 [time] $2"),
    (
        r"(?m)^(\S+) +((?:tty|pts/|console|hvc)\S*) +(\S+) +(?:\d\d:\d\d|{weekday}\d\d|\d\d{month}\d\d) +(?:[\d:.]+(?:s|m|days)?|\?) +[\d:.]+[sm]? +[\d:.]+[sm]? +(\S.*)$",
        "$1 $2 $3 [time] [time] [time] [time] $4",
    ),
];

/// Ids of processes wherever they are. None is 0, which says that there is no process.
pub(super) const IDS: &[Rule] = &[
    (r"(\b(?i:pid)[:= ]+|(?:[a-z]PID|_PID|_pid)=)[1-9]\d*\b", "$1[pid]"),
    (r"(\[time\] (?:\S+ )?[^\s\[\]]+)\[\d+\]:", "$1[pid]:"),
    // A name and a small number is more than only a process.
    (r"(?m)^([A-Za-z(][^\s\[\]]*)\[\d{3,}\]:", "$1[pid]:"),
    // The trees of systemd, in both of their forms.
    (r"(?m)^([ │]*[├└]─) *\d+ (\S)", "$1[pid] $2"),
    (r"(?m)^([ |]*[|`]-) *\d+ (\S)", "$1[pid] $2"),
    (r"(?m)^(LOGIN +\S+ +\[time\] +)\d+( id=)", "$1[pid]$2"),
];

#[cfg(test)]
mod tests {
    use crate::filters::tests::{leave, leave_alone};

    #[test]
    fn a_process_is_listed_alike_whichever_it_is() {
        for (stime, time) in [("03:02", "00:00:03"), ("Nov28", "1-02:00:03"), ("2025", "00:00:00")] {
            leave(&[(
                &format!("root           1       0 21 {stime} ?        {time} /sbin/init -x  y"),
                "root [pid] [pid] [n] [time] ? [time] /sbin/init -x  y",
            )]);
        }
        leave(&[
            ("UID          PID    PPID  C STIME TTY          TIME CMD", "UID PID PPID C STIME TTY TIME CMD"),
            (
                "message+    1234  0.3  2.4 167376 11848 pts/0    Ss+  Nov28   1:03 dbus --a",
                "message+ [pid] [n] [n] [size] [size] pts/0 Ss+ [time] [time] dbus --a",
            ),
            (
                "root           1  0.3  2.4 167376 11848 ?        Rs   Nov28   1:03 /sbin/init",
                "root [pid] [n] [n] [size] [size] ? Ss [time] [time] /sbin/init",
            ),
            (
                "root          71  0.0  0.0      0     0 ?        Z    Nov28   0:00 [sh] <defunct>",
                "root [pid] [n] [n] [size] [size] ? Z [time] [time] [sh] <defunct>",
            ),
            ("      1 ?        00:00:03 systemd", "[pid] ? [time] systemd"),
            ("    PID TTY          TIME CMD", "PID TTY TIME CMD"),
            ("   81 root      0:00 {start} /bin/sh", "[pid] root [time] {start} /bin/sh"),
            (
                "root     ttyS0    -                03:02    1:20m  0.05s  0.02s -bash",
                "root ttyS0 - [time] [time] [time] [time] -bash",
            ),
            (
                "LOGIN      tty1         2026-11-28 03:03               166 id=tty1",
                "LOGIN      tty1         [time]               [pid] id=tty1",
            ),
        ]);
    }

    #[test]
    fn ids_have_many_forms() {
        leave(&[
            ("Main PID: 412 (sshd)", "Main PID: [pid] (sshd)"),
            ("MainPID=412", "MainPID=[pid]"),
            ("users:((\"sshd\",pid=412,fd=3))", "users:((\"sshd\",pid=[pid],fd=3))"),
            ("dnsmasq[1204]: started", "dnsmasq[pid]: started"),
            ("<13>Nov 28 02:35:01 quick[7]: hello", "<13>[time] quick[pid]: hello"),
            ("             └─144 /lib/systemd/systemd-logind", "             └─[pid] /lib/systemd/systemd-logind"),
            ("  │   ├─  7 (udev-worker)", "  │   ├─[pid] (udev-worker)"),
            ("             `-144 /lib/systemd/systemd-logind", "             `-[pid] /lib/systemd/systemd-logind"),
        ]);
    }

    #[test]
    fn what_is_no_process_stays() {
        leave_alone(&[
            "MainPID=0",
            "rapid 12",
            "item[12]: right",
            "make[1]: Entering directory '/srv'",
            "error[E0308]: mismatched types",
            "└── 3 files",
            "listens on port 8080",
            "3 ? maybe",
        ]);
    }
}
