//! How programs begin in a guest: whose they are, what they may take, what they find, as services and logins of the same system do.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use quicksand::{Error, Sandbox, sandbox_test};

/// What a program prints, which must end well.
async fn run_as(sb: &Sandbox, user: &str, line: &str) -> quicksand::Result<String> {
    let output =
        sb.command("sh").args(["-c", line]).user(user).timeout(Duration::from_secs(600)).output().await?.check()?;
    Ok(output.stdout)
}

#[sandbox_test(image = "debian")]
async fn users_by_name_and_number_with_and_without_a_group(sb: Sandbox) -> quicksand::Result<()> {
    sb.create_user("ann").await?;
    run_as(&sb, "root", "usermod -aG audio,video ann; echo 'bare:x:2000:2000:::' >>/etc/passwd").await?;
    for (user, expected) in [
        ("12345", "12345 0 0 / / 12345 /bin/sh"),
        ("12345:23456", "12345 23456 23456 / / 12345 /bin/sh"),
        ("12345:audio", "12345 29 29 / / 12345 /bin/sh"),
        ("ann", "1000 1000 1000 29 44 /home/ann /home/ann ann /bin/bash"),
        ("1000", "1000 1000 1000 29 44 /home/ann /home/ann ann /bin/bash"),
        ("ann:video", "1000 44 44 /home/ann /home/ann ann /bin/bash"),
        ("1000:5", "1000 5 5 /home/ann /home/ann ann /bin/bash"),
        ("root:5", "0 5 5 /root /root root /bin/bash"),
        ("0:0", "0 0 0 /root /root root /bin/bash"),
        ("bare", "2000 2000 2000 / / bare /bin/sh"),
        ("nobody", "65534 65534 65534 / /nonexistent nobody /usr/sbin/nologin"),
        ("4294967294", "4294967294 0 0 / / 4294967294 /bin/sh"),
    ] {
        let found = run_as(&sb, user, "echo $(id -u; id -g; id -G; pwd) $HOME $USER $SHELL").await?;
        assert_eq!(found.trim_end(), expected, "{user}");
    }
    let mut terminal =
        sb.command("sh").args(["-c", "id -u; id -g; tty"]).user("12345:23456").pty(24, 80).spawn().await?;
    terminal.wait_for(r"12345\n23456\n/dev/pts/\d+\n").await?;

    for (user, why) in [
        ("carl", "find user \"carl\" in the guest's /etc/passwd"),
        ("carl:5", "find user \"carl\" in the guest's /etc/passwd"),
        ("ann:staffs", "find group \"staffs\" in the guest's /etc/group"),
    ] {
        let error = sb.command("id").user(user).output().await.unwrap_err();
        assert!(matches!(error, Error::Guest(_)) && error.to_string().contains(why), "{user}: {error}");
    }
    for user in ["", ":5", "5:", "ann:", "a:b:c", "-1", "4294967295", "0:99999999999"] {
        let error = sb.command("id").user(user).output().await.unwrap_err();
        assert!(matches!(error, Error::BadOption { option: "user", .. }), "{user}: {error}");
    }
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn what_a_program_may_take_is_what_a_service_may(sb: Sandbox) -> quicksand::Result<()> {
    sb.create_user("ann").await?;
    // Without the file's own path, so that the lines are the same.
    let limits = "cat /proc/self/limits; cat /proc/self/oom_score_adj; grep -E '^Sig(Ign|Blk)' /proc/self/status";
    let descriptors = "ls /proc/self/fd";
    for user in ["root", "ann"] {
        let found = run_as(&sb, user, limits).await?;
        let service =
            format!("systemd-run --quiet --pipe --wait -p User={user} -p IgnoreSIGPIPE=no sh -c \"{limits}\"");
        assert_eq!(found, run_as(&sb, "root", &service).await?, "{user}");
        assert!(found.contains("SigIgn:\t0000000000000000"), "{found}");
        assert_eq!(run_as(&sb, user, "ulimit -n 65536 && ulimit -n").await?, "65536\n");
        assert_eq!(run_as(&sb, user, descriptors).await?, "0\n1\n2\n3\n");

        let line = format!("({limits}) >/tmp/{user}; ulimit -n 65536; echo $(ulimit -n) $({descriptors})");
        let mut terminal = sb.command("sh").args(["-c", &line]).user(user).pty(24, 80).spawn().await?;
        // The third is the directory that is listed.
        terminal.wait_for("65536 0 1 2 3\n").await?;
        assert!(terminal.wait().await?.success());
        assert_eq!(sb.execute(format!("cat /tmp/{user}")).await?.stdout, found);
    }
    // A setting of the guest's own counts, from its next boot on.
    sb.execute("mkdir -p /etc/systemd/system.conf.d").await?.check()?;
    sb.write_file("/etc/systemd/system.conf.d/limits.conf", "[Manager]\nDefaultLimitNOFILE=2048:4096\n").await?;
    sb.reboot().await?;
    assert_eq!(
        run_as(&sb, "ann", "ulimit -Sn; ulimit -Hn; cat /proc/self/cgroup").await?,
        "2048\n4096\n0::/quicksand\n"
    );
    Ok(())
}

/// Starts more processes than systemd's own group may have, has systemd start one beside them, and ends them.
const CROWD: &str = r#"
    for (1 .. 700) {
        my $pid = fork // die "fork $_: $!\n";
        if (!$pid) { sleep 1000; exit }
        push @pids, $pid;
    }
    system(@ARGV) == 0 or die "run @ARGV: $?\n" if @ARGV;
    kill KILL => @pids;
    print "started ", scalar @pids, "\n";"#;

#[sandbox_test(image = "debian")]
async fn commands_have_a_control_group_without_limits(sb: Sandbox) -> quicksand::Result<()> {
    sb.create_user("ann").await?;
    let group = "cat /proc/self/cgroup";
    for user in ["root", "ann"] {
        assert_eq!(run_as(&sb, user, group).await?, "0::/quicksand\n");
        let mut terminal = sb.command("sh").args(["-c", group]).user(user).pty(24, 80).spawn().await?;
        terminal.wait_for("^0::/quicksand\n").await?;
    }
    let limits = "cd /sys/fs/cgroup && echo $(cat quicksand/pids.max) $(($(cat init.scope/pids.max) < 700)) &&
        perl -e '@a = qw(quicksand user.oomd_omit x); syscall(191, @a, 1) == 1 && print qq(spared $a[2]\\n)'";
    assert_eq!(run_as(&sb, "root", limits).await?, "max 1\nspared 1\n");
    let crowd = sb.command("perl").args(["-e", CROWD, "systemd-run", "--quiet", "--wait", "true"]);
    let output = crowd.timeout(Duration::from_secs(600)).output().await?;
    assert_eq!(output.stdout, "started 700\n", "{output}");
    let output = sb.command("perl").args(["-e", CROWD]).user("ann").timeout(Duration::from_secs(600)).output().await?;
    assert_eq!(output.stdout, "started 700\n", "{output}");

    // systemd leaves it alone, and takes out of it what is to be a unit's.
    let line = "sleep 1000 & systemctl daemon-reload && systemctl daemon-reexec && systemctl isolate multi-user.target &&
        systemctl status >/dev/null && cat /proc/$!/cgroup && kill $! && systemd-run --quiet --scope --unit=mine cat /proc/self/cgroup";
    assert_eq!(run_as(&sb, "root", line).await?, "0::/quicksand\n0::/system.slice/mine.scope\n");
    sb.checkpoint("here").await?;
    sb.revert("here").await?;
    let twin = sb.fork().await?;
    assert_eq!(run_as(&twin, "ann", group).await?, "0::/quicksand\n");
    Ok(())
}

#[sandbox_test(image = "debian")]
async fn a_terminal_is_of_a_kind_that_the_guest_knows(sb: Sandbox) -> quicksand::Result<()> {
    sb.create_user("ann").await?;
    run_as(&sb, "ann", "mkdir -p ~/.terminfo/x && cp /lib/terminfo/x/xterm ~/.terminfo/x/xterm-ghostty").await?;
    run_as(&sb, "root", "mkdir -p /etc/terminfo/f && cp /lib/terminfo/x/xterm /etc/terminfo/f/foot").await?;
    for (user, kind, expected) in [
        ("root", Some("xterm-ghostty"), "xterm-256color"),
        ("root", Some("alacritty"), "xterm-256color"),
        ("root", Some("foot"), "foot"),
        ("root", Some("foot-extra"), "foot"),
        ("root", Some("tmux-256color"), "tmux-256color"),
        ("root", Some("dumb"), "dumb"),
        ("root", Some(""), "xterm-256color"),
        ("root", Some("../x/xterm"), "xterm-256color"),
        ("root", None, "xterm-256color"),
        ("ann", Some("xterm-ghostty"), "xterm-ghostty"),
        ("12345", Some("xterm-ghostty"), "xterm-256color"),
    ] {
        let mut command = sb.command("sh").args(["-c", "echo is $TERM; tput cols"]).user(user).pty(24, 77);
        if let Some(kind) = kind {
            command = command.kind(kind);
        }
        let mut terminal = command.spawn().await?;
        let found = terminal.wait_for(r"is (\S*)\n77\n").await?;
        assert_eq!(found.groups[0], expected, "{kind:?} for {user}");
    }
    // What a test itself says is its own affair.
    let mut terminal = sb.command("sh").args(["-c", "echo is $TERM"]).env("TERM", "mine").pty(24, 80).spawn().await?;
    terminal.wait_for("is mine\n").await?;
    Ok(())
}

/// Prints into a file what a process is like, a line `NAME<TAB>VALUE` each. Whose number and time it is does not matter here.
const PROBE: &str = r#"#!/bin/sh
exec >"$1"
tab() { awk -v FS="$1" '{ name = $1; sub(/^[^=:]*[=:]?[ \t]*/, ""); print name "\t" $0 }'; }
# What shells add by themselves is left out.
tr '\0' '\n' </proc/$$/environ | grep -vE '^(_|PWD|OLDPWD|SHLVL)=' | tab =
printf 'directory\t%s\numask\t%s\n' "$PWD" "$(umask)"
sed -nE 's/^(Max [a-z ]+[a-z])  +/\1\t/p' /proc/self/limits
grep -E '^(Sig(Blk|Ign)|Cap|NoNewPrivs|Seccomp|Groups|Uid|Gid)' /proc/self/status | tab :
printf 'oom_score_adj\t%s\nnice\t%s\nionice\t%s\n' "$(cat /proc/self/oom_score_adj)" "$(nice)" "$(ionice)"
printf 'policy\t%s\ncgroup\t%s\n' "$(chrt -p $$ | sed 's/.*: //')" "$(cat /proc/self/cgroup)"
printf 'descriptors\t%s\n' "$(echo $(ls /proc/self/fd))"
for space in /proc/self/ns/*; do printf 'namespace %s\t%s\n' "${space##*/}" "$(readlink "$space")"; done
for file in coredump_filter timerslack_ns personality loginuid; do printf '%s\t%s\n' $file "$(cat /proc/$$/$file)"; done
perl -e '$b = "\0" x 256; syscall(250, 6, -3, $b, 256); $b =~ /;([^;\0]*)\0/; print "keyring\t$1\n"'
"#;

