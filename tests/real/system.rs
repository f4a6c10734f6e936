//! What keeps a system going: its log, its clock, its jobs and its shares.

use quicksand::{Sandbox, sandbox_test};

use super::{apt, reboot, remove_packages, run, until};

const PACKAGES: &str = "cron rsyslog logrotate man-db chrony nfs-kernel-server";
/// When each was last started, if ever.
const STARTS: &str = "systemctl show --property ExecMainStartTimestampMonotonic logrotate.service man-db.service";

#[sandbox_test(save = "real", network = "full", timeout = "2h")]
async fn logs_timers_jobs_and_shares(sb: Sandbox) {
    apt(&sb, &format!("install --no-install-recommends {PACKAGES}")).await;
    let timers = "systemctl is-enabled logrotate.timer man-db.timer; systemctl is-active logrotate.timer man-db.timer";
    assert_eq!(run(&sb, timers).await, "enabled\nenabled\nactive\nactive\n");
    run(&sb, "mkdir /srv/share && echo '/srv/share 127.0.0.1(rw,no_root_squash)' > /etc/exports && exportfs -ra").await;
    run(&sb, "echo '* * * * * root echo ran >> /var/log/job' > /etc/cron.d/job").await;
    use_all(&sb, "first").await;

    // Three days pass while the machine is kept: these would be missed runs of daily timers.
    run(&sb, "systemctl stop chrony && date -s \"$(date -d '3 days ago' +%F) 12:00\"").await;
    let starts = run(&sb, STARTS).await;
    sb.checkpoint("three days ago").await.unwrap();
    sb.revert("three days ago").await.unwrap();
    run(&sb, "systemd-run --quiet --wait true").await;
    assert_eq!(run(&sb, STARTS).await, starts);
    assert_eq!(run(&sb, timers).await, "enabled\nenabled\nactive\nactive\n");

    reboot(&sb).await;
    use_all(&sb, "second").await;
    run(&sb, "logrotate --force /etc/logrotate.conf && test -s /var/log/syslog.1").await;
    run(&sb, "logger --tag real third").await;
    until(&sb, "grep 'real: third' /var/log/syslog").await;

    run(&sb, "rm -r /etc/cron.d/job /srv/share").await;
    // The users that packages created for themselves, and what the server of shares keeps of its clients.
    let stays = [
        "/etc/group",
        "/etc/gshadow",
        "/etc/passwd",
        "/etc/shadow",
        "/var/lib/nfs",
        "/var/lib/nfs/export-lock",
        "/var/lib/nfs/nfsdcld",
        "/var/lib/nfs/nfsdcld/main.sqlite",
    ];
    assert_eq!(remove_packages(&sb).await, stays);
}

async fn use_all(sb: &Sandbox, word: &str) {
    run(sb, &format!("logger --tag real {word}")).await;
    until(sb, &format!("grep 'real: {word}' /var/log/syslog")).await;
    run(sb, "rm -f /var/log/job").await;
    until(sb, "grep ran /var/log/job").await;
    assert!(run(sb, "chronyc -n tracking").await.contains("Reference ID"));
    let share = format!(
        "mount -t nfs 127.0.0.1:/srv/share /mnt && echo {word} > /mnt/word && umount /mnt && cat /srv/share/word"
    );
    assert_eq!(run(sb, &share).await, format!("{word}\n"));
    assert_eq!(run(sb, "MANPAGER=cat man 8 logrotate | grep -c '^NAME'").await, "1\n");
}
