//! What a test requires of the host: it is skipped where that is missing, for all to see, or fails.

use std::{
    env,
    process::{Command, ExitCode, Output, Stdio},
};

use quicksand::{Accelerator, Sandbox, sandbox_test};

#[sandbox_test(image = "no-such-image", requires(cpus = 1, memory = "1000T"))]
#[ignore = "run by another test in a process of its own, since the outcome depends on the environment"]
async fn more_memory_than_there_is(_sb: Sandbox) {}

#[sandbox_test(image = "no-such-image", requires(cpus = 100_000))]
#[ignore = "run by another test in a process of its own, since the outcome depends on the environment"]
async fn more_processors_than_there_are(_sb: Sandbox) -> quicksand::Result<()> {
    Ok(())
}

#[sandbox_test(image = "no-such-image", requires(command = "no-such-program"))]
#[ignore = "run by another test in a process of its own, since the outcome depends on the environment"]
async fn a_program_that_is_not_there(_sb: Sandbox) -> ExitCode {
    ExitCode::FAILURE
}

#[sandbox_test(image = "no-such-image", requires(command = "no-such-program"))]
#[ignore = "run by another test in a process of its own, since the outcome depends on the environment"]
#[should_panic(expected = "as it should")]
async fn a_panic_that_is_expected(_sb: Sandbox) {
    panic!("as it should");
}

#[sandbox_test(image = "debian", requires(command = "sh", cpus = 1, memory = "64M"))]
async fn what_is_there(sb: Sandbox) {
    sb.execute("true").await.unwrap().check().unwrap();
}

#[sandbox_test(image = "debian", requires(kvm))]
#[ignore = "run by another test in a process of its own, since the outcome depends on the environment"]
async fn kvm(sb: Sandbox) {
    assert_eq!(sb.accelerator(), Some(Accelerator::Kvm));
}

#[sandbox_test(image = "debian", requires(network))]
#[ignore = "run by another test in a process of its own, since the outcome depends on the environment"]
async fn network(_sb: Sandbox) {
    println!("there is a network");
}

/// Runs a test in a process of its own, its output captured as ever.
fn run(prefix: &[&str], test: &str, environment: &[(&str, &str)]) -> Output {
    let program = env::current_exe().unwrap();
    let mut words = prefix.to_vec();
    words.extend([program.to_str().unwrap(), test, "--exact", "--include-ignored"]);
    Command::new(words[0])
        .args(&words[1..])
        .env_remove("CI")
        .env_remove("QUICKSAND_REQUIRE")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_skip_is_told_and_can_be_made_a_failure() {
    for (test, reason) in [
        ("more_memory_than_there_is", "it requires 1000T of memory: there are "),
        ("more_processors_than_there_are", "it requires 100000 processors: there are "),
        ("a_program_that_is_not_there", "it requires the program no-such-program: it is not on the path"),
        ("a_panic_that_is_expected", "it requires the program no-such-program: it is not on the path"),
    ] {
        let output = run(&[], test, &[]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{test}: {errors}");
        assert!(errors.contains(&format!("SKIP requires::{test}: {reason}")), "{errors}");
        let skipped = run(&[], test, &[("CI", "true"), ("QUICKSAND_REQUIRE", "0")]);
        assert!(skipped.status.success(), "{test}");
        if test == "a_panic_that_is_expected" {
            continue;
        }
        for required in [[("QUICKSAND_REQUIRE", "1")], [("CI", "true")]] {
            let output = run(&[], test, &required);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(!output.status.success(), "{test}: {text}");
            assert!(text.contains(&format!("requires::{test}: {reason}")), "{text}");
            assert!(text.contains("; with QUICKSAND_REQUIRE=0 the test is skipped instead"), "{text}");
        }
    }
}

/// On a host with KVM it runs, on others it is skipped.
#[test]
fn kvm_is_tried() {
    let output = run(&[], "kvm", &[]);
    assert!(output.status.success(), "{output:?}");
    let skipped = String::from_utf8_lossy(&output.stderr).contains("SKIP requires::kvm: it requires KVM: ");
    let output = run(&[], "kvm", &[("QUICKSAND_REQUIRE", "1")]);
    assert_eq!(output.status.success(), !skipped, "{output:?}");
    let output = run(&[], "kvm", &[("QUICKSAND_ACCEL", "tcg")]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("SKIP requires::kvm: it requires KVM: QUICKSAND_ACCEL chooses Tcg"), "{errors}");
}

#[test]
fn a_network_is_looked_for_where_the_host_is_set_to_find_it() {
    let output = run(&[], "network", &[("NEXTEST_RUN_ID", "with-a-network")]);
    assert!(output.status.success(), "{output:?}");
    // In a network name space of its own there is no way out.
    let prefix = ["unshare", "--net", "--map-root-user"];
    let output = run(&prefix, "network", &[("NEXTEST_RUN_ID", "without-a-network")]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let skip = "SKIP requires::network: it requires the network: the host has no default route";
    assert!(errors.contains(skip), "{errors}");
    // What was found out is known to the whole run.
    let output = run(&[], "network", &[("NEXTEST_RUN_ID", "without-a-network")]);
    assert!(String::from_utf8_lossy(&output.stderr).contains(skip));
}
