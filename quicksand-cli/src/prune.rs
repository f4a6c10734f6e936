//! `quicksand prune`: removes what can be made or got again and nobody used for a while.

use std::process::ExitCode;

use quicksand_core::{
    cache::Cache,
    prune::{Kept, Kind, Plan, Pruned, Rule, Thing},
};
use serde_json::{Value, json};

use crate::{args::PruneArgs, failure::Result, show};

/// Removes what the cache holds, by age and by total size, and says what that frees.
pub(crate) fn prune(args: &PruneArgs) -> Result {
    let rule = Rule { older_than: Some(args.older_than), max_size: args.max_size };
    let plan = Plan::new(&Cache::from_environment()?, &rule)?;
    let pruned = if args.dry_run { plan.look() } else { plan.carry_out()? };
    if args.json {
        show::json(&value(&pruned, args.dry_run))?;
    } else {
        show::print(&text(&pruned, args.dry_run))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(pruned: &Pruned, dry_run: bool) -> String {
    let mut text = String::new();
    for removal in &pruned.removed {
        let Thing { kind, name, about, used, .. } = &removal.thing;
        let about = about.as_ref().map(|about| format!(" ({about})")).unwrap_or_default();
        let (frees, used) = (show::size(removal.frees), show::ago(*used));
        text += &format!("{kind}: {name}{about}  {frees}  used {used}\n");
    }
    let (would, freed) = if dry_run { ("would free", "would be freed") } else { ("freed", "were freed") };
    for (kind, count, size) in kinds(pruned) {
        text += &format!("{would} {} in {kind} ({count})\n", show::size(size));
    }
    let spared = pruned.kept.iter().filter(|thing| thing.kept.is_some()).count();
    let (all, kept) = (show::size(pruned.freed()), show::size(pruned.kept_size));
    text + &format!("{all} {freed}; {kept} stay; in use, and kept whatever the rule: {spared}\n")
}

/// What went of each kind of which anything did.
fn kinds(pruned: &Pruned) -> impl Iterator<Item = (Kind, usize, quicksand_core::Size)> + '_ {
    let of = |kind| (kind, pruned.of_kind(kind));
    Kind::ALL.into_iter().map(of).filter(|(_, (count, _))| *count > 0).map(|(kind, (count, size))| (kind, count, size))
}

fn value(pruned: &Pruned, dry_run: bool) -> Value {
    let by_kind = kinds(pruned).map(|(kind, count, size)| {
        json!({
            "kind": kind.to_string(), "count": count, "freed_bytes": size.bytes(),
        })
    });
    let removed = pruned.removed.iter().map(|removal| {
        let mut value = thing(&removal.thing);
        value["freed_bytes"] = removal.frees.bytes().into();
        value
    });
    json!({
        "dry_run": dry_run,
        "freed_bytes": pruned.freed().bytes(),
        "kept_bytes": pruned.kept_size.bytes(),
        "by_kind": by_kind.collect::<Vec<_>>(),
        "removed": removed.collect::<Vec<_>>(),
        "kept": pruned.kept.iter().map(thing).collect::<Vec<_>>(),
    })
}

fn thing(thing: &Thing) -> Value {
    let mut value = json!({
        "kind": thing.kind.to_string(),
        "name": thing.name,
        "used": show::timestamp(thing.used),
    });
    if let Some(about) = &thing.about {
        value["about"] = about.as_str().into();
    }
    match &thing.kept {
        Some(Kept::InUse) => value["kept"] = "in use".into(),
        Some(Kept::New) => value["kept"] = "new".into(),
        Some(Kept::Project(root)) => {
            value["kept"] = "named by a project".into();
            value["project"] = json!(root);
        }
        _ => {}
    }
    value
}
