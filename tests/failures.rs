//! A start that fails says why, each kind in its own way. The parts are checked on real machines; a false QEMU stands in only
//! for one that is too old.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use quicksand::{Accel, Accelerator, Error, Sandbox, SandboxBuilder, Stage, StartCause, StartError};

fn builder() -> SandboxBuilder {
    Sandbox::builder("debian").accel(Accel::Tcg)
}

async fn start_error(builder: SandboxBuilder) -> Box<StartError> {
    match builder.start().await {
        Err(Error::Start(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_qemu_does_not_take_is_in_its_own_words() {
    let error = start_error(builder().extra_qemu_args(["-no-such-option"])).await;
    assert_eq!(error.stage, Stage::Launch);
    assert!(matches!(error.cause, StartCause::QemuExited(_)), "{error}");
    let text = format!("failed to {error}");
    assert!(text.contains("-no-such-option: invalid option") && text.contains("what to do:"), "{text}");
}

#[tokio::test]
async fn a_kernel_that_panics_is_told_with_its_words() {
    // Our init can't mount such a file system and gives up; Linux panics when its init ends.
    let line = "console=ttyS0 panic=-1 quicksand.root=/dev/vda quicksand.fstype=nosuchfs";
    let begun = Instant::now();
    let error = start_error(builder().extra_qemu_args(["-append", line])).await;
    assert_eq!(error.stage, Stage::Boot);
    assert!(matches!(&error.cause, StartCause::KernelPanic(words) if words.contains("Kernel panic")), "{error}");
    assert!(error.console.contains("mount /dev/vda as nosuchfs"), "{}", error.console);
    assert!(begun.elapsed() < Duration::from_secs(100), "noticed at once, not after the timeout");
}

#[tokio::test]
async fn an_agent_that_never_answers_is_given_up_in_time() {
    // -S: the guest never runs an instruction.
    let begun = Instant::now();
    let patience = Duration::from_secs(2);
    let error = start_error(builder().extra_qemu_args(["-S"]).boot_timeout(patience)).await;
    assert_eq!(error.stage, Stage::Boot);
    assert!(matches!(error.cause, StartCause::AgentSilent(_)), "{error}");
    assert!(error.to_string().contains("boot_timeout"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn more_memory_than_the_host_has_is_refused_at_once() {
    let error = builder().memory("900T").start().await.unwrap_err();
    assert!(matches!(error, Error::NotEnoughMemory { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_image_is_told_with_those_that_are() {
    let error = Sandbox::builder("solaris").start().await.unwrap_err();
    assert!(
        matches!(&error, Error::NoSuchSource { images, .. } if images.iter().any(|name| name == "debian")),
        "{error}"
    );
}

/// On a host where KVM runs kernels it is used, elsewhere the reason is told: never a hang.
#[tokio::test]
async fn kvm_works_or_says_why_not() {
    let begun = Instant::now();
    match Sandbox::builder("debian").accel(Accel::Kvm).start().await {
        Ok(sb) => assert_eq!(sb.accelerator(), Some(Accelerator::Kvm)),
        Err(Error::Accelerator { wanted, why }) => {
            assert_eq!(wanted, Accel::Kvm);
            assert!(!why.is_empty());
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
            let sb = Sandbox::builder("debian").start().await.unwrap();
            assert_eq!((sb.accelerator(), sb.why_not_better()), (Some(Accelerator::Tcg), Some(why)));
        }
        Err(other) => panic!("{other}"),
    }
    for accel in [Accel::Hvf, Accel::Whpx] {
        let error = Sandbox::builder("debian").accel(accel).start().await.unwrap_err();
        assert!(matches!(error, Error::Accelerator { .. }), "{error}");
    }
}

/// What this program does as a child of the tests below: their faults are of a whole process.
#[tokio::test]
#[ignore = "run by other tests in a process of its own, with another environment"]
async fn child() {
    match Sandbox::builder("debian").start().await {
        Ok(_) => println!("outcome: started"),
        Err(error) => println!("outcome: {error:?}\ntext: failed to {error}"),
    }
}

/// The child's output, in an environment that `change` spoils; `wrap` is put before its command line.
fn child_says(wrap: &[&str], change: impl FnOnce(&mut Command)) -> String {
    let program = std::env::current_exe().unwrap();
    let mut words: Vec<&str> = wrap.to_vec();
    words.extend([program.to_str().unwrap(), "child", "--exact", "--ignored", "--nocapture"]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    change(&mut command);
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn script(directory: &Path, content: &str) -> String {
    let path = directory.join("qemu");
    fs::write(&path, format!("#!/bin/sh\n{content}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn no_qemu_and_too_old_a_qemu() {
    let text = child_says(&[], |child| {
        child.env("QUICKSAND_QEMU", "/nowhere/qemu");
    });
    assert!(text.contains("outcome: Qemu(Missing") && text.contains("install QEMU"), "{text}");

    let directory = tempfile::tempdir().unwrap();
    let old = script(directory.path(), "echo QEMU emulator version 6.1.0");
    let text = child_says(&[], |child| {
        child.env("QUICKSAND_QEMU", &old);
    });
    assert!(text.contains("outcome: Qemu(TooOld") && text.contains("7.2.0 is the oldest"), "{text}");
}

#[test]
fn a_cache_directory_that_is_none() {
    let text = child_says(&[], |child| {
        child.env("QUICKSAND_CACHE_DIR", "/proc/nope");
    });
    assert!(text.contains("outcome: Cache(Io"), "{text}");
}

/// A small file system of the test's own, in a mount name space of its own, which goes with the process.
#[test]
fn a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let mount = format!("mount -t tmpfs -o size=32M tmpfs '{path}' && exec \"$@\"");
    let text = child_says(&["unshare", "--mount", "--map-root-user", "sh", "-c", &mount, "sh"], |child| {
        child.env("QUICKSAND_CACHE_DIR", path);
    });
    assert!(text.contains("NoSpace"), "{text}");
    assert!(text.contains("find room for an image"), "{text}");
}
