//! What users install and run for themselves.

use quicksand::{Sandbox, sandbox_test};

use super::{PATIENCE, apt, reboot, remove_packages, run, run_as};

const PACKAGES: &str = "dbus-user-session libpam-systemd flatpak ostree";

#[sandbox_test(save = "real", network = "full", timeout = "2h")]
async fn a_users_services_and_flatpak(sb: Sandbox) {
    apt(&sb, &format!("install --no-install-recommends {PACKAGES}")).await;
    sb.create_user("ann").await.unwrap();
    run(&sb, "loginctl enable-linger ann").await;
    sb.wait_for_unit("user@1000.service").timeout(PATIENCE).await.unwrap();
    let unit = "mkdir -p ~/.config/systemd/user && printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=default.target\\n' \
                > ~/.config/systemd/user/hello.service && systemctl --user daemon-reload && systemctl --user --quiet enable --now hello 2>&1";
    run_as(&sb, "ann", unit).await;
    // A repository without programs, as it is before anybody publishes one.
    run(&sb, "ostree --repo=/srv/repository init --mode=archive && flatpak build-update-repo /srv/repository").await;
    run_as(&sb, "ann", "flatpak remote-add --user --no-gpg-verify here file:///srv/repository").await;
    run(&sb, "flatpak remote-add --no-gpg-verify everywhere file:///srv/repository").await;
    check(&sb).await;
    let twin = sb.fork().await.unwrap();
    check(&twin).await;
    drop(twin);

    reboot(&sb).await;
    sb.wait_for_unit("user@1000.service").timeout(PATIENCE).await.unwrap();
    check(&sb).await;

    run(&sb, "loginctl disable-linger ann && systemctl stop user@1000.service && rm -r /srv/repository && userdel --remove ann 2>&1").await;
    // Packages leave the user that they created for themselves. fuse3 was in the initrd, which has been made anew without it.
    let mut stays = remove_packages(&sb).await;
    stays.retain(|path| !path.starts_with("/boot/initrd.img-"));
    assert_eq!(stays, ["/etc/group", "/etc/gshadow", "/etc/passwd", "/etc/shadow"]);
}

async fn check(sb: &Sandbox) {
    assert_eq!(run_as(sb, "ann", "systemctl --user is-active hello").await, "active\n");
    assert_eq!(
        run_as(sb, "ann", "flatpak remote-list --columns=name,options").await,
        "everywhere\tsystem,no-gpg-verify\nhere\tuser,no-gpg-verify\n"
    );
}
