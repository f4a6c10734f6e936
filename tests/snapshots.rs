//! Snapshots of what commands print: one tidy text, the same from run to run and from clone to clone.

use quicksand::{Sandbox, assert_sandbox_snapshot, sandbox_test, snapshot_settings};

#[sandbox_test(image = "debian", save = "base")]
async fn a_command_its_code_and_its_streams(sb: Sandbox) -> quicksand::Result<()> {
    assert_sandbox_snapshot!(sb.execute("echo out; echo err >&2; printf '\\033[32mgreen\\033[0m'; exit 3").await?);
    assert_sandbox_snapshot!("killed", sb.execute("kill -15 $$").await?);
    Ok(())
}

/// Another test of another clone would compare with the same snapshot.
#[sandbox_test(image = "debian", save = "base")]
async fn what_changes_from_run_to_run(sb: Sandbox) -> quicksand::Result<()> {
    let line = "cat /etc/machine-id /proc/sys/kernel/random/boot_id; date; date -Is; date -u -R; \
                ip -brief address show scope global | tr -s ' ' | cut -d ' ' -f 3; \
                cat /sys/class/net/e*/address; systemctl show --property MainPID dbus | sed 's/MainPID=/Main PID: /'; \
                logger --stderr --id=$$ --tag quick hello";
    assert_sandbox_snapshot!(sb.execute(line).await?);
    Ok(())
}

/// A day and half a year later, in another year, and after a reboot, whatever prints times, ids and figures prints the same.
#[sandbox_test(image = "debian", save = "base", timeout = "10m")]
async fn the_same_another_day(sb: Sandbox) -> quicksand::Result<()> {
    let timer = "[Timer]\nOnCalendar=2099-01-01\nUnit=console-getty.service\n[Install]\nWantedBy=timers.target\n";
    sb.write_file("/etc/systemd/system/looks.timer", timer).await?;
    sb.write_file("/root/look", include_str!("snapshots/another_day.sh")).await?;
    let prepare = "set -e; systemctl enable --now looks.timer; mkdir /srv/directory; ln -s new /srv/link; \
                   touch -d '-100 days' /srv/old; echo hello >/srv/new; head -c 12345 /dev/zero >/srv/larger";
    sb.execute(prepare).await?.check()?;
    for date in ["+1 day", "+200 days", "+1 year"] {
        let later = sb.fork().await?;
        later.execute(&format!("date -s '{date}'")).await?.check()?;
        look(&later).await?;
    }
    look(&sb).await?;
    sb.reboot().await?;
    look(&sb).await
}

/// Compares what commands print with the one snapshot that there is of it.
async fn look(sb: &Sandbox) -> quicksand::Result<()> {
    assert_sandbox_snapshot!("another_day", sb.execute("sh -v /root/look 2>&1").await?);
    Ok(())
}

#[sandbox_test(image = "debian", save = "base")]
async fn plain_strings_may_have_the_filters_too(sb: Sandbox) -> quicksand::Result<()> {
    let said = sb.execute("echo today is $(date --iso-8601=seconds)").await?.stdout;
    snapshot_settings().bind(|| insta::assert_snapshot!(said));
    Ok(())
}

#[sandbox_test(image = "debian", save = "base")]
#[should_panic(expected = "snapshot assertion")]
async fn what_differs_fails(sb: Sandbox) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("other@debian.snap"),
        "---\nsource: here\n---\n$ echo another\nexit code: 0\n",
    )
    .unwrap();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(directory.path());
    settings.set_prepend_module_to_snapshot(false);
    let output = sb.execute("echo another").await.unwrap();
    settings.bind(|| assert_sandbox_snapshot!("other", &output));
}

/// A test of several images has a snapshot of each.
#[sandbox_test(images = ["debian"], save = "base")]
async fn one_for_each_image(sb: Sandbox) -> quicksand::Result<()> {
    assert_sandbox_snapshot!(sb.execute("sed -n 's/^ID=//p' /etc/os-release").await?);
    Ok(())
}
