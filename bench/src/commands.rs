//! A guest at work: pings and commands.

use std::time::Instant;

use quicksand::Sandbox;

use crate::{
    IMAGE, Result,
    clones::{expect_warm, run_true},
    options::Options,
    results::{Results, median},
};

pub(crate) const KEYS: [&str; 2] = ["ping_s", "exec_true_s"];

const PINGS: usize = 100;
/// The first commands have QEMU translate the guest's code, which a guest at work has behind it.
const WARM_UP: usize = 5;
const LEAST_COMMANDS: usize = 20;

pub(crate) async fn measure(options: &Options, results: &mut Results) -> Result<()> {
    let sandbox = Sandbox::builder(IMAGE).start().await?;
    expect_warm(&sandbox)?;
    let commands = options.runs.max(LEAST_COMMANDS);
    let (mut direct, mut shell) = (Vec::new(), Vec::new());
    for _ in 0..WARM_UP {
        run_true(&sandbox).await?;
        sandbox.execute("/bin/true").await?.check()?;
    }
    for _ in 0..commands {
        let begun = Instant::now();
        run_true(&sandbox).await?;
        direct.push(begun.elapsed().as_secs_f64());
    }
    for _ in 0..commands {
        let begun = Instant::now();
        sandbox.execute("/bin/true").await?.check()?;
        shell.push(begun.elapsed().as_secs_f64());
    }
    let mut pings = Vec::new();
    for _ in 0..PINGS {
        pings.push(sandbox.ping().await?.as_secs_f64());
    }
    sandbox.stop().await?;
    results.add("ping_s", &pings);
    results.add("exec_true_s", &direct);
    if options.wants(&["exec_true_s"]) {
        let shell = median(&shell).unwrap_or_default();
        results
            .note(format!("exec_true_s is without a shell; as execute(\"/bin/true\"), with one, it is {shell:.3} s"));
    }
    Ok(())
}
