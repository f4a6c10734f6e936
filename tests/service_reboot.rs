//! A service that must survive a reboot, to be copied: what a clean Debian is like on which it was set up, once the whole
//! system has gone down and come up again.

use quicksand::{Sandbox, facts, sandbox_setup, sandbox_test};

/// Counts its starts, and waits.
const PROGRAM: &str = "#!/bin/sh\nset -e\ncd \"$STATE_DIRECTORY\"\necho start >>starts\nexec sleep infinity\n";
const SERVICE: &str = "\
[Unit]
Description=Counts its starts

[Service]
ExecStart=/usr/local/bin/heartbeat
User=heartbeat
StateDirectory=heartbeat
Restart=on-failure

[Install]
WantedBy=multi-user.target
";
const SOCKET: &str = "[Socket]\nListenStream=127.0.0.1:7070\n\n[Install]\nWantedBy=sockets.target\n";

/// The service as it is delivered: set up once, for all tests.
#[sandbox_setup(image = "debian", save = "heartbeat")]
async fn heartbeat(sb: &Sandbox) -> quicksand::Result<()> {
    sb.write_file("/usr/local/bin/heartbeat", PROGRAM).await?;
    sb.write_file("/etc/systemd/system/heartbeat.service", SERVICE).await?;
    sb.write_file("/etc/systemd/system/heartbeat.socket", SOCKET).await?;
    // This one is started and nothing more, as by an installer that forgets to enable it.
    sb.write_file("/etc/systemd/system/forgotten.service", SERVICE).await?;
    sb.execute(
        "chmod 755 /usr/local/bin/heartbeat && useradd --system --no-create-home heartbeat &&
             systemctl daemon-reload && systemctl enable --now heartbeat.socket heartbeat.service &&
             systemctl start forgotten.service",
    )
    .await?
    .check()?;
    Ok(())
}

#[sandbox_test(save = "heartbeat", timeout = "10m")]
async fn runs_again_after_a_reboot(sb: Sandbox) -> quicksand::Result<()> {
    let (service, socket, forgotten) = sb
        .facts((facts::service("heartbeat"), facts::service("heartbeat.socket"), facts::service("forgotten")))
        .await?;
    service.assert_running().assert_enabled();
    socket.assert_running().assert_enabled();
    forgotten.assert_running().assert_disabled();

    sb.reboot().await?;

    sb.wait_for_unit("heartbeat").await?;
    let (service, forgotten, port, starts, user) = sb
        .facts((
            facts::service("heartbeat"),
            facts::service("forgotten"),
            facts::port(7070),
            facts::file("/var/lib/heartbeat/starts"),
            facts::user("heartbeat"),
        ))
        .await?;
    service.assert_running().assert_enabled();
    forgotten.assert_stopped();
    port.assert_listening().assert_local();
    user.assert_exists();
    // Twice before the reboot, by the two services, and once after it: what was written before is still there.
    starts.assert_owner("heartbeat").assert_content("start\n".repeat(3));
    Ok(())
}

#[sandbox_test(save = "heartbeat")]
async fn runs_again_after_it_was_killed(sb: Sandbox) -> quicksand::Result<()> {
    let before = sb.service("heartbeat").await?;
    sb.execute(format!("kill -KILL {}", before.pid.expect("it runs"))).await?.check()?;
    sb.wait_until_succeeds("test \"$(wc -l </var/lib/heartbeat/starts)\" -eq 3").await?;
    let after = sb.service("heartbeat").await?;
    after.assert_running();
    assert_ne!(before.pid, after.pid);
    Ok(())
}
