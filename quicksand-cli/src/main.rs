//! The command `quicksand`.
//!
//! - [`args`]: the command line;
//! - [`run`], [`shell`], [`screenshot`], [`images`], [`saves`], [`ps`], [`prune`], [`doctor`], [`cache_key`], [`mod@bench`]: a file for each command;
//! - [`share`]: what pushes and pulls tell;
//! - [`show`]: lists for people and for programs;
//! - [`failure`] and [`exit`]: what a failure looks like, and the exit codes.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod cache_key;
mod doctor;
mod exit;
mod failure;
mod images;
mod prune;
mod ps;
mod run;
mod saves;
mod screenshot;
mod share;
mod shell;
mod show;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tokio::runtime::Builder;

use crate::{
    args::{Cli, Command},
    failure::{Failure, Result},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(carry_out(cli.command));
            // A thread that waits for the terminal's next line is not waited for.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::from(error)),
    };
    outcome.unwrap_or_else(Failure::report)
}

async fn carry_out(command: Command) -> Result {
    match command {
        Command::Run(args) => run::run(args).await,
        Command::Shell(args) => shell::shell(args).await,
        Command::Screenshot(args) => screenshot::screenshot(args).await,
        Command::Images(command) => images::images(command).await,
        Command::Saves(args) => saves::saves(args).await,
        Command::Ps(args) => ps::list(&args),
        Command::Prune(args) => prune::prune(&args),
        Command::CacheKey(args) => cache_key::print(&args),
        Command::Doctor(args) => doctor::doctor(&args).await,
        Command::Bench(args) => bench::bench(&args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "quicksand", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}
