//! Measures quicksand on this machine and prints a table: what a start, a command, a save, a suite of fifty tests cost, beside
//! what they are meant to cost at the most.
//!
//! - `keys`: what is measured, in which unit, and against which target;
//! - `options`: the command line;
//! - `clones`, `commands`, `saves`, `lifecycle`, `growth`, `changes`, `files`, `images`, `container`, `guests`, `mounts`,
//!   `network`, `pool`, `shell`, `suite`, `peer`: the measurements;
//! - `floor`: QEMU alone, without any of quicksand's code;
//! - `results`: figures, and how they are shown.
//!
//! Everything is measured warm: the image and its frozen state are made beforehand where they are missing.

mod changes;
mod clones;
mod commands;
mod container;
#[path = "../../tests/foreign_guests/disks.rs"]
mod disks;
mod files;
mod floor;
mod growth;
mod guests;
mod images;
mod keys;
mod lifecycle;
mod mounts;
mod network;
#[path = "../../tests/foreign_guests/openrc.rs"]
mod openrc;
mod options;
mod peer;
mod pool;
mod results;
mod saves;
mod shell;
mod suite;

use std::{env, error::Error, fs, process::ExitCode, thread};

use options::{Options, Request, USAGE};
use quicksand::Sandbox;
use results::Results;

/// Whatever ends the benchmark early is shown to the person who runs it, and handled by nobody.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What is measured on.
const IMAGE: &str = "debian";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                text += &format!(": {error}");
                source = error.source();
            }
            eprintln!("bench: {text}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well: `false` where a target that was to be checked is missed.
async fn run() -> Result<bool> {
    if let [word, image] = &env::args().skip(1).collect::<Vec<_>>()[..]
        && word == guests::WORD
    {
        return guests::boot_and_start(image).await.map(|()| true);
    }
    let options = match options::parse(env::args().skip(1))? {
        Request::Help => {
            print!("{USAGE}");
            return Ok(true);
        }
        Request::Run(options) => options,
    };
    let results = measure(&options).await?;
    print!("{}", results.table(&options));
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", results.json(&options));
        fs::write(path, text).map_err(|e| format!("write {}: {e}", path.display()))?;
    }
    Ok(!options.check || results.all_met(&options))
}

async fn measure(options: &Options) -> Result<Results> {
    let mut results = Results::default();
    say("a first machine, which is booted where there is no warm state");
    let sandbox = Sandbox::builder(IMAGE).on_progress(quicksand::show_progress()).start().await?;
    results.setting(setting(&sandbox));
    sandbox.stop().await?;

    if options.wants(&clones::KEYS) {
        say("clones, and QEMU alone");
        clones::measure(options, &mut results).await?;
    }
    if options.wants(&commands::KEYS) {
        say("pings and commands");
        commands::measure(options, &mut results).await?;
    }
    if options.wants(&saves::KEYS) {
        say("saves");
        saves::measure(options, &mut results).await?;
    }
    if options.wants(&lifecycle::KEYS) {
        say("checkpoints, twins, reboots");
        lifecycle::measure(options, &mut results).await?;
    }
    if options.wants(&growth::KEYS) {
        say("larger disks");
        growth::measure(options, &mut results).await?;
    }
    if options.wants(&changes::KEYS) {
        say("what has changed");
        changes::measure(options, &mut results).await?;
    }
    if options.wants(&files::KEYS) {
        say("files");
        files::measure(&mut results).await?;
    }
    if options.wants(&network::KEYS) {
        say("connections and networks");
        network::measure(options, &mut results).await?;
    }
    if options.wants(&mounts::KEYS) {
        say("mounts");
        mounts::measure(&mut results).await?;
    }
    if options.wants(&images::KEYS) {
        say("images");
        images::measure(&mut results).await?;
    }
    if options.wants(&container::KEYS) {
        say("a container image");
        container::measure(&mut results).await?;
    }
    if options.wants_heavy(&guests::KEYS) {
        say("guests of each kind, which takes minutes");
        guests::measure(options, &mut results).await?;
    }
    if options.wants(&shell::KEYS) {
        say("the command quicksand");
        shell::measure(options, &mut results).await?;
    }
    if options.wants(&pool::KEYS) {
        say("tests in a row");
        pool::measure(&mut results).await?;
    }
    if options.wants(&suite::KEYS) {
        say("fifty tests");
        suite::measure(&mut results).await?;
    }
    if let Some(python) = options.peer.as_ref().filter(|_| options.wants(&peer::KEYS)) {
        say("the Python peer, which takes minutes");
        peer::measure(python, &mut results).await?;
    }
    Ok(results)
}

/// What the figures depend on most.
fn setting(sandbox: &Sandbox) -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let accelerator = sandbox.accelerator().map(|accelerator| accelerator.to_string()).unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} cores, accelerator {accelerator}, load average {load} at the start")
}

fn say(what: &str) {
    eprintln!("bench: {what}");
}
