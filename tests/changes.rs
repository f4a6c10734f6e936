//! What has changed in a guest since its test began.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use quicksand::{
    Mount, NetworkMode, Sandbox, assert_sandbox_snapshot, blocking,
    changes::{FileKind, UnitState},
    images::Cache,
    sandbox_test,
};

async fn shell(sb: &Sandbox, line: &str) -> String {
    sb.execute(line).await.unwrap().check().unwrap().stdout
}

async fn shown(sb: &Sandbox) -> String {
    sb.changes().await.unwrap_or_else(|e| panic!("failed to {e}")).to_string()
}

const NOTHING: &str = "nothing has changed\n";

#[tokio::test]
async fn what_quicksand_itself_does_to_a_guest_is_no_change() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("x"), "x").unwrap();
    let builder = Sandbox::builder("debian").network_mode(NetworkMode::Full).disk_size("8G");
    let sb = builder.mount(Mount::new(directory.path(), "/opt")).start().await.unwrap();
    sb.allow_host_port(9).await.unwrap();
    sb.checkpoint("c").await.unwrap();
    sb.revert("c").await.unwrap();
    shell(&sb, "grep -q quicksand /etc/hosts && grep -q nameserver /etc/resolv.conf && test -e /opt/x").await;
    assert_eq!(shown(&sb).await, NOTHING);
    // What others do to the same files is one.
    shell(&sb, "echo 192.0.2.1 mine >> /etc/hosts; echo '# mine' >> /etc/resolv.conf").await;
    let changes = sb.changes().await.unwrap();
    assert_eq!(changes.files.len(), 2, "{changes}");
    assert!(changes.file("/etc/hosts").is_some() && changes.file("/etc/resolv.conf").is_some());
}

