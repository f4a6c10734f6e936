//! A small suite, whose tests end in every way that tests end.

use std::{env, fs::File, io::Write};

use quicksand::{Sandbox, sandbox_setup, sandbox_test};

/// Tells whoever runs the suite what it has come to.
fn note(words: &str) {
    let notes = env::var_os("PROJECT_NOTES").expect("run by tests/runners.rs of quicksand");
    let mut notes = File::options().append(true).create(true).open(notes).unwrap();
    writeln!(notes, "{} {words}", std::process::id()).unwrap();
}

#[sandbox_setup(image = "debian", save = "base")]
async fn base(sb: &Sandbox) -> quicksand::Result<()> {
    sb.write_file("/root/made", "by the setup\n").await
}

#[sandbox_setup(image = "debian", save = "slow")]
async fn slow(sb: &Sandbox) -> quicksand::Result<()> {
    note("makes the save");
    sb.execute("sleep 3; echo by the setup > /root/made").await?;
    note("has made the save");
    Ok(())
}

mod outcomes {
    use super::*;

    #[sandbox_test(save = "base")]
    async fn passes(sb: Sandbox) {
        assert_eq!(sb.read_file("/root/made").await.unwrap(), b"by the setup\n");
    }

    #[sandbox_test(save = "base")]
    async fn fails(sb: Sandbox) {
        let out = sb.execute("sleep 1; echo wrong; echo complained >&2; exit 3").await.unwrap();
        assert_eq!(out.stdout, "right\n");
    }

    #[sandbox_test(save = "base")]
    #[should_panic(expected = "as it should")]
    async fn panics(_sb: Sandbox) {
        panic!("as it should");
    }

    #[sandbox_test(save = "base")]
    #[ignore = "not today"]
    async fn is_ignored(_sb: Sandbox) {}

    #[sandbox_test(save = "base", requires(command = "no-such-program"))]
    async fn lacks_a_program(_sb: Sandbox) {}
}

mod killed {
    use super::*;

    #[sandbox_test(save = "base")]
    async fn hangs(sb: Sandbox) {
        sb.execute("echo before").await.unwrap();
        let mut under_way = sb.command("sleep").arg("600").spawn().await.unwrap();
        note(&format!("qemu {}", sb.qemu_pid().unwrap()));
        under_way.wait().await.unwrap();
    }
}

mod at_once {
    use super::*;

    #[sandbox_test(save = "slow")]
    async fn passes(sb: Sandbox) {
        note("passes");
        assert_eq!(sb.execute("cat /root/made").await.unwrap().stdout, "by the setup\n");
    }
}
