//! The runner of `quicksand::main!`: a test program of which some tests run the program itself, as children, to see what becomes of the
//! others.

mod program;

use std::{env, fs, process::ExitCode};

use quicksand::{Sandbox, blocking, sandbox_setup, sandbox_test};
use rstest::rstest;

quicksand::main!(program::checks);

#[sandbox_setup(image = "debian", save = "runner-base", setup("echo by the setup > /root/set-up"))]
fn base();

#[sandbox_test(save = "runner-base")]
async fn has_a_machine(sb: Sandbox) -> quicksand::Result<()> {
    assert_eq!(sb.execute("cat /root/set-up").await?.stdout, "by the setup\n");
    Ok(())
}

#[sandbox_test(image = "debian")]
fn may_block(sb: blocking::Sandbox) {
    assert_eq!(sb.execute("id -u").unwrap().stdout, "0\n");
}

#[sandbox_test(images = ["debian", ignore("no-such-image", "there is none")])]
async fn of_images(sb: Sandbox) {
    sb.execute("true").await.unwrap().check().unwrap();
}

#[sandbox_test(image = "debian")]
#[rstest]
#[case(1)]
#[case(2)]
async fn of_rstest(#[case] code: i32, sb: Sandbox) {
    assert_eq!(sb.execute(format!("exit {code}")).await.unwrap().exit_code, code);
}

mod inner {
    use super::*;

    #[sandbox_test(image = "debian")]
    #[should_panic(expected = "as it should")]
    async fn panics(sb: Sandbox) {
        sb.execute("true").await.unwrap().check().unwrap();
        panic!("as it should");
    }
}

#[sandbox_test(image = "no-such-image", requires(command = "no-such-program"))]
#[ignore = "run by other tests in a process of its own"]
async fn requires_what_is_missing(_sb: Sandbox) {}

#[sandbox_test(image = "no-such-image", requires(command = "no-such-program"))]
#[ignore = "run by other tests in a process of its own"]
#[should_panic = "as it should"]
async fn requires_what_is_missing_to_panic(_sb: Sandbox) {
    panic!("as it should");
}

/// Fails as often as a file says.
#[sandbox_test(image = "debian", retries = 2)]
#[ignore = "run by other tests in a process of its own"]
async fn fails_at_first(sb: Sandbox) {
    let path = env::var("RUNNER_FAILURES").unwrap();
    let failures: u32 = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
    // It is there where another try was here.
    sb.execute("mkdir /mine").await.unwrap().check().unwrap();
    if failures > 0 {
        fs::write(path, (failures - 1).to_string()).unwrap();
        panic!("{failures} more failures");
    }
}

#[sandbox_test(image = "debian")]
#[ignore]
async fn fails_by_a_panic(sb: Sandbox) {
    sb.execute("true").await.unwrap().check().unwrap();
    let task = tokio::spawn(async { panic!("the words of a task") });
    assert!(task.await.is_err());
    panic!("the words of a panic");
}

#[sandbox_test(image = "debian")]
#[ignore]
async fn fails_by_an_error(_sb: Sandbox) -> Result<(), String> {
    Err("the words of an error".to_owned())
}

#[sandbox_test(image = "debian")]
#[ignore]
fn fails_by_a_code(_sb: blocking::Sandbox) -> ExitCode {
    ExitCode::from(9)
}

#[sandbox_test(image = "debian", timeout = "1s")]
#[ignore]
async fn fails_by_its_time(sb: Sandbox) {
    let _ = sb.execute("sleep 60").await;
}

#[sandbox_test(image = "debian")]
#[ignore]
#[should_panic = "something else"]
async fn fails_by_another_panic(_sb: Sandbox) {
    panic!("the words of a panic");
}

#[sandbox_test(image = "debian")]
#[ignore]
#[should_panic]
async fn fails_by_no_panic(_sb: Sandbox) {}

/// Until it is ended.
#[sandbox_test(image = "debian")]
#[ignore]
async fn goes_on(sb: Sandbox) {
    let _ = sb.execute("echo a few words; sleep 600").await;
}
