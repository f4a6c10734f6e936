//! Facts on systems that have neither systemd nor dpkg. One is like Alpine: busybox's init starts the real OpenRC, and the list of
//! packages is one of apk's. One is like Fedora: the real rpm with its database where Fedora has it, and no init at all.

#[path = "foreign_guests/disks.rs"]
mod disks;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use quicksand::{
    Sandbox,
    facts::{self, Kind},
};

/// All programs that busybox is, where there is none of that name.
fn applets(tree: &Path) {
    let list = Command::new("busybox").arg("--list-full").output().expect("busybox-static is installed");
    for path in String::from_utf8(list.stdout).unwrap().lines() {
        let link = tree.join(path);
        if let (Err(_), Some(directory)) = (link.symlink_metadata(), link.parent()) {
            fs::create_dir_all(directory).unwrap();
            symlink("/bin/busybox", link).unwrap();
        }
    }
}

fn script(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

const INITTAB: &str = "::sysinit:/sbin/openrc sysinit\n::sysinit:/sbin/openrc boot\n::wait:/sbin/openrc default\n\
                       ::shutdown:/sbin/openrc shutdown\n";
/// As apk 2 and 3 write it.
const APK: &str = "C:Q1qKcZ+j23xssAXmgQhkOO8dHnbWw=\nP:busybox\nV:1.37.0-r12\nA:x86_64\nS:510000\nI:940000\n\
    T:Size optimized toolbox of many common UNIX utilities\nU:https://busybox.net/\nL:GPL-2.0-only\no:busybox\n\
    D:so:libc.musl-x86_64.so.1\np:/bin/sh cmd:busybox=1.37.0-r12\nF:bin\nR:busybox\na:0:0:755\nZ:Q1abc=\n\n\
    C:Q1w=\nP:busybox-openrc\nV:1.37.0-r12\nA:x86_64\nF:etc\n";

#[tokio::test]
async fn of_a_system_like_alpine() {
    let disk = disks::once("openrc-supervised.raw", |path| {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path();
        disks::busybox(tree);
        // Debian's busybox takes its own programs for those of OpenRC where it is the shell; Alpine's does not.
        disks::packages("openrc,dash", tree);
        applets(tree);
        fs::remove_file(tree.join("bin/sh")).unwrap();
        symlink("dash", tree.join("bin/sh")).unwrap();
        fs::write(tree.join("etc/inittab"), INITTAB).unwrap();
        for runlevel in ["sysinit", "boot", "default", "shutdown"] {
            fs::create_dir_all(tree.join("etc/runlevels").join(runlevel)).unwrap();
        }
        fs::create_dir_all(tree.join("lib/apk/db")).unwrap();
        fs::write(tree.join("lib/apk/db/installed"), APK).unwrap();
        // The one supervisor that Debian's OpenRC has, and a program that is dpkg's elsewhere.
        let (supervised, background) = ("supervisor=supervise-daemon", "command_background=true");
        for (name, arguments, how) in [
            ("greeter", "httpd -f -p 127.0.0.1:8000 -h /etc", supervised),
            ("crasher", "sleep 1000", supervised),
            ("sleeper", "sleep 1001", background),
        ] {
            let body = format!(
                "#!/sbin/openrc-run\ncommand=/bin/busybox\ncommand_args=\"{arguments}\"\n{how}\npidfile=/run/{name}.pid\n"
            );
            script(&tree.join("etc/init.d").join(name), &body);
            symlink(format!("/etc/init.d/{name}"), tree.join("etc/runlevels/default").join(name)).unwrap();
        }
        script(&tree.join("etc/init.d/fails"), "#!/sbin/openrc-run\nstart() { return 1; }\n");
        script(&tree.join("etc/init.d/idle"), "#!/sbin/openrc-run\nstart() { return 0; }\n");
        disks::ext4(tree, path, "256M");
    });
    let sb = Sandbox::builder(disk.to_str().unwrap()).start().await.unwrap_or_else(|e| panic!("failed to {e}"));
    sb.execute("! rc-service fails start && kill -9 $(cat /run/crasher.pid)").await.unwrap().check().unwrap();

    let names = ["greeter", "crasher", "sleeper", "fails", "idle", "none"];
    let [greeter, crasher, sleeper, fails, idle, none] = sb.facts(names.map(facts::service)).await.unwrap();
    greeter.assert_running().assert_enabled();
    assert_eq!((&*greeter.state, &*greeter.enablement), ("started", "default"));
    for service in [&greeter, &sleeper] {
        let pid = service.assert_running().pid.expect("the pid file has it").to_string();
        let written = sb.read_file(format!("/run/{}.pid", service.name)).await.unwrap();
        assert_eq!(written.trim_ascii(), pid.as_bytes(), "{service}");
    }
    crasher.assert_exists().assert_stopped().assert_enabled();
    assert_eq!(crasher.state, "crashed");
    fails.assert_stopped().assert_disabled();
    assert_eq!((&*fails.state, &*idle.state), ("stopped", "stopped"));
    none.assert_absent();
    // OpenRC says the same in its words.
    let status = sb.execute("for i in greeter crasher idle; do rc-service $i status 2>&1; done").await.unwrap().stdout;
    let words: Vec<_> = status.lines().filter_map(|line| line.split_once("status: ")).map(|(_, word)| word).collect();
    assert_eq!(words, ["started", "unsupervised", "stopped"], "{status}");

    let (busybox, bash) = sb.facts((facts::package("busybox"), facts::package("bash"))).await.unwrap();
    busybox.assert_installed().assert_version("1.37.0-r12");
    assert_eq!(bash.assert_absent().to_string(), "package bash: apk knows none of that name");
    let (port, user, link) = sb.facts((facts::port(8000), facts::user("user"), facts::file("/bin/sh"))).await.unwrap();
    port.assert_listening().assert_local().assert_program("busybox");
    user.assert_uid(1000).assert_home("/tmp").assert_shell("/bin/sh");
    link.assert_kind(Kind::Link);

    let line = "sed -i s/r12/r13/ /lib/apk/db/installed && rc-update add idle default && rm /etc/init.d/fails && touch /etc/init.d/README";
    sb.execute(line).await.unwrap().check().unwrap();
    let changes = sb.changes().await.unwrap();
    let wanted = "files added:\n  /etc/init.d/README  0644 root:root 0 B\n  \
                  /etc/runlevels/default/idle -> /etc/init.d/idle  root:root\n\
                  files removed:\n  /etc/init.d/fails  0755 root:root 41 B\n\
                  packages changed:\n  busybox  1.37.0-r12 => 1.37.0-r13\n  busybox-openrc  1.37.0-r12 => 1.37.0-r13\n\
                  units changed:\n  idle  not enabled => enabled\nunits removed:\n  fails  not enabled\n";
    assert_eq!(changes.to_string(), wanted);
    sb.stop().await.unwrap();
}

const SPEC: &str = "Name: greeter\nEpoch: 3\nVersion: 1.2\nRelease: 4\nSummary: x\nLicense: x\nBuildArch: noarch\n\
                    %description\nx\n%install\nmkdir -p %{buildroot}/opt\necho hello >%{buildroot}/opt/greeter\n\
                    %files\n/opt/greeter\n";

#[tokio::test]
async fn of_a_system_like_fedora() {
    let disk = disks::once("rpm.raw", |path| {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path();
        disks::busybox(tree);
        disks::packages("rpm", tree);
        applets(tree);
        // Fedora's place; Debian's rpm has another.
        fs::create_dir_all(tree.join("etc/rpm")).unwrap();
        fs::write(tree.join("etc/rpm/macros"), "%_dbpath /usr/lib/sysimage/rpm\n").unwrap();
        fs::write(tree.join("root/greeter.spec"), SPEC).unwrap();
        disks::ext4(tree, path, "512M");
    });
    let sb = Sandbox::builder(disk.to_str().unwrap()).start().await.unwrap_or_else(|e| panic!("failed to {e}"));
    let build = "rpmbuild -bb greeter.spec --define '_build_id_links none' --define '__os_install_post %{nil}' &&
                 /usr/bin/rpm --initdb && /usr/bin/rpm --install --nodeps rpmbuild/RPMS/noarch/*.rpm";
    sb.command("sh").args(["-c", build]).current_dir("/root").output().await.unwrap().check().unwrap();

    let (greeter, git, file) =
        sb.facts((facts::package("greeter"), facts::package("git"), facts::file("/opt/greeter"))).await.unwrap();
    greeter.assert_installed().assert_version("3:1.2-4");
    assert_eq!((greeter.architecture.as_deref(), greeter.manager.as_deref()), (Some("noarch"), Some("rpm")));
    assert_eq!(git.assert_absent().to_string(), "package git: rpm knows none of that name");
    file.assert_content("hello\n");
    let changes = sb.changes().ignore(["/root"]).await.unwrap();
    let added = "files added:\n  /opt  directory  0755 root:root\n  /opt/greeter  0644 root:root 6 B\n";
    assert!(changes.to_string().starts_with(added), "{changes}");
    assert_eq!(changes.package("greeter").unwrap().after.as_deref(), Some("3:1.2-4"));
    // Whoever has no init has no services.
    let ssh = sb.service("ssh").await.unwrap();
    assert!(!ssh.exists && ssh.to_string().ends_with("neither systemd nor OpenRC"), "{ssh}");

    // The program is gone, but for busybox's of that name, or altogether, and its database is not: then nobody knows.
    for program in ["/usr/bin/rpm", "/bin/rpm"] {
        sb.command("rm").arg(program).output().await.unwrap().check().unwrap();
        let error = sb.package("greeter").await.unwrap_err().to_string();
        assert!(error.starts_with("look at the package greeter: the guest says: ask rpm"), "{error}");
    }
    sb.stop().await.unwrap();
}
