//! What is so in a guest, asked and asserted: on Debian with systemd and dpkg, and on systems that have neither.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use quicksand::{
    Error, Sandbox, blocking,
    facts::{self, FactsError, Kind},
    sandbox_setup, sandbox_test,
};

/// What a failed assertion says.
fn said(assertion: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(assertion)).expect_err("the assertion fails");
    *panic.downcast::<String>().expect("it says so in words")
}

/// A system with a user, a file, a service that runs, one that fails, and sockets that listen.
#[sandbox_setup(image = "debian", save = "with-facts")]
async fn with_facts(sb: &Sandbox) -> quicksand::Result<()> {
    sb.create_user("ann").await?;
    let unit =
        |body: &str| format!("[Unit]\nDescription=x\n[Service]\n{body}\n[Install]\nWantedBy=multi-user.target\n");
    let runs = unit("ExecStart=/bin/sleep infinity");
    sb.write_file("/etc/systemd/system/runs.service", runs).await?;
    sb.write_file("/etc/systemd/system/greets.service", unit("ExecStart=/bin/true")).await?;
    let fails = unit("Type=oneshot\nExecStart=/bin/sh -c 'echo the disk is full; exit 3'");
    sb.write_file("/etc/systemd/system/fails.service", fails).await?;
    let socket =
        "[Socket]\nListenStream=127.0.0.1:7001\nListenStream=[::]:7002\nListenDatagram=127.0.0.1:7003\nAccept=no\n";
    sb.write_file("/etc/systemd/system/greets.socket", socket).await?;
    let out = sb
        .execute(
            "usermod --append --groups adm ann && install -m 4750 -o ann -g adm /dev/null /root/x && echo one >/root/x &&
             ln -s x /root/link && ln -s nowhere /root/dangling && mkfifo /root/pipe &&
             systemctl daemon-reload && systemctl enable --now runs.service 2>/dev/null && systemctl start greets.socket &&
             ! systemctl start fails.service",
        )
        .await?;
    assert!(out.success(), "{out}");
    Ok(())
}

#[sandbox_test(save = "with-facts")]
async fn of_debian(sb: Sandbox) -> quicksand::Result<()> {
    let dpkg = sb.package("dpkg").await?;
    dpkg.assert_installed();
    let version = sb.execute("dpkg-query --show --showformat '${Version}' dpkg").await?.stdout;
    dpkg.assert_version(&version);
    let none = sb.package("pkg").await?;
    none.assert_absent();
    let told = said(|| _ = none.assert_installed());
    assert!(told.contains("dpkg knows none of that name; installed are") && told.contains("dpkg"), "{told}");

    let runs = sb.service("runs").await?;
    runs.assert_running().assert_enabled();
    let pid = runs.pid.expect("its process is known");
    sb.file(format!("/proc/{pid}/cmdline")).await?.assert_content("/bin/sleep\0infinity\0");
    sb.service("fails.service").await?.assert_exists().assert_stopped().assert_disabled();
    sb.service("nothing").await?.assert_absent();
    let told = said({
        let fails = sb.service("fails").await?;
        move || _ = fails.assert_running()
    });
    assert!(told.contains("failed (failed), result exit-code; disabled (systemd)"), "{told}");
    assert!(told.contains("the end of its journal:") && told.contains("the disk is full"), "{told}");

    let x = sb.file("/root/x").await?;
    x.assert_kind(Kind::File).assert_mode(0o4750).assert_owner("ann").assert_group("adm").assert_size(4);
    x.assert_content("one\n").assert_contains("on");
    let told = said(|| _ = x.assert_mode(0o644));
    assert!(told.contains("mode 4750, owner ann (1000), group adm (4), 4 bytes"), "{told}");
    sb.file("/root/link").await?.assert_target("x").assert_content("one\n").assert_mode(0o777);
    assert!(sb.file("/root/dangling").await?.entry.unwrap().dangling);
    sb.file("/root/pipe").await?.assert_kind(Kind::Pipe);
    sb.file("/root").await?.assert_kind(Kind::Directory).assert_mode(0o700);
    sb.file("/proc/sys/kernel/ostype").await?.assert_content("Linux\n");
    let told = said({
        let none = sb.file("/root/lin/x").await?;
        move || _ = none.assert_exists()
    });
    assert!(told.contains("there is nothing; in /root there is") && told.contains("link"), "{told}");

    let ann = sb.user("ann").await?;
    ann.assert_uid(1000).assert_group("ann").assert_in_group("adm").assert_home("/home/ann").assert_shell("/bin/bash");
    let told = said({
        let none = sb.user("bob").await?;
        move || _ = none.assert_exists()
    });
    assert!(told.contains("there is none; there is root, daemon"), "{told}");

    sb.port(7001).await?.assert_listening().assert_local().assert_address("127.0.0.1").assert_program("systemd");
    sb.port(7002).await?.assert_listening().assert_address("::");
    sb.udp_port(7003).await?.assert_listening().assert_local();
    let told = said({
        let free = sb.port(7003).await?;
        free.assert_free();
        move || _ = free.assert_listening()
    });
    assert!(told.contains("TCP 127.0.0.1:7001") && told.contains("UDP 127.0.0.1:7003"), "{told}");
    Ok(())
}

