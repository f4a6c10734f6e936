//! What `push` and `pull` of images and saves tell.

use quicksand_core::{Pulled, Pushed};

use crate::{failure::Result, show};

/// Tells what was pushed: on standard output where it is, for people on standard error what it took.
pub(crate) fn pushed(name: &str, pushed: &Pushed) -> Result<()> {
    show::print(&format!("{}\n", pushed.reference))?;
    let (size, sent) = (show::size(pushed.size), show::size(pushed.sent));
    eprintln!("quicksand: {name}: {size} in the registry, {sent} of which it did not have");
    eprintln!("quicksand: {name}: {}", warmth("went", pushed.warm));
    if let Some(why) = &pushed.left_out {
        eprintln!("quicksand: {name}: memory is left out: {why}");
    }
    Ok(())
}

/// Tells what was pulled in the same way.
pub(crate) fn pulled<T>(name: &str, pulled: &Pulled<T>) -> Result<()> {
    show::print(&format!("{name} {}\n", pulled.reference))?;
    eprintln!("quicksand: {name}: {} fetched; {}", show::size(pulled.fetched), warmth("came", pulled.warm));
    for why in &pulled.left_out {
        eprintln!("quicksand: {name}: memory is left out: {why}");
    }
    if pulled.warm == 0 {
        eprintln!("quicksand: {name}: the first start boots from the disk, and keeps a warm state for those after it");
    }
    Ok(())
}

fn warmth(moved: &str, count: usize) -> String {
    match count {
        0 => format!("no machine's memory {moved} along"),
        1 => format!("a machine's memory {moved} along, to start warm from"),
        _ => format!("the memories of {count} machines {moved} along, to start warm from"),
    }
}
