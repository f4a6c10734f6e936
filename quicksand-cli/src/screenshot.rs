//! `quicksand screenshot`: a picture of what a machine shows.

use std::process::ExitCode;

use quicksand_core::Error;
use tokio::time::sleep;

use crate::{
    args::ScreenshotArgs,
    failure::{Failure, Result},
    run::builder,
    shell::start,
};

/// Starts a machine with a display, runs what is to be run, and takes a picture.
pub(crate) async fn screenshot(args: ScreenshotArgs) -> Result {
    let sandbox = start(&args.source, builder(&args.source, &args.machine).enable_display(true)).await?;
    if let [program, arguments @ ..] = args.command.as_slice() {
        sandbox.command(program).args(arguments).output().await?.check()?;
    }
    sleep(args.after).await;
    sandbox.screenshot(&args.file).await.map_err(|error| match error {
        Error::NoDisplay => Failure::from(error).hint("the machine of a test has one where the test asked for it"),
        error => error.into(),
    })?;
    sandbox.stop().await?;
    Ok(ExitCode::SUCCESS)
}