#[sandbox_test(save = "with-facts")]
async fn several_at_once_take_one_round_trip(sb: Sandbox) -> quicksand::Result<()> {
    let five = || {
        (facts::package("dpkg"), facts::file("/root/x"), facts::user("ann"), facts::port(7001), facts::service("runs"))
    };
    let four = || (facts::package("dpkg"), facts::file("/root/x"), facts::user("ann"), facts::port(7001));
    let (dpkg, x, ann, port, runs) = sb.facts(five()).await?;
    dpkg.assert_installed();
    x.assert_contains("one");
    ann.assert_exists();
    port.assert_listening();
    runs.assert_running();
    let (mut all, mut files, mut process) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..9 {
        let begun = Instant::now();
        sb.facts(five()).await?;
        all.push(begun.elapsed());
        let begun = Instant::now();
        sb.facts(four()).await?;
        files.push(begun.elapsed());
        let begun = Instant::now();
        sb.command("true").output().await?.check()?;
        process.push(begun.elapsed());
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (all, files, process) = (median(&mut all), median(&mut files), median(&mut process));
    println!("five facts, one of them systemd's: {all:?}; four without: {files:?}; `true`: {process:?}");
    // Four processes would take four times as long as one.
    assert!(files < process * 4, "{files:?} for four facts without a process, {process:?} for a process");

    let many = sb.facts((0..200).map(facts::port).collect::<Vec<_>>()).await?;
    assert_eq!(many.iter().map(|port| port.number).collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
    let error = sb.facts(vec![facts::port(1); 257]).await.unwrap_err();
    assert!(matches!(error, Error::Facts(FactsError::TooMany(257))), "{error}");
    let error = sb.facts([facts::service("a b")]).await.unwrap_err().to_string();
    assert!(error.starts_with("look at the service \"a b\": use letters"), "{error}");
    Ok(())
}

/// What the guest does to its own files can make a fact wrong, and not the host.
#[sandbox_test(save = "with-facts")]
fn a_guest_that_lies_harms_nobody(sb: blocking::Sandbox) -> quicksand::Result<()> {
    sb.execute(
        "head -c 300000 /dev/zero | tr '\\0' x >/tmp/long; printf 'ann:x:-1:99999999999:%s' \"$(cat /tmp/long)\" >/etc/passwd;
         mkfifo /tmp/fifo; mv /var/lib/dpkg/status /tmp/status; ln -s /tmp/fifo /root/to-pipe;
         printf 'Package: \\033[2Jgit\\n\\nPackage: git\\nVersion: %s\\n' \"$(cat /tmp/long)\" >/var/lib/dpkg/status",
    )?
    .check()?;
    sb.user("ann")?.assert_absent();
    let error = sb.package("git").unwrap_err().to_string();
    assert!(error.contains("look at the package git: the guest says:") && error.contains("too long"), "{error}");
    let long = sb.file("/tmp/long")?;
    assert!(long.assert_size(300_000).entry.as_ref().unwrap().content.is_none());
    assert!(said(|| _ = long.assert_contains("x")).contains("no regular file of at most 262144 bytes"));
    assert!(sb.file("/root/to-pipe")?.entry.unwrap().content.is_none());
    let (git, port) = sb.facts((facts::package("gi"), facts::port(7001)))?;
    assert!(!git.to_string().contains('\x1b'), "{git:?}");
    port.assert_listening();
    Ok(())
}
