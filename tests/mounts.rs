//! Directories of the host in a real guest: what is seen on both sides. What a hostile guest might send is tried in
//! `quicksand-mounts/tests/raw`; what becomes of mounts in the life of a sandbox in `mounts_life.rs`.

use std::{
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStringExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::Path,
};

use quicksand::{Mount, Sandbox, sandbox_test};

/// What a line prints, which must succeed.
async fn shell(sb: &Sandbox, line: &str) -> quicksand::Result<String> {
    Ok(sb.execute(line).await?.check()?.stdout)
}

fn share() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[sandbox_test(image = "debian", network = "none")]
async fn files_go_both_ways(sb: Sandbox) -> quicksand::Result<()> {
    let host = share();
    let path = |name: &str| host.path().join(name);
    fs::write(path("script"), "#!/bin/sh\necho run\n").unwrap();
    fs::set_permissions(path("script"), Permissions::from_mode(0o750)).unwrap();
    symlink("script", path("link")).unwrap();
    fs::create_dir(path("d")).unwrap();
    let mount = sb.mount(Mount::new(host.path(), "/mnt/made/on the way")).await?;
    shell(&sb, "ln -s '/mnt/made/on the way' /m").await?;

    let seen = shell(&sb, "cd /m && stat -c '%n %a %F' * && /m/link && readlink link").await?;
    let expected = "d 755 directory\nlink 777 symbolic link\nscript 750 regular file\nrun\nscript\n";
    assert_eq!(seen, expected);

    shell(&sb, "cd /m && echo one > new && chmod 604 new && touch -d @1234567890 new && mkdir e && mv script d/moved")
        .await?;
    shell(
        &sb,
        "cd /m && ln -s nowhere e/dangling && ln new hard && rm link && printf two >> new && truncate -s 3 hard",
    )
    .await?;
    let new = fs::metadata(path("new")).unwrap();
    assert_eq!((new.mode() & 0o7777, new.nlink(), new.len()), (0o604, 2, 3));
    assert_eq!(fs::read_to_string(path("new")).unwrap(), "one");
    assert_eq!(fs::metadata(path("hard")).unwrap().ino(), new.ino());
    assert_eq!(fs::read_link(path("e/dangling")).unwrap(), Path::new("nowhere"));
    assert!(path("d/moved").exists() && !path("script").exists() && !path("link").exists());
    shell(&sb, "touch -d @1234567890 /m/hard").await?;
    assert_eq!(fs::metadata(path("new")).unwrap().mtime(), 1_234_567_890);

    // What the host does is seen by the next command, whatever the guest has seen before.
    for round in 0..5 {
        fs::write(path("new"), "x".repeat(10 + round)).unwrap();
        assert_eq!(shell(&sb, "cat /m/new; stat -c %s /m/new").await?, format!("{:x<1$}{1}\n", "", 10 + round));
        fs::write(path("replacement"), format!("round {round}\n")).unwrap();
        fs::rename(path("replacement"), path("hard")).unwrap();
        assert_eq!(shell(&sb, "cat /m/hard").await?, format!("round {round}\n"));
        fs::remove_file(path("hard")).unwrap();
        shell(&sb, "test ! -e /m/hard").await?;
    }

    // Names are bytes, and one that is long.
    let odd = std::ffi::OsString::from_vec(b"a \n\xff\\".to_vec());
    fs::write(host.path().join(&odd), "odd").unwrap();
    let long = "n".repeat(255);
    let seen = shell(&sb, &format!("cat /m/a*; echo > /m/{long}; touch \"/m/$(printf 'b\\n\\376')\"")).await?;
    assert_eq!(seen, "odd");
    assert!(path(&long).exists() && host.path().join(std::ffi::OsString::from_vec(b"b\n\xfe".to_vec())).exists());
    sb.unmount(mount).await
}

