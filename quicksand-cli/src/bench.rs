//! `quicksand bench`: how fast machines are on this host.

use std::{process::ExitCode, time::Instant};

use quicksand_core::{Sandbox, SandboxBuilder};
use serde_json::json;

use crate::{args::BenchArgs, failure::Result, run::builder, show};

/// Measures starts and commands, and prints their medians. `scripts/bench` of the project measures more.
pub(crate) async fn bench(args: &BenchArgs) -> Result {
    let builder = builder(&args.image, &args.machine);
    // Not measured: it may have to boot, or to make the image.
    let first = builder.clone().start().await?;
    let accelerator = first.accelerator().map(|accelerator| accelerator.to_string()).unwrap_or_default();
    first.stop().await?;

    let (mut starts, mut firsts, mut commands) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.runs {
        let (start, first, sandbox) = start(&builder).await?;
        starts.push(start);
        firsts.push(first);
        commands.push(command(&sandbox).await?);
        sandbox.stop().await?;
    }
    let figures = [
        ("start_s", "a clone is ready", median(&mut starts)),
        ("first_command_s", "its first command has ended", median(&mut firsts)),
        ("command_s", "a further command", median(&mut commands)),
    ];
    if args.list.json {
        let mut object = json!({ "image": args.image, "accelerator": accelerator, "runs": args.runs });
        for (key, _, value) in figures {
            object[key] = value.into();
        }
        show::json(&object)?;
    } else {
        let rows = figures.map(|(key, what, value)| [key.to_owned(), what.to_owned(), format!("{value:.3} s")]);
        show::table(["FIGURE", "MEANING", "MEDIAN"], &rows)?;
        show::print(&format!("{} runs of {} with {accelerator}\n", args.runs, args.image))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a clone. Returns when it was ready, when its first command had ended, and the clone.
async fn start(builder: &SandboxBuilder) -> Result<(f64, f64, Sandbox)> {
    let begun = Instant::now();
    let sandbox = builder.clone().start().await?;
    let ready = begun.elapsed().as_secs_f64();
    sandbox.command("true").output().await?.check()?;
    Ok((ready, begun.elapsed().as_secs_f64(), sandbox))
}

async fn command(sandbox: &Sandbox) -> Result<f64> {
    let begun = Instant::now();
    sandbox.command("true").output().await?.check()?;
    Ok(begun.elapsed().as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
