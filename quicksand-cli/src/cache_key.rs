//! `quicksand cache-key`: a key for the caches of hosted CI.

use std::process::ExitCode;

use quicksand_core::cache_key;

use crate::{args::CacheKeyArgs, failure::Result, show};

/// Prints the key.
pub(crate) fn print(args: &CacheKeyArgs) -> Result {
    show::print(&format!("{}\n", cache_key(&args.inputs)?))?;
    Ok(ExitCode::SUCCESS)
}
