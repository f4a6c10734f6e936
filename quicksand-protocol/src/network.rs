//! Connections between host and guest, and the guest's cards: what the [requests](crate::message::Request) about them carry, and
//! what both sides take for granted.

use serde::{Deserialize, Serialize};

/// Where the guest finds the host's ports that it was given: an address of its own on the guest's loopback, so that a service of
/// the guest on 127.0.0.1 may have the same port.
pub const HOST_ADDRESS: [u8; 4] = [127, 20, 26, 1];

/// The name of [`HOST_ADDRESS`] in the guest.
pub const HOST_NAME: &str = "host.quicksand.internal";

/// The PCI slot of the guest's own card.
pub const OWN_SLOT: u8 = 0x05;

/// The first PCI slot of the cards of private networks.
pub const FIRST_PRIVATE_SLOT: u8 = 0x10;

/// How many private networks a guest can be on, each with a card in a slot of its own.
pub const MOST_PRIVATE_CARDS: u8 = 8;

/// A connection to a server in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// The server's address. Where absent, the guest's loopback is tried, then each address of its cards.
    pub address: Option<[u8; 4]>,
    /// The server's port.
    pub port: u16,
    /// How long each address may take to answer, in milliseconds.
    pub patience_ms: u32,
}

/// A card of a private network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its PCI slot.
    pub slot: u8,
    /// The hardware address that it is to have.
    pub mac: [u8; 6],
    /// IPv4 address.
    pub address: [u8; 4],
    /// Length of the network prefix.
    pub prefix: u8,
}

/// The first line of our part of a guest's `/etc/hosts`, which is written anew as its networks change.
pub const OWN_HOSTS_BEGIN: &str = "# quicksand: begin of what is written anew as networks change";
/// The last line of it.
pub const OWN_HOSTS_END: &str = "# quicksand: end";

/// What others wrote into such a file, in whole lines.
pub fn without_own_hosts(text: &str) -> String {
    let mut others = String::new();
    let mut ours = false;
    for line in text.lines() {
        ours |= line == OWN_HOSTS_BEGIN;
        if !ours {
            others.push_str(line);
            others.push('\n');
        }
        ours &= line != OWN_HOSTS_END;
    }
    others
}
