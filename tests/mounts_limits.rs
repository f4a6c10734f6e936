//! More files on a mount than its server may have descriptors: none is missing. In a program of its own, since it lowers its own
//! limit for good.

use std::{fs, time::Duration};

use nix::sys::resource::{Resource, setrlimit};
use quicksand::{Mount, Sandbox};

/// Each file that the guest knows of costs its server one. A third of the files below.
const DESCRIPTORS: u64 = 1024;
const FILES: usize = 3072;

#[tokio::test]
async fn no_file_is_missing_where_descriptors_are_few() {
    let host = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for n in 0..FILES {
        let directory = host.path().join(format!("{}", n % 16));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(n.to_string()), format!("{n}\n")).unwrap();
    }
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS).unwrap();
    let sb = Sandbox::builder("debian").mount(Mount::new(host.path(), "/m")).start().await.unwrap();
    for line in [
        "ls -lR /m | grep -c ^-rw",
        "grep -rh . /m | sort -n | uniq | wc -l",
        "tar c -C /m . | tar t | grep -c '/[0-9]*/[0-9]'",
    ] {
        let output = sb.command("sh").args(["-c", line]).timeout(Duration::from_secs(120)).output().await.unwrap();
        assert_eq!((&*output.stdout, &*output.stderr), (&*format!("{FILES}\n"), ""), "{line}");
    }
    // One directory that is larger than all that the guest may know of.
    let output = sb.execute("mkdir /m/flat && cp /m/*/* /m/flat/ && ls -l /m/flat | grep -c ^-rw").await.unwrap();
    assert_eq!((&*output.stdout, &*output.stderr), (&*format!("{FILES}\n"), ""));
    // Files that are open are not forgotten for others; there is an end to them, which is an error of the guest's.
    let many = "i=0; while [ $i -lt 260 ]; do sleep 60 < /m/flat/$i & i=$((i + 1)); done 2>&1 | head -n 1; pkill sleep";
    let output = sb.command("sh").args(["-c", many]).timeout(Duration::from_secs(240)).output().await.unwrap();
    assert!(output.stdout.contains("Too many open files"), "{output:?}");
    assert_eq!(sb.execute("ls /m/flat | wc -l").await.unwrap().stdout, format!("{FILES}\n"));
}