async fn with_logins(sb: &Sandbox) -> quicksand::Result<()> {
    let get = "apt-get -o Acquire::Retries=5 -qq";
    let packages = "openssh-server dbus-user-session libpam-systemd";
    run_as(sb, "root", &format!("{get} update && {get} install --no-install-recommends -y {packages} >/dev/null"))
        .await?;
    sb.create_user("ann").await?;
    sb.write_file("/usr/local/bin/probe", PROBE).await?;
    let line = "chmod 755 /usr/local/bin/probe; ssh-keygen -q -t ed25519 -N '' -f /root/key
        for home in /root /home/ann; do install -d -m 700 $home/.ssh; cp /root/key.pub $home/.ssh/authorized_keys; done
        chown -R ann: /home/ann/.ssh; install -d -m 1777 /tmp/probe";
    run_as(sb, "root", line).await?;
    Ok(())
}

/// What differs between commands and a service, or an ssh login.
#[derive(Default, Debug, PartialEq, Eq)]
struct Differences {
    service: BTreeSet<String>,
    login: BTreeSet<String>,
}

/// The table of the documents, whose first column names what differs, and whose next two how a service and a login have it.
fn documented() -> Differences {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, table) = text.split_once("| what | in a command |").expect("the table of differences");
    let mut differences = Differences::default();
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        assert!(cells.len() == 7 && !cells[5].is_empty(), "each has its reason: {row}");
        for name in cells[1].split('`').skip(1).step_by(2) {
            for (cell, names) in [(cells[3], &mut differences.service), (cells[4], &mut differences.login)] {
                if cell != "the same" {
                    names.insert(name.to_owned());
                }
            }
        }
    }
    differences
}

