//! What has changed in a guest since its test began.

use std::time::Instant;

use quicksand::{Sandbox, blocking, sandbox_test};

#[sandbox_test(image = "debian")]
async fn nothing_has_changed_at_first(sb: Sandbox) -> quicksand::Result<()> {
    let begun = Instant::now();
    let changes = sb.changes().await?;
    println!("{:?} with the list of what was there", begun.elapsed());
    assert_eq!(changes.to_string(), "nothing has changed\n");
    let begun = Instant::now();
    sb.changes().await?;
    println!("{:?} again", begun.elapsed());
    Ok(())
}

#[sandbox_test(image = "debian")]
fn plain_functions_may_ask_too(sb: blocking::Sandbox) -> quicksand::Result<()> {
    sb.execute("echo x > /opt/x; echo y > /opt/y; echo z > /opt/z; date >> /var/log/mine")?;
    let begun = Instant::now();
    let changes = sb.changes().ignore(["/opt/y"]).done()?;
    println!("{:?}", begun.elapsed());
    assert_eq!(
        changes.to_string(),
        "files added:\n  /opt/x  0644 root:root 2 bytes\n  /opt/z  0644 root:root 2 bytes\n"
    );
    let all = sb.changes().ignore_only(["/opt"]).done()?;
    println!("{all}");
    assert!(all.file("/var/log/mine").is_some() && all.file("/opt/x").is_none());
    Ok(())
}
