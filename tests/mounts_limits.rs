//! More files on a mount than its server may have descriptors: none is missing. In a program of its own, since it lowers its own
//! limit for good.

use std::{fs, time::Duration};

use nix::sys::resource::{Resource, setrlimit};
use quicksand::{Mount, Sandbox};

/// Each file that the guest knows of costs its server one. A third of the files below.
const DESCRIPTORS: u64 = 640;
const FILES: usize = 1536;

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
    for line in ["ls -lR /m | grep -c ^-rw", "grep -rh . /m | sort -n | uniq | wc -l"] {
        let output = sb.command("sh").args(["-c", line]).timeout(Duration::from_secs(120)).output().await.unwrap();
        assert_eq!((&*output.stdout, &*output.stderr), (&*format!("{FILES}\n"), ""), "{line}");
    }
    // One directory that is larger than all that the guest may know of.
    fs::create_dir(host.path().join("flat")).unwrap();
    (0..FILES).for_each(|n| fs::write(host.path().join(format!("flat/{n}")), "").unwrap());
    let output = sb.execute("ls -l /m/flat | grep -c ^-rw").await.unwrap();
    assert_eq!((&*output.stdout, &*output.stderr), (&*format!("{FILES}\n"), ""));
    // Files that are open are not forgotten for others; there is an end to them, which is an error of the guest's.
    let many = "n=0; while exec {fd}< /m/flat/$n; do n=$((n + 1)); done; echo $n";
    let output = sb.command("bash").args(["-c", many]).output().await.unwrap();
    assert!(output.stderr.contains("Too many open files"), "{output:?}");
    assert!((100..160).contains(&output.stdout.trim().parse::<u64>().unwrap()), "{output:?}");
    assert_eq!(sb.execute("ls /m/flat | wc -l").await.unwrap().stdout, format!("{FILES}\n"));
}