#[sandbox_test(image = "debian")]
async fn large_files_and_long_listings_are_complete(sb: Sandbox) -> quicksand::Result<()> {
    let host = share();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(
        &mut std::io::Read::take(fs::File::open("/dev/urandom").unwrap(), 20_000_001),
        &mut bytes,
    )
    .unwrap();
    fs::write(host.path().join("big"), &bytes).unwrap();
    fs::create_dir(host.path().join("many")).unwrap();
    for n in 0..10_000 {
        fs::write(host.path().join(format!("many/{n}")), "").unwrap();
    }
    sb.mount(Mount::new(host.path(), "/m")).await?;
    assert_eq!(
        shell(&sb, "ls /m/many | sort -n | uniq | tee /tmp/list | wc -l; tail -n 1 /tmp/list").await?,
        "10000\n9999\n"
    );
    assert_eq!(shell(&sb, "ls -l /m/many | grep -c ^-rw").await?, "10000\n");
    shell(&sb, "cp /m/big /tmp/big && cat /tmp/big /tmp/big > /m/double && cmp /m/big /tmp/big").await?;
    assert!(fs::read(host.path().join("double")).unwrap() == [&bytes[..], &bytes].concat());
    // A hole stays one.
    shell(&sb, "truncate -s 3G /m/sparse && printf end | dd of=/m/sparse bs=1M seek=4k conv=notrunc status=none")
        .await?;
    let sparse = fs::metadata(host.path().join("sparse")).unwrap();
    assert_eq!(sparse.len(), (4 << 30) + 3);
    assert!(sparse.blocks() * 512 < 1 << 20);
    Ok(())
}

