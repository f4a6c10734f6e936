//! `quicksand ps`: the machines that run now.

use std::process::ExitCode;

use quicksand_core::{
    cache::Cache,
    inventory::{RunningMachine, running_machines},
};
use serde_json::{Value, json};

use crate::{args::ListArgs, failure::Result, show};

/// Lists the machines that run now.
pub(crate) fn list(args: &ListArgs) -> Result {
    let machines = running_machines(&Cache::from_environment()?)?;
    if args.json {
        show::json(&machines.iter().map(value).collect())?;
    } else {
        show::table(
            ["MACHINE", "SOURCE", "MEMORY", "CPUS", "OWNER", "QEMU", "STARTED"],
            &machines.iter().map(row).collect::<Vec<_>>(),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(machine: &RunningMachine) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let details = machine.details.as_ref();
    [
        machine.id.clone(),
        or_dash(details.map(|it| it.source.clone())),
        or_dash(details.map(|it| show::size(it.memory))),
        or_dash(details.map(|it| it.cpus.to_string())),
        or_dash(details.map(|it| it.owner.to_string())),
        or_dash(details.map(|it| it.qemu.to_string())),
        show::ago(machine.started),
    ]
}

fn value(machine: &RunningMachine) -> Value {
    let mut value = json!({ "id": machine.id, "started": show::timestamp(machine.started) });
    if let Some(details) = &machine.details {
        value["source"] = details.source.clone().into();
        value["memory"] = details.memory.bytes().into();
        value["cpus"] = details.cpus.into();
        value["accelerator"] = details.accelerator.to_string().into();
        value["owner"] = details.owner.into();
        value["qemu"] = details.qemu.into();
    }
    value
}
