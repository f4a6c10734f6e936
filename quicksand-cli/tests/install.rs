//! A program that cargo has built, in a clean Debian: installed where it runs, and refused in words where it does not.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use quicksand_core::{
    InstallError, Sandbox,
    facts::{self, Kind},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// This package's own program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_quicksand");

async fn debian() -> Sandbox {
    Sandbox::builder("debian").start().await.unwrap_or_else(|e| panic!("failed to {e}"))
}

#[tokio::test]
async fn runs_where_it_was_installed() {
    let sb = debian().await;
    let path = sb.install(PROGRAM).await.unwrap();
    assert_eq!(path, Path::new("/usr/local/bin/quicksand"));
    sb.file(&path).await.unwrap().assert_kind(Kind::File).assert_mode(0o755).assert_owner("root").assert_group("root");
    let version = format!("quicksand {}\n", env!("CARGO_PKG_VERSION"));
    let out = sb.command("quicksand").arg("--version").user("nobody").output().await.unwrap();
    assert_eq!(out.stdout, version, "{out}");

    // Elsewhere, and by another name. One that runs is replaced and runs on.
    assert_eq!(sb.install_as("/bin/busybox", "busybox2").await.unwrap(), Path::new("/usr/local/bin/busybox2"));
    let mut child = sb.command("busybox2").arg("cat").piped_stdin().spawn().await.unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    // Its answer says that it runs.
    stdin.write_all(b"here, ").await.unwrap();
    let mut first = [0; 6];
    stdout.read_exact(&mut first).await.unwrap();
    sb.install_as("/bin/busybox", "/usr/local/bin/busybox2").await.unwrap();
    let placed = sb.install_as(PROGRAM, "/opt/a tool/bin/qs").await.unwrap();
    let out = sb.command(placed).arg("--version").output().await.unwrap();
    assert_eq!(out.stdout, version, "{out}");
    stdin.write_all(b"still here").await.unwrap();
    drop(stdin);
    let mut answer = String::new();
    stdout.read_to_string(&mut answer).await.unwrap();
    assert_eq!((&*answer, child.wait().await.unwrap().success()), ("still here", true));
    let error = sb.install_as(PROGRAM, "bin/qs").await.unwrap_err().to_string();
    assert!(error.contains("neither a name nor an absolute path"), "{error}");

    // Scripts need their interpreter.
    let host = tempfile::tempdir().unwrap();
    for (first, runs) in [
        ("#!/bin/sh", true),
        ("#! /usr/bin/env -S LANG=C bash -e", true),
        ("#!/usr/bin/env python3", false),
        ("#!/usr/bin/fish -l", false),
        ("#!/bin/sh\r", false),
    ] {
        let script = host.path().join("greets");
        fs::write(&script, format!("{first}\necho hello\n")).unwrap();
        let installed = sb.install(&script).await;
        assert_eq!(installed.is_ok(), runs, "{first}: {installed:?}");
        let out = sb.command("greets").output().await;
        if runs {
            assert_eq!(out.unwrap().stdout, "hello\n", "{first}");
            sb.execute("rm /usr/local/bin/greets").await.unwrap().check().unwrap();
        } else {
            let error = installed.unwrap_err();
            assert!(matches!(error, quicksand_core::Error::Install(InstallError::NoInterpreter { .. })), "{error}");
            assert!(out.is_err(), "{first}: {out:?}");
        }
    }
    sb.stop().await.unwrap();
}

/// A copy of the program in which one text is another, of the same length or shorter.
fn with(directory: &Path, name: &str, old: &[u8], new: &[u8]) -> PathBuf {
    let mut content = fs::read(PROGRAM).unwrap();
    // All that the loader reads stands at the beginning.
    let mut places = 0;
    for at in 0..content.len().min(1 << 20) - old.len() {
        if content[at] == old[0] && content[at..].starts_with(old) {
            content[at..at + old.len()].fill(0);
            content[at..at + new.len()].copy_from_slice(new);
            places += 1;
        }
    }
    assert!(places > 0, "{name}");
    write(directory, name, &content)
}

fn write(directory: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn is_refused_where_it_would_not_run() {
    let sb = debian().await;
    let host = tempfile::tempdir().unwrap();
    let refused = async |program: &Path| {
        let error = sb.install(program).await.expect_err("it would not run").to_string();
        sb.file(Path::new("/usr/local/bin").join(program.file_name().unwrap())).await.unwrap().assert_absent();
        error.replace(host.path().to_str().unwrap(), "[host]")
    };
    // What the guest's own loader says of a copy that nobody checked.
    let loader_says = async |program: &Path| {
        sb.upload(program, "/root/unchecked").await.unwrap();
        let out = sb.command("/root/unchecked").arg("--version").output().await;
        out.map_or_else(|error| error.to_string(), |out| format!("{out}"))
    };

    let newer = with(host.path(), "newer", b"GLIBC_2.34\0", b"GLIBC_2.99\0");
    let told = refused(&newer).await;
    let guest = sb.execute("ldd --version | sed -n '1s/.* //p'").await.unwrap().stdout;
    insta::assert_snapshot!(told.replace(&format!("2.{}", guest.trim().trim_start_matches("2.")), "[guest's]"));
    let said = loader_says(&newer).await;
    assert!(said.contains("`GLIBC_2.99' not found"), "{said}");

    let lacking = with(host.path(), "lacking", b"libgcc_s.so.1", b"libnone.so.7\0");
    insta::assert_snapshot!(refused(&lacking).await);
    let said = loader_says(&lacking).await;
    assert!(said.contains("libnone.so.7: cannot open shared object file"), "{said}");

    let loaderless = with(host.path(), "loaderless", b"/lib64/ld-linux-x86-64.so.2", b"/lib/ld-musl-x86_64.so.1");
    insta::assert_snapshot!(refused(&loaderless).await);
    let said = loader_says(&loaderless).await;
    assert!(said.contains("No such file or directory"), "{said}");

    let mut foreign = fs::read(PROGRAM).unwrap();
    foreign[18..20].copy_from_slice(&183u16.to_le_bytes());
    let foreign = write(host.path(), "foreign", &foreign);
    insta::assert_snapshot!(refused(&foreign).await);
    let said = loader_says(&foreign).await;
    assert!(!said.contains(env!("CARGO_PKG_VERSION")), "{said}");

    insta::assert_snapshot!(refused(&write(host.path(), "text", b"hello\n")).await);
    let told = refused(&write(host.path(), "cut-off", &fs::read(PROGRAM).unwrap()[..200])).await;
    assert!(told.starts_with("install [host]/cut-off: it is a damaged program (ELF): "), "{told}");

    // What a setup installs is found, also where only a configuration of the loader's leads to it.
    let out = sb
        .execute(
            "mkdir /opt/lib &&
             sed 's/libgcc_s[.]so[.]1/libnone.so.7\\x00/' /lib/x86_64-linux-gnu/libgcc_s.so.1 >/opt/lib/libnone.so.7 &&
             echo /opt/lib >/etc/ld.so.conf.d/x.conf && ldconfig",
        )
        .await
        .unwrap();
    assert!(out.success(), "{out}");
    sb.install(&lacking).await.unwrap();
    sb.execute("lacking --version").await.unwrap().check().unwrap();
    let (cache, tool) =
        sb.facts((facts::file("/etc/ld.so.cache"), facts::file("/usr/local/bin/lacking"))).await.unwrap();
    cache.assert_exists();
    tool.assert_mode(0o755);
    sb.stop().await.unwrap();
}
