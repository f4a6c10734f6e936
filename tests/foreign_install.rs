//! Installing programs where the C library is not the one that they were built for, or where there is none.

#[path = "foreign_guests/disks.rs"]
mod disks;

use std::{fs, path::Path};

use quicksand::{Error, InstallError, Sandbox};

#[tokio::test]
async fn musl_is_told_from_no_c_library_at_all() {
    let disk = disks::once("musl.raw", |path| {
        let directory = tempfile::tempdir().unwrap();
        disks::busybox(directory.path());
        disks::packages("musl", directory.path());
        disks::ext4(directory.path(), path, "64M");
    });
    let sb = Sandbox::builder(disk.to_str().unwrap()).start().await.unwrap_or_else(|e| panic!("failed to {e}"));
    // This very test is a program for glibc.
    let own = std::env::current_exe().unwrap();
    let error = sb.install(&own).await.unwrap_err();
    assert!(matches!(&error, Error::Install(InstallError::NoLoader { .. })), "{error}");
    insta::assert_snapshot!(error.to_string().replace(own.to_str().unwrap(), "[program]"));

    // One that musl's loader would load, and that needs a library besides.
    let host = tempfile::tempdir().unwrap();
    let mut content = fs::read(&own).unwrap();
    let loader = b"/lib64/ld-linux-x86-64.so.2\0";
    let at = content.windows(loader.len()).position(|window| window == loader).expect("its loader is glibc's");
    content[at..at + loader.len()].fill(0);
    content[at..at + 24].copy_from_slice(b"/lib/ld-musl-x86_64.so.1");
    let program = host.path().join("program");
    fs::write(&program, &content).unwrap();
    match sb.install(&program).await.unwrap_err() {
        Error::Install(InstallError::MissingLibraries { libraries, .. }) => {
            // Its C library is musl's loader itself.
            assert!(libraries.iter().any(|name| name == "libgcc_s.so.1"), "{libraries:?}");
            assert!(!libraries.iter().any(|name| name.starts_with("libc.")), "{libraries:?}");
        }
        error => panic!("{error}"),
    }

    // A static program runs there, in a directory that was not there, in a guest that has no mkdir.
    let path = sb.install_as("/bin/busybox", "busybox2").await.unwrap();
    assert_eq!(path, Path::new("/usr/local/bin/busybox2"));
    assert_eq!(sb.execute("busybox2 echo hello").await.unwrap().stdout, "hello\n");

    sb.execute("busybox2 rm /lib/ld-musl-x86_64.so.1").await.unwrap().check().unwrap();
    let error = sb.install(&own).await.unwrap_err().to_string();
    assert!(error.contains("which the guest lacks: it has no C library;"), "{error}");
    sb.stop().await.unwrap();
}