/// The guest's own kernel refuses most of this, and is then asked not to.
#[sandbox_test(image = "debian")]
async fn read_only_is_kept_by_the_host(sb: Sandbox) -> quicksand::Result<()> {
    let host = share();
    fs::write(host.path().join("f"), "as it was").unwrap();
    fs::create_dir(host.path().join("d")).unwrap();
    let facts = || {
        let of = |name: &str| fs::metadata(host.path().join(name)).unwrap();
        ["f", "d", "."].map(|name| (of(name).mode(), of(name).len(), of(name).mtime_nsec(), of(name).ctime_nsec()))
    };
    let before = facts();
    let mount = sb.mount(Mount::new(host.path(), "/m").read_only()).await?;
    assert!(mount.is_read_only());
    assert_eq!(shell(&sb, "cat /m/f && ls /m").await?, "as it wasd\nf\n");
    assert!(shell(&sb, "grep ' /m ' /proc/mounts").await?.contains("fuse.quicksand ro,"));
    let attempts = [
        "echo x > /m/f",
        "echo x >> /m/f",
        ": > /m/f",
        "truncate -s 0 /m/f",
        "chmod 777 /m/f",
        "chown 1:1 /m/f",
        "touch -d @1 /m/f",
        "touch /m/new",
        "mkdir /m/new",
        "mknod /m/new p",
        "mknod /m/new c 1 3",
        "ln -s f /m/new",
        "ln /m/f /m/new",
        "mv /m/f /m/new",
        "rm /m/f",
        "rmdir /m/d",
    ];
    for kernel in ["the guest's", "the host's"] {
        for line in attempts {
            let output = sb.execute(line).await?;
            assert!(!output.success(), "{line}");
            assert!(output.stderr.contains("Read-only file system"), "{kernel} {line}: {}", output.stderr);
        }
        assert_eq!(facts(), before);
        // From here on the guest's kernel passes everything on.
        shell(&sb, "mount -o remount,rw /m && grep ' /m ' /proc/mounts | grep -q rw,").await?;
    }
    assert_eq!(fs::read_to_string(host.path().join("f")).unwrap(), "as it was");
    assert_eq!(fs::read_dir(host.path()).unwrap().count(), 2);
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn all_that_is_made_belongs_to_the_hosts_user(sb: Sandbox) -> quicksand::Result<()> {
    let host = share();
    let user = nix::unistd::geteuid().as_raw();
    fs::write(host.path().join("hosts"), "").unwrap();
    sb.mount(Mount::new(host.path(), "/m")).await?;
    shell(&sb, "cd /m && touch by-root && chown 1234:1234 by-root && mkdir dir && chmod u+s by-root").await?;
    let by_other = sb.command("sh").args(["-c", "cd /m && echo x > by-nobody && chmod 600 by-nobody"]).user("nobody");
    assert!(by_other.output().await?.success());
    // Unpacked as root, with owners.
    shell(&sb, "cd /tmp && mkdir t && touch t/f && chown 33:33 t/f && tar c t | tar x --same-owner -C /m").await?;
    for name in ["by-root", "by-nobody", "dir", "t", "t/f"] {
        let made = fs::metadata(host.path().join(name)).unwrap();
        assert_eq!((made.uid(), made.mode() & 0o6000), (user, 0), "{name}");
    }
    // To the guest they are those of who made them, or was given them; the host's are whoever's looks.
    let seen = shell(&sb, "cd /m && stat -c '%u %g' hosts by-nobody by-root dir t/f").await?;
    assert_eq!(seen, "0 0\n65534 65534\n1234 1234\n0 0\n33 33\n");
    // No device of the host's comes into being.
    assert!(!sb.execute("mknod /m/null c 1 3").await?.success());
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn files_belong_to_who_works_there(sb: Sandbox) -> quicksand::Result<()> {
    let (host, owned) = (share(), share());
    for directory in [&host, &owned] {
        fs::create_dir(directory.path().join("hosts")).unwrap();
    }
    let error = sb.mount(Mount::new(owned.path(), "/owned").owner("ann")).await.unwrap_err();
    assert!(error.to_string().contains("no user \"ann\""), "{error}");
    sb.create_user("ann").await?;
    sb.mount(Mount::new(host.path(), "/m")).await?;
    sb.mount(Mount::new(owned.path(), "/owned").owner("ann")).await?;
    let sh = async |user: &str, line: &str| {
        let output = sb.command("sh").args(["-c", line]).user(user).output().await.unwrap();
        format!("{}{}", output.stdout, output.stderr)
    };
    // As git, ssh and `test -O` ask, each user in turn.
    for user in ["ann", "root", "nobody", "ann"] {
        assert_eq!(sh(user, "test -O /m/hosts && test -O /m && stat -c %U /m/hosts").await, format!("{user}\n"));
        assert_eq!(sh(user, "stat -c %U:%G /owned /owned/hosts").await, "ann:ann\n".repeat(2));
    }
    let made = "touch /m/x && test -O /m/x && install -d -m 700 /m/.ssh && stat -c '%U %a' /m/.ssh && ln -s x /m/l && ln /m/x /m/y";
    assert_eq!(sh("ann", made).await, "ann 700\n");
    assert_eq!(sh("root", "stat -c %U:%G /m/x /m/.ssh /m/l /m/y").await, "ann:ann\n".repeat(4));
    // What is changed is kept, by whom it may be.
    let lines = "chown nobody:daemon /m/x && chown -h root /m/l && stat -c %U:%G /m/x /m/y /m/l && chgrp ann /m/.ssh && stat -c %G /m/.ssh";
    assert_eq!(sh("root", lines).await, "nobody:daemon\nnobody:daemon\nroot:ann\nann\n");
    let refused = sh("ann", "chown ann /m/x; chown root /m/.ssh; test ! -O /m/x && echo still").await;
    assert_eq!(refused.matches("Operation not permitted").count(), 2, "{refused}");
    assert!(refused.contains("still"), "{refused}");
    // A new file of the same name is a new file.
    assert_eq!(sh("ann", "rm -f /m/x /m/y && touch /m/x && mv /m/x /m/y && stat -c %U /m/y").await, "ann\n");
    assert_eq!(sh("root", "touch /m/z && mv /m/z /m/y && cp -a /etc/passwd /m/y && stat -c %U /m/y").await, "root\n");
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn what_nobody_else_changes_is_remembered(sb: Sandbox) -> quicksand::Result<()> {
    let host = share();
    fs::write(host.path().join("f"), "first").unwrap();
    sb.mount(Mount::new(host.path(), "/m").cached()).await?;
    assert_eq!(shell(&sb, "cat /m/f").await?, "first");
    // The promise is broken here to see that the guest believed it.
    fs::write(host.path().join("f"), "later").unwrap();
    assert_eq!(shell(&sb, "cat /m/f").await?, "first");
    // What it writes itself is right on both sides.
    assert_eq!(shell(&sb, "echo mine > /m/f; cat /m/f").await?, "mine\n");
    assert_eq!(fs::read_to_string(host.path().join("f")).unwrap(), "mine\n");
    Ok(())
}