#[sandbox_test(image = "debian", network = "full", save = "logins", setup = with_logins, timeout = "15m")]
async fn all_that_differs_from_a_service_and_a_login_is_documented(sb: Sandbox) -> quicksand::Result<()> {
    let mut found = Differences::default();
    let mut told = Vec::new();
    for user in ["root", "ann"] {
        // The directories of a login, which lingering would make as well.
        let ssh = format!("ssh -q -i /root/key -o StrictHostKeyChecking=no {user}@127.0.0.1");
        run_as(&sb, user, "probe /tmp/probe/plain-$USER").await?;
        let script = format!("/tmp/probe/pty-{user}");
        let mut terminal = sb.command("probe").arg(script).user(user).pty(24, 80).spawn().await?;
        assert!(terminal.wait().await?.success());
        let service = format!("systemd-run --quiet --pipe --wait -p User={user} probe /tmp/probe/service-{user}");
        run_as(&sb, "root", &service).await?;
        run_as(&sb, "root", &format!("{ssh} probe /tmp/probe/login-{user}")).await?;
        run_as(&sb, "root", &format!("TERM=xterm-256color {ssh} -tt probe /tmp/probe/terminal-{user}")).await?;

        let mut probes = BTreeMap::new();
        for name in ["plain", "pty", "service", "login", "terminal"] {
            let bytes = sb.read_file(format!("/tmp/probe/{name}-{user}")).await?;
            let lines = String::from_utf8(bytes).unwrap();
            let lines = lines.lines().map(|line| line.split_once('\t').unwrap_or((line, "")));
            let probe: BTreeMap<_, _> = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert!(probe.contains_key("Max open files") && probe.contains_key("namespace mnt"), "{name}: {probe:?}");
            probes.insert(name, probe);
        }
        for (ours, theirs) in [("plain", "service"), ("pty", "service"), ("plain", "login"), ("pty", "terminal")] {
            let (one, other) = (&probes[ours], &probes[theirs]);
            for name in one.keys().chain(other.keys()).filter(|name| one.get(*name) != other.get(*name)) {
                let names = if theirs == "service" { &mut found.service } else { &mut found.login };
                if names.insert(name.clone()) {
                    told.push(format!("{user} {name}: {ours} {:?}, {theirs} {:?}", one.get(name), other.get(name)));
                }
            }
        }
    }
    assert_eq!(found, documented(), "{}", told.join("\n"));
    Ok(())
}

