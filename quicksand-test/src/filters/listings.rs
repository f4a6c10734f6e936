//! Lists of files: their times, of which there are two forms, and columns that are as wide as the widest of them.

use super::Rule;

/// `ls -l`, `find -ls`, `tar -tv`, `stat`.
pub(super) const RULES: &[Rule] = &[
    // find -ls, ls -lis: which inode, and how many blocks.
    (
        r"(?m)^ *\d+ +(\d+) ({mode}) +(\d+) (\S+) +(\S+) +(\d+, *\d+|{size}) +{file-time} ",
        "[n] $1 $2 $3 $4 $5 $6 [time] ",
    ),
    (r"(?m)^({mode}) +(\d+) (\S+) +(\S+) +(\d+, *\d+|{size}) +{file-time} ", "$1 $2 $3 $4 $5 [time] "),
    // With another column in front, as by -i and -s, or with others in between.
    (r"(?m)^((?: *\d+)? ?{mode} .*?) +{file-time} ", "$1 [time] "),
    (r"(\bInode: )\d+ +(Links: )", "${1}[n] $2"),
];

#[cfg(test)]
mod tests {
    use crate::filters::tests::{leave, leave_alone};

    #[test]
    fn a_file_is_listed_alike_whenever_it_was_written() {
        for time in [
            "Nov 28 02:35",
            "Nov  8  2025",
            "2026-11-28 02:35:01.123456789 +0000",
            "2026-11-28 02:35",
            "11-28 02:35",
            "2025-11-28 ",
            "28. Nov 02:35",
            " 8. Nov  2025",
            "28 nov.  02:35",
            "28 févr.  2025",
        ] {
            for (text, left) in [
                ("-rw-r--r-- 1 root root   12 TIME f", "-rw-r--r-- 1 root root 12 [time] f"),
                ("-rw-r--r--    1 root     root             0 TIME f", "-rw-r--r-- 1 root root 0 [time] f"),
                ("lrwxrwxrwx. 1 ann users 3.4K TIME a b -> c", "lrwxrwxrwx. 1 ann users 3.4K [time] a b -> c"),
                ("crw-rw-rw- 1 root root 1, 3 TIME /dev/null", "crw-rw-rw- 1 root root 1, 3 [time] /dev/null"),
                ("-rw-r--r-- 1 12 TIME f", "-rw-r--r-- 1 12 [time] f"),
                ("-rw-r--r-- 1 ann 12 TIME f", "-rw-r--r-- 1 ann 12 [time] f"),
                ("-rw-r--r-- 1 root root ? 12 TIME f", "-rw-r--r-- 1 root root ? 12 [time] f"),
                ("13156 4 drwxr-xr-x 2 root root 4096 TIME d", "[n] 4 drwxr-xr-x 2 root root 4096 [time] d"),
                (
                    "    13156      4 drwxr-xr-x   2 root     root         4096 TIME /srv/d",
                    "[n] 4 drwxr-xr-x 2 root root 4096 [time] /srv/d",
                ),
                ("-rw-r--r-- root/root         0 TIME f", "-rw-r--r-- root/root         0 [time] f"),
            ] {
                leave(&[(&text.replace("TIME", time), left)]);
            }
        }
        leave(&[
            ("Device: 254,0	Inode: 131552      Links: 1", "Device: 254,0	Inode: [n] Links: 1"),
            ("Modify: 2026-11-28 03:03:05.786200436 +0000", "Modify: [time]"),
        ]);
    }

    #[test]
    fn what_is_no_list_stays() {
        leave_alone(&["total 12", "-rw-r--r-- is its mode", "drwxr-xr-x 755 /srv", "Inode: 12 of 40"]);
    }
}
