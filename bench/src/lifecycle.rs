//! What becomes of a running sandbox: checkpoints, returns, twins, a reboot.

use std::time::Instant;

use quicksand::Sandbox;

use crate::{IMAGE, Result, options::Options, results::Results};

pub(crate) const KEYS: [&str; 4] = ["checkpoint_s", "revert_s", "fork_s", "reboot_s"];

const REBOOTS: usize = 2;

pub(crate) async fn measure(options: &Options, results: &mut Results) -> Result<()> {
    let sandbox = Sandbox::builder(IMAGE).start().await?;
    let (mut checkpoints, mut reverts, mut forks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.runs {
        let begun = Instant::now();
        sandbox.checkpoint("bench").await?;
        checkpoints.push(begun.elapsed().as_secs_f64());

        let begun = Instant::now();
        sandbox.revert("bench").await?;
        sandbox.ping().await?;
        reverts.push(begun.elapsed().as_secs_f64());

        let begun = Instant::now();
        let twin = sandbox.fork().await?;
        twin.ping().await?;
        forks.push(begun.elapsed().as_secs_f64());
        twin.stop().await?;
    }
    results.add("checkpoint_s", &checkpoints);
    results.add("revert_s", &reverts);
    results.add("fork_s", &forks);

    if options.wants(&["reboot_s"]) {
        let mut reboots = Vec::new();
        for _ in 0..REBOOTS {
            let begun = Instant::now();
            sandbox.reboot().await?;
            sandbox.ping().await?;
            reboots.push(begun.elapsed().as_secs_f64());
        }
        results.add("reboot_s", &reboots);
    }
    sandbox.stop().await?;
    Ok(())
}
