//! `quicksand saves`: machines written down.

use std::process::ExitCode;

use quicksand_core::{Reporter, Save, Saves};
use serde_json::{Value, json};

use crate::{
    args::{SavesArgs, SavesCommand},
    failure::Result,
    share,
    show::{self, ago, print, size, table, timestamp},
};

/// Carries out one of the commands.
pub(crate) async fn saves(args: SavesArgs) -> Result {
    let saves = Saves::at(&args.saves_dir);
    let reporter = Reporter::new(quicksand_test::show_progress());
    match args.command {
        SavesCommand::List(list) => {
            let all = saves.list()?;
            if list.json {
                show::json(&all.iter().map(value).collect::<Result<_>>()?)?;
            } else {
                let rows = all.iter().map(row).collect::<Result<Vec<_>>>()?;
                table(["SAVE", "IMAGE", "MEMORY", "CPUS", "STARTS", "SIZE", "MADE"], &rows)?;
            }
        }
        SavesCommand::Show { name, list } => {
            let save = saves.open(&name)?;
            if list.json { show::json(&value(&save)?)? } else { print(&details(&save)?)? }
        }
        SavesCommand::Remove { names } => {
            for name in names {
                let freed = saves.open(&name)?.size();
                saves.remove(&name)?;
                print(&format!("{name}: freed {}\n", size(freed)))?;
            }
        }
        SavesCommand::Export { name, file } => {
            saves.export(&name, &file, &reporter).await?;
            print(&format!("{name}: in {}\n", file.display()))?;
        }
        SavesCommand::Import { file, name } => {
            let save = saves.import(&file, &name, &reporter).await?;
            print(&format!("{name}: in {}\n", save.directory().display()))?;
        }
        SavesCommand::Push { name, reference, memory } => {
            share::pushed(&name, &saves.push(&name, &reference, memory.into(), &reporter).await?)?;
        }
        SavesCommand::Pull { reference, name, memory } => {
            let pulled = saves.pull(&reference, name.as_deref(), memory.into(), &reporter).await?;
            share::pulled(pulled.item.name(), &pulled)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How a sandbox starts from it, in a word.
fn starts(save: &Save) -> &'static str {
    if save.has_memory() { "warm" } else { "from its disk" }
}

fn row(save: &Save) -> Result<[String; 7]> {
    Ok([
        save.name().to_owned(),
        save.image().to_owned(),
        size(save.memory()),
        save.cpus().to_string(),
        starts(save).to_owned(),
        size(save.size()),
        ago(save.made()?),
    ])
}

fn details(save: &Save) -> Result<String> {
    let lines = [
        ("name", save.name().to_owned()),
        ("image", save.image().to_owned()),
        ("memory", size(save.memory())),
        ("cpus", save.cpus().to_string()),
        ("disk of the guest", size(save.disk_size())),
        ("starts", starts(save).to_owned()),
        ("on the disk", size(save.size())),
        ("made", timestamp(save.made()?)),
        ("directory", save.directory().display().to_string()),
    ];
    Ok(lines.iter().map(|(title, text)| format!("{title:17}  {text}\n")).collect())
}

fn value(save: &Save) -> Result<Value> {
    Ok(json!({
        "name": save.name(),
        "image": save.image(),
        "memory_bytes": save.memory().bytes(),
        "cpus": save.cpus(),
        "disk_bytes": save.disk_size().bytes(),
        "has_memory": save.has_memory(),
        "bytes": save.size().bytes(),
        "made": timestamp(save.made()?),
        "directory": save.directory(),
    }))
}