#[sandbox_test(image = "debian", network = "full", save = "logins", setup = with_logins, timeout = "15m")]
async fn a_users_own_services_are_found_where_they_run(sb: Sandbox) -> quicksand::Result<()> {
    let variables = "env | grep -E '^(XDG|DBUS)_' | sort";
    assert_eq!(sb.command("sh").args(["-c", variables]).user("ann").output().await?.stdout, "");
    run_as(&sb, "root", "loginctl enable-linger ann").await?;
    sb.wait_for_unit("user@1000.service").await?;
    let unit = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=default.target\n";
    let line = format!("mkdir -p ~/.config/systemd/user && printf '{unit}' >~/.config/systemd/user/hello.service");
    run_as(&sb, "ann", &line.replace('\n', "\\n")).await?;
    run_as(&sb, "ann", "systemctl --user enable --now hello 2>&1").await?;
    assert_eq!(run_as(&sb, "ann", "systemctl --user is-active hello").await?, "active\n");
    let expected = "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus\nXDG_RUNTIME_DIR=/run/user/1000\n";
    assert_eq!(run_as(&sb, "ann", variables).await?, expected);
    let mut terminal =
        sb.command("systemctl").args(["--user", "is-active", "hello"]).user("1000").pty(24, 80).spawn().await?;
    terminal.wait_for("^active\n").await?;

    // Neither root nor somebody whose directory it is not.
    run_as(&sb, "root", "mkdir -p /run/user/0 /run/user/12345").await?;
    for user in ["root", "12345"] {
        assert_eq!(sb.command("sh").args(["-c", variables]).user(user).output().await?.stdout, "", "{user}");
    }

    sb.reboot().await?;
    sb.wait_for_unit("user@1000.service").await?;
    // By nobody's doing but its own, as it is enabled.
    assert_eq!(run_as(&sb, "ann", "systemctl --user is-active hello").await?, "active\n");

    sb.save("services-of-ann").await?;
    for memory in ["512M", "640M"] {
        // With what ran in it, and by a boot of its disk.
        let twin = Sandbox::builder("services-of-ann").memory(memory).start().await?;
        twin.wait_for_unit("user@1000.service").await?;
        assert_eq!(run_as(&twin, "ann", "systemctl --user is-active hello").await?, "active\n", "{memory}");
    }
    let saves = Path::new(env!("CARGO_MANIFEST_DIR")).join(".quicksand/sandboxes");
    std::fs::remove_dir_all(saves.join("services-of-ann")).unwrap();
    Ok(())
}
