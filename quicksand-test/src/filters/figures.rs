//! What is used of a machine, and how long it has been up.

use super::Rule;

/// `df`, `free`, `lsblk -f`, `mount`, `uptime`.
pub(super) const RULES: &[Rule] = &[
    (
        r"(?m)^Filesystem +Type +(Size|Inodes|\d+[KMGT]?B?-blocks) +(I?Used) +(Avail|Available|IFree) +(I?Use%|Capacity) +Mounted on$",
        "Filesystem Type $1 $2 $3 $4 Mounted on",
    ),
    (
        r"(?m)^Filesystem +(Size|Inodes|\d+[KMGT]?B?-blocks) +(I?Used) +(Avail|Available|IFree) +(I?Use%|Capacity) +Mounted on$",
        "Filesystem $1 $2 $3 $4 Mounted on",
    ),
    // How large these are depends on how much memory the kernel leaves.
    (
        r"(?m)^(tmpfs|devtmpfs|udev|none|shm) +((?:dev)?tmpfs) +{size} +{size} +{size} +(?:\d+%|-) (/\S*)$",
        "$1 $2 [size] [size] [size] [n]% $3",
    ),
    (
        r"(?m)^(tmpfs|devtmpfs|udev|none|shm) +{size} +{size} +{size} +(?:\d+%|-) (/\S*)$",
        "$1 [size] [size] [size] [n]% $2",
    ),
    (
        r"( type devtmpfs \(.*\b|(?m:^)tmpfs on /run(?:/user/\d+)? type tmpfs \(.*\b)size=\d+k(?:,nr_inodes=\d+)?",
        "${1}size=[size]",
    ),
    (r"(?m)^(\S+) +([a-z]\S*) +({size}) +{size} +{size} +(?:\d+%|-) (/\S*)$", "$1 $2 $3 [size] [size] [n]% $4"),
    (r"(?m)^(\S+) +({size}) +{size} +{size} +(?:\d+%|-) (/\S*)$", "$1 $2 [size] [size] [n]% $3"),
    (r"(?m)^ +total +used +free +shared +buff/cache +available$", "total used free shared buff/cache available"),
    (r"(?m)^Mem: +{size} +{size} +{size} +{size} +{size} +{size}$", "Mem: [size] [size] [size] [size] [size] [size]"),
    (r"(?m)^Swap: +({size}) +{size} +{size}$", "Swap: $1 [size] [size]"),
    (r"(?m)^(NAME +FSTYPE .*UUID) +FSAVAIL +FSUSE% +MOUNTPOINT", "$1 FSAVAIL FSUSE% MOUNTPOINT"),
    (r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) +{size} +\d+% +/", "$1 [size] [n]% /"),
    (r"\bfd=\d+,pgrp=\d+,(timeout=.*,)pipe_ino=\d+", "fd=[n],pgrp=[n],${1}pipe_ino=[n]"),
    (
        r"(?m)^ *(top - )?\d\d:\d\d:\d\d up .*?, +(\d+ users?), +load average: [\d.]+, [\d.]+, [\d.]+$",
        "$1[time] up [time], $2, load average: [n], [n], [n]",
    ),
    (
        r"(?m)^ *\d\d:\d\d:\d\d up .*?, +load average: [\d.]+, [\d.]+, [\d.]+$",
        "[time] up [time], load average: [n], [n], [n]",
    ),
    (r"(?m)^up {span}$", "up [time]"),
    (r"(?m)^\d+\.\d\d \d+\.\d\d \d+\.\d\d \d+/\d+ \d+$", "[n] [n] [n] [n]/[n] [pid]"),
];

#[cfg(test)]
mod tests {
    use crate::filters::tests::{leave, leave_alone};

    #[test]
    fn what_is_used_is_replaced_and_what_there_is_stays() {
        leave(&[
            (
                "Filesystem     1K-blocks   Used Available Use% Mounted on",
                "Filesystem 1K-blocks Used Available Use% Mounted on",
            ),
            (
                "Filesystem     Type      Size  Used Avail Use% Mounted on",
                "Filesystem Type Size Used Avail Use% Mounted on",
            ),
            ("Filesystem     Inodes IUsed  IFree IUse% Mounted on", "Filesystem Inodes IUsed IFree IUse% Mounted on"),
            ("/dev/vda         4046560 385684   3434780  11% /", "/dev/vda 4046560 [size] [size] [n]% /"),
            ("/dev/vda       ext4      3.9G  377M  3.3G  11% /srv/x", "/dev/vda ext4 3.9G [size] [size] [n]% /srv/x"),
            (
                "               total        used        free      shared  buff/cache   available",
                "total used free shared buff/cache available",
            ),
            (
                "Mem:           469Mi        50Mi       380Mi       2.3Mi        51Mi       418Mi",
                "Mem: [size] [size] [size] [size] [size] [size]",
            ),
            ("tmpfs             240136    332    239804   1% /run", "tmpfs [size] [size] [size] [n]% /run"),
            (
                "devtmpfs on /dev type devtmpfs (rw,size=234356k,nr_inodes=58589,mode=755)",
                "devtmpfs on /dev type devtmpfs (rw,size=[size],mode=755)",
            ),
            ("Swap:              0           0           0", "Swap: 0 [size] [size]"),
            (
                "NAME FSTYPE FSVER LABEL UUID                                 FSAVAIL FSUSE% MOUNTPOINTS",
                "NAME FSTYPE FSVER LABEL UUID FSAVAIL FSUSE% MOUNTPOINTS",
            ),
            (
                "vda  ext4   1.0   root  011fd76e-a1c9-4992-8459-8c317c5cb53d    3.3G    10% /",
                "vda  ext4   1.0   root  [uuid] [size] [n]% /",
            ),
            (
                "type autofs (rw,relatime,fd=32,pgrp=1,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=10498)",
                "type autofs (rw,relatime,fd=[n],pgrp=[n],timeout=0,minproto=5,maxproto=5,direct,pipe_ino=[n])",
            ),
        ]);
    }

    #[test]
    fn how_long_a_machine_is_up_has_many_forms() {
        for up in ["0 min", "59 min", " 1:02", "1 day,  1:02", "200 days, 3 min"] {
            leave(&[
                (
                    &format!(" 03:03:07 up {up},  0 user,  load average: 0.80, 0.18, 12.06"),
                    "[time] up [time], 0 user, load average: [n], [n], [n]",
                ),
                (
                    &format!(" 03:03:07 up {up},  load average: 0.80, 0.18, 0.06"),
                    "[time] up [time], load average: [n], [n], [n]",
                ),
            ]);
        }
        leave(&[
            ("up 0 minutes", "up [time]"),
            ("up 1 week, 2 days, 3 hours", "up [time]"),
            ("0.80 0.18 0.06 1/63 337", "[n] [n] [n] [n]/[n] [pid]"),
        ]);
    }

    #[test]
    fn figures_of_other_programs_stay() {
        leave_alone(&[
            "used 12M of 40M, 30%",
            "Mem: 512M",
            "0.80 0.18 0.06",
            "up and running for 3 runs",
            "/srv/data 12 files 30% done",
        ]);
    }
}
