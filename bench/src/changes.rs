//! What has changed in a guest since it started.

use std::time::Instant;

use quicksand::Sandbox;

use crate::{
    IMAGE, Result,
    clones::expect_warm,
    options::Options,
    results::{Results, median},
};

pub(crate) const KEYS: [&str; 1] = ["changes_s"];

/// Where saves are written whose files nobody has listed yet.
const FIRSTS: usize = 3;

pub(crate) async fn measure(options: &Options, results: &mut Results) -> Result<()> {
    let ask = async |sandbox: &Sandbox| -> Result<f64> {
        let begun = Instant::now();
        let changes = sandbox.changes().await?;
        let elapsed = begun.elapsed().as_secs_f64();
        if changes.files.len() != 1 || changes.file("/opt/bench").is_none() {
            return Err(format!("one file was added, and it tells of {changes}").into());
        }
        Ok(elapsed)
    };
    let (mut times, mut again, mut first) = (Vec::new(), Vec::new(), Vec::new());
    // The first answer lists what there was at the start, once for all clones of a state.
    for run in 0..=options.runs {
        let sandbox = Sandbox::builder(IMAGE).start().await?;
        expect_warm(&sandbox)?;
        sandbox.write_file("/opt/bench", "").await?;
        let elapsed = ask(&sandbox).await?;
        if run > 0 {
            times.push(elapsed);
            again.push(ask(&sandbox).await?);
        }
        sandbox.stop().await?;
    }
    let saves = tempfile::tempdir()?;
    for _ in 0..FIRSTS {
        let sandbox = Sandbox::builder(IMAGE).saves_dir(saves.path()).save("bench").start().await?;
        sandbox.stop().await?;
        let sandbox = Sandbox::builder("bench").saves_dir(saves.path()).start().await?;
        sandbox.write_file("/opt/bench", "").await?;
        first.push(ask(&sandbox).await?);
        sandbox.stop().await?;
    }
    results.add("changes_s", &times);
    let [again, first] = [again, first].map(|times| median(&times).unwrap_or_default());
    results.note(format!(
        "changes asked for again in the same guest take {again:.2} s, and {first:.2} s where nobody has asked any guest of that state"
    ));
    Ok(())
}
