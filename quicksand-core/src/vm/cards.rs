//! A machine's cards of private networks.

use std::path::Path;

use quicksand_protocol::network::MOST_PRIVATE_CARDS;

use crate::{
    error::Error,
    network::private::{Membership, Plugged},
    qemu::machine::PrivateCard,
};

/// The cards, for as long as the machine runs.
#[derive(Debug)]
pub(super) struct Cards {
    count: u8,
    _plugged: Vec<Plugged>,
}

impl Cards {
    /// A card for each network, and at least as many as the guest has seen before: those that are too many lead nowhere.
    pub(super) fn new(memberships: &[Membership], seen: u8) -> Result<(Cards, Vec<PrivateCard>), Error> {
        let (mut plugged, mut cards) = (Vec::new(), Vec::new());
        for membership in memberships {
            let socket = if membership.is_member() {
                let made = membership.plug().map_err(Error::io("make a socket for a card of", Path::new("QEMU")))?;
                plugged.push(made.1);
                Some(made.0)
            } else {
                None
            };
            cards.push(PrivateCard { mac: membership.mac(), socket });
        }
        while cards.len() < usize::from(seen.min(MOST_PRIVATE_CARDS)) {
            cards.push(PrivateCard { mac: [0x52, 0x54, 0x4d, 0, 1, cards.len() as u8], socket: None });
        }
        Ok((Cards { count: cards.len() as u8, _plugged: plugged }, cards))
    }

    pub(super) fn count(&self) -> u8 {
        self.count
    }
}
