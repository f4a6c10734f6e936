//! `#[sandbox_test]` above `#[rstest]`: its cases, values and fixtures, each with a machine of its own.

use quicksand::{Sandbox, sandbox_test};
use rstest::{fixture, rstest};

#[fixture]
fn greeting() -> String {
    "hello".to_owned()
}

#[fixture]
async fn slow_greeting(greeting: String) -> String {
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    format!("{greeting} there")
}

#[sandbox_test(image = "debian", save = "base")]
#[rstest]
#[case::root("root", "/root\n")]
#[case::nobody("nobody", "/nonexistent\n")]
async fn cases_have_a_machine_each(
    #[case] user: &str,
    mut sb: Sandbox,
    #[case] home: &str,
    greeting: String,
) -> quicksand::Result<()> {
    let sb = &mut sb;
    assert_eq!(sb.command("sh").args(["-c", "echo $HOME"]).user(user).output().await?.stdout, home);
    assert!(!sb.execute("test -e /greeting").await?.success(), "another case was here");
    sb.write_file("/greeting", greeting).await
}

#[sandbox_test(image = "debian", save = "base")]
#[rstest]
async fn values_multiply(#[values("a", "b")] one: &str, #[values(1)] two: u8, sb: Sandbox) -> quicksand::Result<()> {
    let out = sb.command("echo").args([one.to_owned(), two.to_string()]).output().await?;
    assert_eq!(out.stdout, format!("{one} {two}\n"));
    Ok(())
}

#[sandbox_test(image = "debian", save = "base")]
#[rstest]
async fn fixtures_may_be_async(#[future(awt)] slow_greeting: String, sb: Sandbox) {
    assert_eq!(sb.command("echo").arg(&slow_greeting).output().await.unwrap().stdout, "hello there\n");
}

/// `debian` by two names: the image, and an ignored one.
#[sandbox_test(images = ["debian", ignore("no-such-image", "there is none")])]
#[rstest]
#[case(1)]
#[case(2)]
async fn cases_and_images_multiply(#[case] number: u8, sb: Sandbox) {
    assert_eq!(sb.execute(format!("exit {number}")).await.unwrap().exit_code, i32::from(number));
}

#[sandbox_test(image = "debian", requires(command = "no-such-program"))]
#[rstest]
#[case(1)]
#[should_panic(expected = "number 2")]
#[case(2)]
#[ignore = "run by another test in a process of its own, since the outcome depends on the environment"]
async fn cases_may_be_skipped_and_may_panic(#[case] number: u8, _sb: Sandbox) {
    panic!("number {number}");
}

#[test]
fn skips_pass_in_every_case() {
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["cases_may_be_skipped", "--ignored"])
        .env("QUICKSAND_REQUIRE", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{out:?}");
    for case in ["case_1", "case_2"] {
        assert!(
            said.contains(&format!("SKIP rstest::cases_may_be_skipped_and_may_panic::{case}: it requires")),
            "{said}"
        );
    }
}

/// The names by which a filter finds them.
#[test]
fn tests_are_named_after_case_and_image() {
    let out = std::process::Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let listed = String::from_utf8(out.stdout).unwrap();
    for name in [
        "cases_have_a_machine_each::case_1_root",
        "values_multiply::one_2___b__::two_1_1",
        "fixtures_may_be_async",
        "cases_and_images_multiply::case_1::debian",
        "cases_and_images_multiply::case_2::no_such_image",
    ] {
        assert!(listed.contains(&format!("{name}: test\n")), "{name} in {listed}");
    }
}
