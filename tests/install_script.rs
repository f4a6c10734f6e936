//! A test suite for an install script, to be copied: each test tries it, or looks at what it left, on a clean Debian of
//! its own.
//!
//! The script and the release that it installs are in `tests/install_script`. They are included here rather than read,
//! so that the save `installed` is made again when one of them changes.

use quicksand::{Output, Sandbox, assert_sandbox_snapshot, sandbox_setup, sandbox_test};

const SCRIPT: &str = include_str!("install_script/install.sh");
const RELEASE: [(&str, u32, &str); 4] = [
    ("greeter/greeter", 0o755, include_str!("install_script/greeter/greeter")),
    ("greeter/greeter.conf", 0o644, include_str!("install_script/greeter/greeter.conf")),
    ("greeter/greeter.socket", 0o644, include_str!("install_script/greeter/greeter.socket")),
    ("greeter/greeter@.service", 0o644, include_str!("install_script/greeter/greeter@.service")),
];
const ASK: &str = "curl --silent --show-error --unix-socket /run/greeter.socket http://localhost/";

/// A clean system on which the script has run once.
#[sandbox_setup(image = "debian", save = "installed")]
async fn installed(sb: &Sandbox) -> quicksand::Result<()> {
    install(sb, &archive(&RELEASE)).await?.check()?;
    Ok(())
}

/// Puts the script and an archive on the machine, and runs the one with the other.
async fn install(sb: &Sandbox, archive: &[u8]) -> quicksand::Result<Output> {
    sb.write_file("/tmp/install.sh", SCRIPT).await?;
    sb.write_file("/tmp/release.tar", archive).await?;
    sb.execute("sh /tmp/install.sh /tmp/release.tar").await
}

/// The release as a tar. It is packed here, so that none lies about in the repository and goes stale.
fn archive(files: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// What a line of shell prints, once it has succeeded.
async fn said(sb: &Sandbox, line: &str) -> quicksand::Result<String> {
    let out = sb.execute(line).await?.check()?;
    Ok(out.stdout)
}

// What the script says and does, on a machine that has never seen it.

#[sandbox_test(image = "debian", save = "base")]
async fn tells_what_it_does(sb: Sandbox) -> quicksand::Result<()> {
    let out = install(&sb, &archive(&RELEASE)).await?;
    assert_sandbox_snapshot!(out);
    Ok(())
}

#[sandbox_test(image = "debian", save = "base")]
async fn leaves_nothing_of_a_damaged_archive(sb: Sandbox) -> quicksand::Result<()> {
    let whole = archive(&RELEASE);
    let out = install(&sb, &whole[..whole.len() / 2]).await?;
    assert_sandbox_snapshot!(out);
    assert_untouched(&sb).await
}

#[sandbox_test(image = "debian", save = "base")]
async fn leaves_nothing_of_an_incomplete_archive(sb: Sandbox) -> quicksand::Result<()> {
    let out = install(&sb, &archive(&RELEASE[..3])).await?;
    assert_sandbox_snapshot!(out);
    assert_untouched(&sb).await
}

/// No user, no file, no unit, and no temporary directory.
async fn assert_untouched(sb: &Sandbox) -> quicksand::Result<()> {
    let changes = sb.changes().ignore(["/tmp/install.sh", "/tmp/release.tar"]).await?;
    assert!(changes.is_empty(), "{changes}");
    Ok(())
}

#[sandbox_test(image = "debian", save = "base")]
async fn is_for_root_only(sb: Sandbox) -> quicksand::Result<()> {
    sb.write_file("/tmp/install.sh", SCRIPT).await?;
    let out = sb.command("sh").args(["/tmp/install.sh", "/tmp/release.tar"]).user("nobody").output().await?;
    assert_sandbox_snapshot!(out);
    Ok(())
}

// What it left. None of these waits for the script: it has run once, before the save was taken.

#[sandbox_test(save = "installed")]
async fn makes_a_user_who_cannot_log_in(sb: Sandbox) -> quicksand::Result<()> {
    let entry = said(&sb, "getent passwd greeter").await?;
    let fields: Vec<_> = entry.trim_end().split(':').collect();
    assert_eq!(fields[5..], ["/nonexistent", "/usr/sbin/nologin"]);
    let uid: u32 = fields[2].parse().unwrap();
    assert!((100..1000).contains(&uid), "{uid} is not a system user's");
    Ok(())
}

#[sandbox_test(save = "installed")]
async fn sets_owners_and_modes(sb: Sandbox) -> quicksand::Result<()> {
    let files = "find / -xdev -name '*greeter*' -exec stat --format '%A %U:%G %n' {} + | sort --key 3";
    insta::assert_snapshot!(said(&sb, files).await?);
    Ok(())
}

#[sandbox_test(save = "installed")]
async fn listens_now_and_after_every_boot(sb: Sandbox) -> quicksand::Result<()> {
    assert_eq!(said(&sb, "systemctl is-active greeter.socket").await?, "active\n");
    assert_eq!(said(&sb, "systemctl is-enabled greeter.socket").await?, "enabled\n");
    Ok(())
}

#[sandbox_test(save = "installed")]
async fn answers_as_its_user(sb: Sandbox) -> quicksand::Result<()> {
    assert_eq!(said(&sb, ASK).await?, "Hello from greeter\n");
    Ok(())
}

#[sandbox_test(save = "installed")]
async fn answers_other_users(sb: Sandbox) -> quicksand::Result<()> {
    let out = sb.command("/bin/sh").args(["-c", ASK]).user("nobody").output().await?;
    assert_eq!(out.stdout, "Hello from greeter\n", "{out}");
    Ok(())
}

#[sandbox_test(save = "installed")]
async fn can_run_again(sb: Sandbox) -> quicksand::Result<()> {
    sb.write_file("/etc/greeter.conf", "GREETING='Good evening'\n").await?;
    let out = install(&sb, &archive(&RELEASE)).await?;
    assert_sandbox_snapshot!(out);
    assert_eq!(said(&sb, ASK).await?, "Good evening from greeter\n");
    Ok(())
}