#[sandbox_test(image = "debian")]
async fn files_of_every_kind(sb: Sandbox) -> quicksand::Result<()> {
    let line = r#"
        set -e
        mkdir -m 2750 /opt/d && chown 1:2 /opt/d && ln -s d/../nowhere /opt/loop && ln -s loop /opt/d/loop
        mkfifo -m 600 /opt/p && mknod /opt/null c 1 3 && echo 12345 > "/opt/d/a b" && chmod 4711 "/opt/d/a b"
        printf x > "$(printf '/opt/\377\n.')" && ln /etc/issue /opt/hard
        rm /etc/motd && chmod 600 /etc/issue.net && chown 4242 /etc/debian_version
        rm /bin/sync && ln -s true /bin/sync
        mkdir /mnt/m && mount -t tmpfs none /mnt/m && touch /mnt/m/x /run/x /dev/shm/x
    "#;
    shell(&sb, line).await;
    let changes = sb.changes().await?;
    assert_sandbox_snapshot!("every_kind", changes);
    let odd = changes.file(Path::new(OsStr::from_bytes(b"/opt/\xff\n."))).unwrap();
    assert_eq!((odd.before.as_ref(), &odd.after.as_ref().unwrap().kind), (None, &FileKind::File { size: 1 }));
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn what_was_touched_has_not_changed(sb: Sandbox) -> quicksand::Result<()> {
    // As by a package that is installed again, a file that is copied over, a directory in which something came and went.
    let line = "touch /etc/hostname; cp -p /usr/bin/env /usr/bin/env.new && mv /usr/bin/env.new /usr/bin/env; chmod 600 /etc/issue; \
                chmod 644 /etc/issue; touch /opt/x && rm /opt/x; ln /etc/issue /opt/y && rm /opt/y";
    shown(&sb).await;
    let mut times = [Duration::ZERO; 2];
    for time in &mut times {
        let begun = Instant::now();
        assert_eq!(shown(&sb).await, NOTHING);
        *time = begun.elapsed();
        shell(&sb, line).await;
    }
    println!("{:?}, and {:?} with files that were touched", times[0], times[1]);
    // As long as before, with the time of before.
    shell(
        &sb,
        "cp -p /etc/issue /tmp/i && tr a-z A-Z < /tmp/i > /etc/issue && touch -r /tmp/i /etc/issue && rm /tmp/i",
    )
    .await;
    let changes = sb.changes().await?;
    assert_eq!(changes.to_string(), "files changed:\n  /etc/issue  other content\n");
    assert!(changes.file("/etc/issue").unwrap().content);
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn what_a_file_has_beside_is_told(sb: Sandbox) -> quicksand::Result<()> {
    // As setcap, setfacl and setfattr do it, which the image has not.
    let line = r#"
        set -e
        attribute() { perl -e '$v=eval $ARGV[2];syscall(188,$ARGV[0],$ARGV[1],$v,length $v,0)==0 or die $!' "$@"; }
        capability='pack("V5",0x02000001,1<<10,0,0,0)'
        acl='pack("V v2V v2V v2V v2V v2V",2, 1,6,~0&0xffffffff, 2,4,65534, 4,4,~0&0xffffffff, 16,4,~0&0xffffffff, 32,0,~0&0xffffffff)'
        attribute /usr/bin/tail security.capability "$capability"
        attribute /etc/shadow system.posix_acl_access "$acl"
        attribute /etc/issue user.x '"1"'
        chattr +i /etc/hostname
        cp /usr/bin/tail /opt/new && attribute /opt/new security.capability "$capability"
        mkdir /opt/d && attribute /opt/d system.posix_acl_default "$acl"
    "#;
    shell(&sb, line).await;
    let acl = "user::rw-,user:65534:r--,group::r--,mask::r--,other::---";
    let size = shell(&sb, "stat -c %s /opt/new").await;
    let wanted = format!(
        "files added:\n  /opt/d  directory  0755 root:root  default ACL {acl}\n  \
         /opt/new  0755 root:root {} B  capabilities cap_net_bind_service=ep\n\
         files changed:\n  /etc/hostname  flags immutable\n  /etc/issue  user.x \"1\"\n  /etc/shadow  ACL {acl}\n  \
         /usr/bin/tail  capabilities cap_net_bind_service=ep\n",
        size.trim()
    );
    assert_eq!(shown(&sb).await, wanted);
    // What has gone again is no change.
    let undo = "chattr -i /etc/hostname; perl -e 'syscall(198,$ARGV[0],$ARGV[1])==0 or die $!' /usr/bin/tail security.capability";
    let twin = sb.fork().await?;
    shell(&twin, undo).await;
    let changes = twin.changes().await?;
    assert!(changes.file("/etc/hostname").is_none() && changes.file("/usr/bin/tail").is_none(), "{changes}");
    Ok(())
}

#[sandbox_test(image = "debian")]
fn patterns_add_to_the_default_ones_or_take_their_place(sb: blocking::Sandbox) -> quicksand::Result<()> {
    sb.execute("mkdir -p /opt/a/b; echo x > /opt/a/b/x; echo y > /opt/y; date >> /var/log/mine")?.check()?;
    let shown = |changes: quicksand::Changes| changes.files.into_iter().map(|change| change.path).collect::<Vec<_>>();
    let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(shown(sb.changes().done()?), paths(&["/opt/a", "/opt/a/b", "/opt/a/b/x", "/opt/y"]));
    assert_eq!(shown(sb.changes().ignore(["/opt/a/*", "**/y"]).done()?), paths(&["/opt/a"]));
    let all = shown(sb.changes().ignore_only(["/opt"]).done()?);
    assert!(all.contains(&"/var/log/mine".into()) && !all.contains(&"/opt/y".into()), "{all:?}");
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn packages_and_units(sb: Sandbox) -> quicksand::Result<()> {
    let package = r#"
        package() {
            mkdir -p /root/p/DEBIAN /root/p/usr/lib/systemd/system /root/p/usr/share/greeter
            printf 'Package: greeter\nVersion: %s\nArchitecture: all\nMaintainer: x\nDescription: x\n' "$1" > /root/p/DEBIAN/control
            printf '[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n' > /root/p/usr/lib/systemd/system/greeter.service
            dpkg-deb --build /root/p /root/p.deb && dpkg --install /root/p.deb && rm -r /root/p /root/p.deb
        }
        set -e
    "#;
    shell(&sb, &format!("{package} package 1.0; systemctl enable greeter; systemctl mask dbus.socket")).await;
    let changes = sb.changes().await?;
    assert_eq!(changes.package("greeter").unwrap().after.as_deref(), Some("1.0"));
    assert_eq!(changes.unit("greeter.service").unwrap().after, Some(UnitState::Enabled));
    let wanted = "\
files added:
  /etc/systemd/system/dbus.socket -> /dev/null  root:root
  /etc/systemd/system/multi-user.target.wants/greeter.service -> /lib/systemd/system/greeter.service  root:root
  /usr/lib/systemd/system/greeter.service  0644 root:root 67 B
  /usr/share/greeter  directory  0755 root:root
packages added:
  greeter  1.0
units added:
  greeter.service  enabled
units changed:
  dbus.socket  not enabled => masked
";
    assert_eq!(changes.to_string(), wanted);

    // A setup's layer: what a test does on top of it.
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let save = saves.path().join("s");
    let first = Sandbox::builder("debian").saves_dir(saves.path()).save("s").start().await?;
    shell(&first, &format!("{package} package 1.0")).await;
    first.stop().await?;
    let second = Sandbox::builder(save.to_str().unwrap()).start().await?;
    assert_eq!(shown(&second).await, NOTHING);
    shell(
        &second,
        &format!("{package} package 2.0; systemctl enable greeter; apt-get remove -y sed --allow-remove-essential"),
    )
    .await;
    let changes = second.changes().ignore(["/usr/share"]).await?;
    let upgraded = changes.package("greeter").unwrap();
    assert_eq!((upgraded.before.as_deref(), upgraded.after.as_deref()), (Some("1.0"), Some("2.0")));
    assert!(changes.package("sed").unwrap().after.is_none());
    assert!(changes.file("/usr/bin/sed").or(changes.file("/bin/sed")).unwrap().after.is_none(), "{changes}");
    assert_eq!(changes.unit("greeter.service").unwrap().before, Some(UnitState::NotEnabled));
    Ok(())
}

#[tokio::test]
async fn the_beginning_stays_the_same_over_reboots_returns_and_twins() {
    let sb = Sandbox::builder("debian").start().await.unwrap();
    let one = "files added:\n  /opt/1  0644 root:root 2 B\n";
    shell(&sb, "echo 1 > /opt/1").await;
    sb.checkpoint("c").await.unwrap();
    let twin = sb.fork().await.unwrap();
    shell(&sb, "echo 2 > /opt/2").await;
    assert_eq!(shown(&sb).await, format!("{one}  /opt/2  0644 root:root 2 B\n"));
    assert_eq!(shown(&twin).await, one, "the twin is compared with where both began");
    shell(&twin, "rm /opt/1").await;
    assert_eq!(shown(&twin).await, NOTHING);
    sb.revert("c").await.unwrap();
    assert_eq!(shown(&sb).await, one);
    sb.reboot().await.unwrap();
    assert_eq!(shown(&sb).await, one);
}

/// The lists of what there was that are kept for saves in a directory.
fn baselines(saves: &Path) -> Vec<PathBuf> {
    let directory = Cache::from_environment().unwrap().root().join("baselines");
    let names =
        |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).contains(saves.to_str().unwrap());
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).filter(names).collect()
}

#[tokio::test]
async fn what_there_was_is_listed_once_for_a_save_and_goes_with_it() {
    let saves = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = |source: &str| Sandbox::builder(source).saves_dir(saves.path());
    let sb = builder("debian").start().await.unwrap();
    for save in ["s", "t"] {
        sb.save(save).await.unwrap();
    }
    sb.stop().await.unwrap();
    let machines: [Sandbox; 2] = [builder("s").start().await.unwrap(), builder("s").start().await.unwrap()];
    assert!(baselines(saves.path()).is_empty(), "nothing is listed that nobody asks for");
    let (one, other) = tokio::join!(shown(&machines[0]), shown(&machines[1]));
    assert_eq!((&*one, &*other), (NOTHING, NOTHING));
    let made = baselines(saves.path());
    let [file] = &*made else { panic!("{made:?}") };

    // Damaged: made again. Of a process that was killed while it wrote: nothing is seen.
    let whole = fs::read(file).unwrap();
    fs::write(file, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(shown(&machines[0]).await, NOTHING);
    assert_eq!(fs::read(file).unwrap().len(), whole.len());

    // It goes once the save has gone, and another is listed.
    drop(machines);
    fs::remove_dir_all(saves.path().join("s")).unwrap();
    let sb = builder("t").start().await.unwrap();
    assert_eq!(shown(&sb).await, NOTHING);
    let left = baselines(saves.path());
    assert!(left.len() == 1 && left[0] != *file, "{left:?}");
}

#[sandbox_test(image = "debian")]
async fn a_guest_that_changes_meanwhile_is_listed_all_the_same(sb: Sandbox) -> quicksand::Result<()> {
    let busy =
        "mkdir /opt/busy; while :; do mkdir -p /opt/busy/a/b/c; touch /opt/busy/a/b/c/$$; rm -r /opt/busy/a; done";
    let _busy = sb.command("sh").args(["-c", busy]).spawn().await?;
    shell(&sb, "i=0; d=/opt/deep; while [ ${#d} -lt 3000 ]; do d=$d/dddddddddddddddddddddd; done; mkdir -p $d; until test -e /opt/busy; do sleep 0.05; done").await;
    for _ in 0..3 {
        let changes = sb.changes().ignore(["/opt/busy/*"]).await?;
        assert_eq!(changes.files.last().unwrap().path.as_os_str().len(), 3022, "{}", changes.files.len());
        assert!(changes.file("/opt/busy").is_some());
    }
    Ok(())
}

/// What is asked for again: the guest's kernel has seen all of its files once. The absolute time is for a quiet machine to tell, and
/// the bench's to measure.
#[sandbox_test(image = "debian")]
async fn it_takes_seconds_at_the_most(sb: Sandbox) -> quicksand::Result<()> {
    shown(&sb).await;
    let twin = Sandbox::builder("debian").start().await?;
    shell(&twin, "echo 1 > /opt/1").await;
    let begun = Instant::now();
    let changes = twin.changes().await?;
    println!("{:?}: {} change", begun.elapsed(), changes.files.len());
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?} on a machine however busy", begun.elapsed());
    Ok(())
}
