//! `#[sandbox_test]` as its users write it.

use std::{
    process::{ExitCode, Termination},
    time::Duration,
};

use quicksand::{NetworkMode, Sandbox, StartKind, sandbox_test};

#[sandbox_test(image = "debian", save = "base")]
async fn prints_its_kernel(sb: Sandbox) -> quicksand::Result<()> {
    assert_eq!(sb.execute("uname -s").await?.stdout, "Linux\n");
    Ok(())
}

/// What a test found, as `main` might return it.
struct Verdict(bool);

impl Termination for Verdict {
    fn report(self) -> ExitCode {
        if self.0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[sandbox_test(image = "debian", save = "base")]
async fn returns_what_main_may_return(sb: Sandbox) -> quicksand::Result<Verdict> {
    Ok(Verdict(sb.execute("true").await?.success()))
}

async fn with_a_mark(sb: &Sandbox) -> quicksand::Result<()> {
    sb.write_file("/etc/mark", "made once\n").await
}

#[sandbox_test(image = "debian", save = "marked", setup = with_a_mark)]
async fn finds_what_the_setup_left(sb: Sandbox) {
    assert_eq!(sb.read_file("/etc/mark").await.unwrap(), b"made once\n");
    assert_eq!(sb.start_report().unwrap().kind, StartKind::Warm);
    sb.execute("rm /etc/mark").await.unwrap().check().unwrap();
}

#[sandbox_test(image = "debian", save = "marked", setup = with_a_mark)]
async fn does_not_see_what_another_test_did(sb: Sandbox) {
    assert_eq!(sb.read_file("/etc/mark").await.unwrap(), b"made once\n");
    sb.execute("rm /etc/mark").await.unwrap().check().unwrap();
}

#[sandbox_test(image = "debian", memory = "640M", cpus = 2, network = "none", accel = "tcg", timeout = "90s")]
async fn has_what_it_asked_for(sb: Sandbox) -> ExitCode {
    assert_eq!(sb.execute("nproc").await.unwrap().stdout, "2\n");
    let kib: u64 =
        sb.execute("awk '/MemTotal/ { print $2 }' /proc/meminfo").await.unwrap().stdout.trim().parse().unwrap();
    assert!((550_000..655_360).contains(&kib), "{kib}");
    assert_eq!(sb.execute("ls /sys/class/net").await.unwrap().stdout, "lo\n");
    ExitCode::SUCCESS
}

#[sandbox_test(image = "debian", timeout = "300ms")]
#[should_panic(expected = "the test's body took longer than 300ms")]
async fn is_ended_when_its_time_is_over(sb: Sandbox) {
    let _ = sb.command("sleep").arg("60").timeout(Duration::from_secs(60)).output().await.unwrap();
}

#[sandbox_test(image = "no-such-image")]
#[should_panic(expected = "it is neither a save in")]
async fn says_what_images_there_are(_sb: Sandbox) {}

#[sandbox_test(image = "debian")]
#[ignore = "attributes stay: this one is never run"]
async fn is_ignored(_sb: Sandbox) {
    panic!("this test is ignored");
}

#[test]
fn the_default_network_is_closed() {
    assert_eq!(NetworkMode::default(), NetworkMode::MountsOnly);
}

#[sandbox_test(image = "debian", flavor = "multi_thread", worker_threads = 2)]
async fn tasks_run_while_the_body_blocks(sb: Sandbox) {
    let (sender, receiver) = std::sync::mpsc::channel();
    tokio::spawn(async move { sender.send(std::thread::current().id()) });
    let worker = receiver.recv_timeout(Duration::from_secs(30)).expect("another thread runs it");
    assert_ne!(worker, std::thread::current().id());
    assert_eq!(sb.execute("echo fine").await.unwrap().stdout, "fine\n");
}

#[sandbox_test(image = "debian", flavor = "current_thread")]
async fn tasks_run_on_the_tests_own_thread(sb: Sandbox) {
    let worker = tokio::spawn(async { std::thread::current().id() }).await.unwrap();
    assert_eq!(worker, std::thread::current().id());
    assert_eq!(sb.execute("echo fine").await.unwrap().stdout, "fine\n");
}

#[sandbox_test(image = "debian", disk_size = "6G", display = true)]
async fn the_disk_may_be_larger_and_there_may_be_a_display(sb: Sandbox) -> quicksand::Result<()> {
    let size = sb.execute("cat /sys/class/block/vda/size").await?.stdout;
    assert_eq!(size.trim().parse(), Ok((6u64 << 30) / 512));
    assert!(sb.screenshot_png().await?.starts_with(b"\x89PNG"));
    Ok(())
}
