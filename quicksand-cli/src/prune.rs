//! `quicksand prune`: removes what can be made again and nobody used for a while.

use std::process::ExitCode;

use quicksand_core::{
    Size,
    cache::Cache,
    inventory::{PruneRule, prunable, remove_warm_state},
};

use crate::{args::PruneArgs, failure::Result, show};

/// Removes warm states by age and by total size, and says what that frees.
pub(crate) fn prune(args: &PruneArgs) -> Result {
    let cache = Cache::from_environment()?;
    let mut rule = PruneRule::default();
    rule.older_than = Some(args.older_than);
    rule.max_size = args.max_size;
    let mut freed = 0;
    let chosen = prunable(&cache, &rule)?;
    for state in &chosen {
        if !args.dry_run {
            remove_warm_state(&cache, state)?;
        }
        freed += state.size.bytes();
        let image = state.image.as_deref().unwrap_or("damaged");
        show::print(&format!("{}  {image}  {}  used {}\n", state.key, show::size(state.size), show::ago(state.used)))?;
    }
    let verb = if args.dry_run { "would free" } else { "freed" };
    show::print(&format!("{} warm states: {verb} {}\n", chosen.len(), show::size(Size::from_bytes(freed))))?;
    Ok(ExitCode::SUCCESS)
}
