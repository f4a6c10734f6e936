//! The memory of a machine's graphics card, which the state of its devices leaves out: taken out of the process of QEMU at a
//! freeze, put back before a clone runs.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    base::blocking::blocking,
    error::Error,
    qemu::{
        machine::SCREEN,
        memory::{Region, copy_region, fill_region},
        qmp::{Qmp, QmpError},
    },
};

/// The name that QEMU gives to that memory.
const NAME: &str = "vga.vram";

/// Writes what the card holds into `file`. Writes none where the guest has made the card unreachable, which shows nothing then.
pub(super) async fn save(qmp: &Qmp, pid: u32, file: PathBuf) -> Result<(), Error> {
    match find(qmp).await? {
        Some(region) => blocking(move || copy_region(pid, region, &file)).await.map(drop).map_err(Error::from),
        None => Ok(()),
    }
}

/// Puts back what [`save`] wrote, where it wrote something.
pub(super) async fn load(qmp: &Qmp, pid: u32, file: &Path) -> Result<(), Error> {
    if !file.exists() {
        return Ok(());
    }
    let file = file.to_owned();
    match find(qmp).await? {
        Some(region) => blocking(move || fill_region(pid, region, &file)).await.map(drop).map_err(Error::from),
        None => Ok(()),
    }
}

/// Where QEMU has the card's memory.
async fn find(qmp: &Qmp) -> Result<Option<Region>, QmpError> {
    let buses = qmp.execute("query-pci", json!({})).await?;
    let Some((address, len)) = guest_range(&buses) else { return Ok(None) };
    // Nothing else tells where it is. What fails is told as text, which has no such address in it.
    let command = json!({ "command-line": format!("gpa2hva {address:#x}") });
    let answer = qmp.execute("human-monitor-command", command).await?;
    let start = answer.as_str().and_then(host_address);
    if start.is_none() {
        tracing::warn!(target: "quicksand::freeze", %answer, "the graphics card's memory is out of reach");
    }
    Ok(start.map(|start| Region { start, len }))
}

/// Address and length of the card's memory as the guest sees it: its first base address register.
fn guest_range(buses: &Value) -> Option<(u64, u64)> {
    let devices = buses.as_array()?.iter().flat_map(|bus| bus["devices"].as_array()).flatten();
    let card = devices.into_iter().find(|device| device["qdev_id"] == SCREEN)?;
    let memory = card["regions"].as_array()?.iter().find(|region| region["bar"] == 0)?;
    Some((memory["address"].as_u64()?, memory["size"].as_u64()?))
}

/// `Host virtual address for 0xfd000000 (vga.vram) is 0x7f17b4400000`
fn host_address(answer: &str) -> Option<u64> {
    let (before, address) = answer.trim_end().split_once(") is 0x")?;
    before.ends_with(&format!("({NAME}")).then(|| u64::from_str_radix(address, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cards_own_memory_is_taken() {
        let answer = |name| format!("Host virtual address for 0xfd000000 ({name}) is 0x7f17b4400000\r\n");
        assert_eq!(host_address(&answer("vga.vram")), Some(0x7f17_b440_0000));
        assert_eq!(host_address(&answer("memory")), None);
        assert_eq!(host_address("No memory is mapped at address 0xfd000000\r\n"), None);
    }

    #[test]
    fn the_card_is_found_by_its_name() {
        let device = |id: &str, address: i64| json!({ "qdev_id": id, "regions": [{ "bar": 0, "size": 64, "address": address }] });
        let buses = |screen| json!([{ "devices": [device("card", 16), screen] }]);
        assert_eq!(guest_range(&buses(device(SCREEN, 32))), Some((32, 64)));
        // A card that the guest has switched off.
        assert_eq!(guest_range(&buses(device(SCREEN, -1))), None);
        assert_eq!(guest_range(&buses(device("other", 32))), None);
    }
}
